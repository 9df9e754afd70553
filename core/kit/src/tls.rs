//! TLS 1.3 with our own roots only: what a server presents and demands, what a client presents and believes, both
//! replaceable while connections live.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use muster_types::{Identity, RootKey, Timestamp};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, Der, PrivateKeyDer, TrustAnchor};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// gRPC speaks HTTP/2 and nothing else (RFC 9113, section 3.2).
const ALPN: &[u8] = b"h2";

/// Why certificates cannot be used, or do not say who somebody is.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate or its key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    #[error("the trusted roots cannot be used: {0}")]
    Roots(String),
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    #[error("the certificate names nobody of a Muster network: {0}")]
    Nobody(String),
}

/// A certificate with its key, and whom its owner trusts.
pub struct Material {
    /// Leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub roots: Vec<CertificateDer<'static>>,
}

impl Clone for Material {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key(), roots: self.roots.clone() }
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chain, key: _, roots } = self;
        write!(f, "Material({} certificates, {} roots)", chain.len(), roots.len())
    }
}

/// What a server asks of its callers before the first byte of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerCertificate {
    Required,
    /// For services that also speak with devices that have none yet. A certificate that is shown must be good.
    Optional,
}

/// The server's side. [`Self::reload`] changes what new connections get; old ones go on.
pub struct ServerTls {
    callers: CallerCertificate,
    config: ArcSwap<ServerConfig>,
}

impl ServerTls {
    pub fn new(material: Material, callers: CallerCertificate) -> Result<Arc<Self>, TlsError> {
        let config = ArcSwap::from_pointee(server_config(material, callers)?);
        Ok(Arc::new(Self { callers, config }))
    }

    pub fn reload(&self, material: Material) -> Result<(), TlsError> {
        self.config.store(Arc::new(server_config(material, self.callers)?));
        Ok(())
    }

    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerTls(callers: {:?})", self.callers)
    }
}

/// The client's side. [`Self::reload`] changes what new connections show; old ones go on.
pub struct ClientTls(ArcSwap<ClientConfig>);

impl ClientTls {
    /// For who has a certificate.
    pub fn new(material: Material) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(client_config(material)?))))
    }

    /// For who has none yet, and knows the network by its root's key alone.
    pub fn trusting(root_key: &RootKey) -> Result<Arc<Self>, TlsError> {
        let roots = RootCertStore { roots: vec![trust_anchor(root_key)] };
        let config = client_builder()?.with_root_certificates(roots).with_no_client_auth();
        Ok(Arc::new(Self(ArcSwap::from_pointee(speaking_h2(config)))))
    }

    /// For who has no certificate that is good any more, but knows the roots.
    pub fn anonymous(roots: &[CertificateDer<'static>]) -> Result<Arc<Self>, TlsError> {
        let config = client_builder()?.with_root_certificates(root_store(roots)?).with_no_client_auth();
        Ok(Arc::new(Self(ArcSwap::from_pointee(speaking_h2(config)))))
    }

    pub fn reload(&self, material: Material) -> Result<(), TlsError> {
        self.0.store(Arc::new(client_config(material)?));
        Ok(())
    }

    pub fn config(&self) -> Arc<ClientConfig> {
        self.0.load_full()
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

/// The cryptography that everything here uses, named explicitly wherever rustls would guess.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A root to verify against, made of its key alone: the subject of a Muster root follows from its key.
pub fn trust_anchor(root_key: &RootKey) -> TrustAnchor<'static> {
    /// Tag and length of the outer SEQUENCE, which a trust anchor goes without.
    const SEQUENCE_HEAD: usize = 2;
    TrustAnchor {
        subject: Der::from(common_name_der(&root_key.common_name())),
        subject_public_key_info: Der::from(root_key.spki()[SEQUENCE_HEAD..].to_vec()),
        name_constraints: None,
    }
}

/// The key of a root's certificate.
pub fn root_key(certificate: &CertificateDer<'_>) -> Result<RootKey, TlsError> {
    let parsed = parse(certificate)?;
    RootKey::from_spki(parsed.public_key().raw).map_err(|error| TlsError::Roots(error.to_string()))
}

/// Whom a certificate speaks for, and its serial number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub identity: Identity,
    /// As in the certificate, big endian, at most 20 bytes.
    pub serial: Vec<u8>,
}

/// Reads the one identity of a chain that TLS has verified already. `certificates` begin with the leaf.
pub fn peer_identity(certificates: &[CertificateDer<'_>]) -> Result<Peer, TlsError> {
    let leaf = certificates.first().ok_or_else(|| TlsError::Nobody("there is none".into()))?;
    let parsed = parse(leaf)?;
    let names = parsed.subject_alternative_name().map_err(|error| TlsError::Unreadable(error.to_string()))?;
    let mut uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return Err(TlsError::Nobody("it must carry exactly one URI".into()));
    };
    let identity = uri.parse::<Identity>().map_err(|error| TlsError::Nobody(error.to_string()))?;
    Ok(Peer { identity, serial: parsed.raw_serial().to_vec() })
}

/// From when until when a certificate is good.
pub fn validity(certificate: &CertificateDer<'_>) -> Result<(Timestamp, Timestamp), TlsError> {
    let dates = parse(certificate)?.validity().clone();
    let date =
        |at: x509_parser::time::ASN1Time| Timestamp::from_micros(at.timestamp().saturating_mul(1_000_000));
    Ok((date(dates.not_before), date(dates.not_after)))
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, TlsError> {
    let (rest, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| TlsError::Unreadable(error.to_string()))?;
    if rest.is_empty() { Ok(parsed) } else { Err(TlsError::Unreadable("bytes follow it".into())) }
}

fn server_config(material: Material, callers: CallerCertificate) -> Result<ServerConfig, TlsError> {
    let roots = Arc::new(root_store(&material.roots)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
    let verifier = match callers {
        CallerCertificate::Required => verifier,
        CallerCertificate::Optional => verifier.allow_unauthenticated(),
    };
    let verifier = verifier.build().map_err(|error| TlsError::Roots(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(material.chain, material.key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would not be verified against the roots again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_config(material: Material) -> Result<ClientConfig, TlsError> {
    let config = client_builder()?
        .with_root_certificates(root_store(&material.roots)?)
        .with_client_auth_cert(material.chain, material.key)?;
    Ok(speaking_h2(config))
}

fn client_builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider());
    Ok(builder.with_protocol_versions(&[&rustls::version::TLS13])?)
}

fn speaking_h2(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config
}

fn root_store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|error| TlsError::Roots(error.to_string()))?;
    }
    if store.is_empty() { Err(TlsError::Roots("there is none".into())) } else { Ok(store) }
}

/// A distinguished name of one common name, without the outer SEQUENCE: SET { SEQUENCE { 2.5.4.3, UTF8String } }.
fn common_name_der(common_name: &str) -> Vec<u8> {
    const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
    let (sequence, set, utf8) = (0x30, 0x31, 0x0c);
    let value = [COMMON_NAME, &tagged(utf8, common_name.as_bytes())].concat();
    tagged(set, &tagged(sequence, &value))
}

/// DER with a short length: ours are all below 128 bytes, of "Muster root" and 16 digits.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().min(0x7f) as u8;
    [&[tag, length][..], content].concat()
}
