//! What the own certificate says.

use muster_types::{Identity, RootKey, Timestamp};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::CredentialError;

/// The time in which a certificate is good, by the master's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub begins: Timestamp,
    pub ends: Timestamp,
}

/// When a certificate begins and ends to be good.
///
/// # Errors
/// It cannot be read.
pub fn validity(der: &[u8]) -> Result<Validity, CredentialError> {
    let validity = parse(der)?.validity().clone();
    let date = |seconds: i64| Timestamp::from_micros(seconds.saturating_mul(1_000_000));
    Ok(Validity { begins: date(validity.not_before.timestamp()), ends: date(validity.not_after.timestamp()) })
}

/// Whom the certificate names, if it is for the P-256 key with this point.
pub(super) fn identity_with_key(der: &[u8], point: &[u8]) -> Result<Identity, CredentialError> {
    let certificate = parse(der)?;
    let key = RootKey::from_spki(certificate.public_key().raw).map_err(|_| CredentialError::ForeignKey)?;
    if key.point()[..] != *point {
        return Err(CredentialError::ForeignKey);
    }
    muster_wire::trust::identity_of(&certificate).map_err(CredentialError::Certificate)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CredentialError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| CredentialError::Certificate(error.to_string()))?;
    Ok(certificate)
}
