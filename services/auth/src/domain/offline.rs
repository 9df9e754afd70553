//! A root that is kept offline, at work: it signs what masters ask for, on a computer that no network reaches.

use muster_types::Timestamp;
use rand::CryptoRng;
use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::authority::{AuthorityError, spki_of};
use super::founding::{certify_authority, cross};
use super::key::KeyKind;
use super::request::PublicKey;

/// Why it does not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfflineError {
    #[error("the key is not the root's")]
    ForeignKey,
    #[error("a request is no PKCS#10 of a Muster authority, or not signed by its own key")]
    Request,
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// A root with its key.
#[derive(Debug)]
pub struct Root {
    issuer: Issuer<'static, KeyPair>,
}

impl Root {
    /// # Errors
    /// Certificate (DER) and key (PKCS#8) do not belong together.
    pub fn open(certificate: &[u8], key: &[u8]) -> Result<Self, OfflineError> {
        let pair = KeyPair::try_from(key).map_err(AuthorityError::from)?;
        let spki = rcgen::PublicKeyData::subject_public_key_info(&pair);
        if spki_of(certificate)? != spki {
            return Err(OfflineError::ForeignKey);
        }
        let der = CertificateDer::from(certificate);
        Ok(Self { issuer: Issuer::from_ca_cert_der(&der, pair).map_err(AuthorityError::from)? })
    }

    /// The certificate (DER) for an authority's request (DER). Which authority, its subject says.
    ///
    /// # Errors
    /// It is no request of a master.
    pub fn certify(
        &self,
        request: &[u8],
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, OfflineError> {
        let Ok(([], request)) = X509CertificationRequest::from_der(request) else {
            return Err(OfflineError::Request);
        };
        let info = &request.certification_request_info;
        let key = PublicKey::from_spki(info.subject_pki.raw).ok_or(OfflineError::Request)?;
        if !key.verifies(info.raw, &request.signature_value.data) {
            return Err(OfflineError::Request);
        }
        let name = info.subject.iter_common_name().next().and_then(|name| name.as_str().ok());
        let named = |kind: &KeyKind| name == Some(kind.common_name());
        let kind = KeyKind::AUTHORITIES.into_iter().find(named).ok_or(OfflineError::Request)?;
        Ok(certify_authority(kind, info.subject_pki.raw, &self.issuer, now, rng)?)
    }

    /// A certificate of another root's key: who believes this root believes that one through it.
    ///
    /// # Errors
    /// It is no root.
    pub fn vouch_for(
        &self,
        other: &[u8],
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, OfflineError> {
        Ok(cross(&spki_of(other)?, &self.issuer, now, rng)?)
    }
}
