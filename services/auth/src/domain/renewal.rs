//! Renewal: the key of a certificate that auth issued, perhaps long expired, proves itself and gets the next one.

use std::time::Duration;

use muster_types::{Identity, Timestamp};
use rand::CryptoRng;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::{Authority, AuthorityError};
use super::challenge::{self, ChallengeError};
use super::leaf::{Leaf, Serial};
use super::principal::Principal;
use super::request::{CertificateRequest, NodeKeys, PublicKey, RequestError};

/// How long after its expiry a certificate still renews, so that no holiday locks a laptop out (design, section 6).
pub const GRACE: Duration = Duration::from_secs(180 * 24 * 3_600);

/// What the certificate's key signs, before the challenge and the request's hash.
const RENEWAL_CONTEXT: &[u8] = b"muster renewal v1";

/// A leaf takes some 700 bytes.
const CERTIFICATE_BYTES: usize = 4_096;

/// Why a certificate is not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    #[error(transparent)]
    Challenge(#[from] ChallengeError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("the certificate cannot be read, or is none of this network")]
    Certificate,
    #[error("the proof is not by the certificate's key over this challenge and request")]
    BadProof,
    #[error("the certificate expired more than 180 days ago: enroll with a new link")]
    TooLate,
    #[error("this network does not know the certificate: enroll with a new link")]
    Unknown,
    #[error("the certificate was revoked")]
    Revoked,
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// Somebody's certificate that proved itself: signed by this authority, its key at hand.
#[derive(Debug, Clone)]
pub struct Proven {
    pub identity: Identity,
    pub serial: Serial,
    pub request: CertificateRequest,
}

/// A renewal as it is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// DER
    pub certificate: &'a [u8],
    pub challenge: &'a [u8],
    pub proof: &'a [u8],
    pub request: CertificateRequest,
}

impl Claim<'_> {
    /// Checks everything that needs no store.
    ///
    /// # Errors
    /// Challenge, certificate or proof do not hold, or the certificate expired too long ago.
    pub fn prove(&self, authority: &Authority, now: Timestamp) -> Result<Proven, RenewalError> {
        challenge::check(authority, self.challenge, now)?;
        if self.certificate.len() > CERTIFICATE_BYTES {
            return Err(RenewalError::Certificate);
        }
        let (rest, certificate) =
            X509Certificate::from_der(self.certificate).map_err(|_| RenewalError::Certificate)?;
        let identity = muster_wire::trust::identity_of(&certificate)
            .ok()
            .filter(|identity| identity.network == authority.network());
        let identity = identity.ok_or(RenewalError::Certificate)?;
        let key = PublicKey::from_spki(certificate.public_key().raw).ok_or(RenewalError::Certificate)?;
        if !rest.is_empty() || !authority.signed(&certificate) {
            return Err(RenewalError::Certificate);
        }
        let message = [RENEWAL_CONTEXT, self.challenge, self.request.hash()].concat();
        if !key.verifies(&message, self.proof) {
            return Err(RenewalError::BadProof);
        }
        let expiry = certificate.validity().not_after.timestamp().saturating_mul(1_000_000);
        if now.since(Timestamp::from_micros(expiry)) > GRACE {
            return Err(RenewalError::TooLate);
        }
        let serial = Serial(certificate.raw_serial().to_vec());
        Ok(Proven { identity, serial, request: self.request })
    }
}

/// Renews what [`Claim::prove`] proved, for a principal that auth knows by the certificate's serial.
///
/// # Errors
/// The principal or the certificate was revoked, or the authority failed.
pub fn renew(
    proven: &Proven,
    principal: &Principal,
    certificate_revoked: bool,
    node_keys: Option<NodeKeys>,
    authority: &Authority,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<(Principal, Leaf), RenewalError> {
    // Whoever is lost renews, so that it can be reached: what it gets is lost as well.
    if principal.is_revoked() || certificate_revoked && !principal.is_lost() {
        return Err(RenewalError::Revoked);
    }
    if principal.identity != proven.identity {
        return Err(RenewalError::Unknown);
    }
    if node_keys.is_some() && principal.node_keys.is_none() {
        return Err(RequestError::ForeignNodeKeys.into());
    }
    let leaf = authority.issue(&principal.identity, proven.request.key(), now, rng)?;
    let renewed = Principal {
        key: leaf.key,
        node_keys: node_keys.or(principal.node_keys),
        renew_time: now,
        ..principal.clone()
    };
    Ok((renewed, leaf))
}
