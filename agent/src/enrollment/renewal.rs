//! The next certificate: asked for from a third of the present one's life, with jitter, and also after its end.

use std::sync::Arc;
use std::time::Duration;

use muster_kit::clock::MasterClock;
use muster_kit::connect::{AUTH, Master};
use muster_kit::status;
use muster_kit::tls::ClientTls;
use muster_proto::auth::v1::enrollment_service_client::EnrollmentServiceClient;
use muster_proto::auth::v1::{CreateRenewalChallengeRequest, RenewRequest};
use muster_types::Timestamp;
use rand::Rng;
use tonic::Status;

use crate::identity::{CredentialError, Identity, KeyError, Validity};

/// A certificate is renewed after this part of its life ...
const DUE: f64 = 1.0 / 3.0;
/// ... and up to this part later, drawn by each node for itself.
const JITTER: f64 = 1.0 / 6.0;

/// Why there is no new certificate yet.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    #[error("auth refuses for good: {0}")]
    Refused(String),
    #[error("auth cannot be asked now: {0}")]
    NotNow(Box<Status>),
    #[error("auth answered without credentials")]
    Empty,
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("the new credentials do not fit this device: {0}")]
    Credentials(#[from] CredentialError),
    #[error(transparent)]
    Tls(#[from] muster_kit::tls::TlsError),
}

/// When a certificate is to be renewed.
pub fn due(validity: Validity, rng: &mut impl Rng) -> Timestamp {
    let life = validity.ends.since(validity.begins);
    validity.begins + life.mul_f64(DUE + rng.random_range(0.0..JITTER))
}

/// How long from now.
pub fn wait(validity: Validity, now: Timestamp, rng: &mut impl Rng) -> Duration {
    due(validity, rng).since(now)
}

/// Asks for a new certificate for the same keys. It shows no certificate in TLS: an expired one would be refused,
/// and the proof of possession is what counts.
///
/// # Errors
/// Auth refuses, cannot be reached, or its answer does not fit.
pub async fn renew(
    identity: &Identity,
    addresses: Vec<String>,
    clock: &MasterClock,
) -> Result<Identity, RenewalError> {
    let tls: Arc<ClientTls> = ClientTls::trusting(&identity.root_key)?;
    let mut auth = EnrollmentServiceClient::new(Master::new(addresses, tls).service(AUTH));
    let challenge = auth.create_renewal_challenge(CreateRenewalChallengeRequest {}).await.map_err(failed)?;
    let challenge = challenge.into_inner().challenge;
    let request = identity.keys.certificate_request()?;
    let leaf = identity.credentials.certificate_chain.first().cloned();
    let renewal = RenewRequest {
        certificate: leaf.ok_or(CredentialError::Missing("a certificate"))?,
        proof: identity.keys.renewal_proof(&challenge, &request)?,
        challenge,
        node_keys: Some(identity.keys.node_keys(&request)),
        certificate_request: request,
    };
    let answer = auth.renew(renewal).await.map_err(failed)?.into_inner();
    let mut credentials = answer.credentials.ok_or(RenewalError::Empty)?;
    if credentials.contacts.is_empty() {
        credentials.contacts = identity.credentials.contacts.clone();
    }
    let Identity { keys, root_key, link_address, .. } = identity.clone();
    Ok(Identity::verified(keys, credentials, root_key, link_address, clock.now())?)
}

/// Only a signed refusal is final; everything else is tried again.
fn failed(status: Status) -> RenewalError {
    match status::reason(&status) {
        Some(reason) if !matches!(status.code(), tonic::Code::Unavailable | tonic::Code::ResourceExhausted) => {
            RenewalError::Refused(format!("{} ({reason})", status.message()))
        }
        _ => RenewalError::NotNow(Box::new(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn renewal_falls_between_a_third_and_a_half_of_a_certificates_life() {
        let day = Duration::from_secs(24 * 3600);
        let begins = Timestamp::from_micros(1_700_000_000_000_000);
        let validity = Validity { begins, ends: begins + day * 14 };
        for seed in 0..200 {
            let due = due(validity, &mut rand::rngs::StdRng::seed_from_u64(seed));
            assert!(due.since(begins) >= day * 14 / 3 && due.since(begins) <= day * 7);
        }
        let expired = begins + day * 60;
        assert_eq!(wait(validity, expired, &mut rand::rng()), Duration::ZERO);
    }
}
