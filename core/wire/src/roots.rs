//! Which roots count beside the pinned one: those that it vouches for, while one root replaces another.

use muster_proto::trust::v1::TrustBundle;
use muster_types::Timestamp;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Roots that a bundle may bring: the present one, and those before and after it.
const ROOTS: usize = 8;

/// The pinned roots, and those of the bundle whose key has a certificate by one that is believed already, valid at `now`.
pub fn believed(
    pinned: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: Timestamp,
) -> Vec<CertificateDer<'static>> {
    let mut believed: Vec<_> = pinned.iter().map(|root| root.clone().into_owned()).collect();
    let mut waiting: Vec<_> =
        bundle.roots.iter().take(ROOTS).map(|root| CertificateDer::from(root.to_vec())).collect();
    waiting.retain(|root| !believed.contains(root));
    // Each round that finds one may open the way to another.
    while let Some(at) = waiting.iter().position(|root| is_vouched_for(root, &believed, bundle, now)) {
        believed.push(waiting.remove(at));
    }
    believed
}

fn is_vouched_for(
    root: &CertificateDer<'_>,
    believed: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: Timestamp,
) -> bool {
    let Ok((_, root)) = X509Certificate::from_der(root) else { return false };
    let vouchers = bundle.authorities.iter().take(ROOTS * ROOTS);
    let mut vouchers = vouchers.filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1));
    let seconds = now.as_micros().div_euclid(1_000_000);
    vouchers.any(|voucher| {
        let dates = voucher.validity();
        voucher.public_key().raw == root.public_key().raw
            && voucher.subject().as_raw() == root.subject().as_raw()
            && voucher.is_ca()
            && (dates.not_before.timestamp()..=dates.not_after.timestamp()).contains(&seconds)
            && believed.iter().any(|by| is_signed_by(&voucher, by))
    })
}

fn is_signed_by(certificate: &X509Certificate<'_>, by: &CertificateDer<'_>) -> bool {
    let Ok((_, by)) = X509Certificate::from_der(by) else { return false };
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, by.public_key().subject_public_key.data.as_ref())
        .verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data)
        .is_ok()
}
