//! Credentials in one PEM file: the key, then leaf, intermediates and, last, the roots, which have signed themselves.

use data_encoding::BASE64;
use muster_kit::tls::Material;
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Characters of a line (RFC 7468, section 2).
const LINE: usize = 64;

/// How far whoever wrote the file has come.
#[derive(Debug)]
pub enum State {
    /// A key that was, perhaps, sent already.
    Key(PrivateKeyDer<'static>),
    Admitted(Material),
}

pub fn to_pem(material: &Material) -> String {
    let mut text = key_to_pem(&material.key);
    for certificate in material.chain.iter().chain(&material.roots) {
        text.push_str(&section("CERTIFICATE", certificate));
    }
    text
}

pub fn key_to_pem(key: &PrivateKeyDer<'_>) -> String {
    section("PRIVATE KEY", key.secret_der())
}

/// `None` if it is no such file.
pub fn from_pem(text: &str) -> Option<State> {
    let (mut key, mut certificates) = (None, Vec::new());
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        match section.ok()? {
            (SectionKind::PrivateKey, der) => key = Some(PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der))),
            (SectionKind::Certificate, der) => certificates.push(CertificateDer::from(der)),
            _ => return None,
        }
    }
    let key = key?;
    if certificates.is_empty() {
        return Some(State::Key(key));
    }
    let (roots, chain): (Vec<_>, Vec<_>) = certificates.into_iter().partition(is_root);
    (!chain.is_empty() && !roots.is_empty()).then_some(State::Admitted(Material { chain, key, roots }))
}

fn is_root(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, certificate)| certificate.subject() == certificate.issuer())
}

pub fn section(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let mut section = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        section.push_str(line);
        section.push('\n');
        rest = after;
    }
    section.push_str(&format!("-----END {label}-----\n"));
    section
}
