//! The next certificate: asked for from a third of the present one's life, with jitter, and also after its end.

use std::sync::Arc;
use std::time::Duration;

use muster_kit::clock::MasterClock;
use muster_kit::connect::{AUTH, Master};
use muster_kit::status;
use muster_kit::tls::ClientTls;
use muster_proto::auth::v1::enrollment_service_client::EnrollmentServiceClient;
use muster_proto::auth::v1::{CreateRenewalChallengeRequest, RenewRequest};
use muster_types::{NodeId, Timestamp};
use tonic::Status;

use crate::identity::{CredentialError, Identity, KeyError, Validity};

/// A certificate is renewed after this part of its life ...
const DUE: f64 = 1.0 / 3.0;
/// ... and up to this part later.
const JITTER: f64 = 1.0 / 6.0;

/// After a renewal that failed it is tried again this much later ...
const RETRY: Duration = Duration::from_secs(600);
/// ... and up to this much more: when a master that was away for a week is back, a whole fleet is overdue.
const RETRY_JITTER: Duration = Duration::from_secs(600);

/// Who starts with a certificate that is overdue and still good waits up to so long: after a power cut all start at once.
const START_JITTER: Duration = Duration::from_secs(600);

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

/// When a node renews a certificate: each node at its own moment, the same after every restart.
pub fn due(validity: Validity, node: NodeId) -> Timestamp {
    let life = validity.ends.since(validity.begins);
    // The id was drawn at random, so its first bytes spread the nodes evenly: to a tenth of a millisecond.
    let share =
        f64::from(u32::from_be_bytes([node.0[0], node.0[1], node.0[2], node.0[3]])) / f64::from(u32::MAX);
    validity.begins + life.mul_f64(DUE + JITTER * share)
}

/// How long from now until then; nothing if it is past.
pub fn wait(validity: Validity, node: NodeId, now: Timestamp) -> Duration {
    due(validity, node).since(now)
}

/// How long to wait after a renewal that failed. `random` is uniform in 0 to 1.
pub fn retry(random: f64) -> Duration {
    RETRY + RETRY_JITTER.mul_f64(random)
}

/// How long to wait at the start. `random` is uniform in 0 to 1.
pub fn first(validity: Validity, node: NodeId, now: Timestamp, random: f64) -> Duration {
    let overdue = wait(validity, node, now).is_zero();
    let good = validity.ends.since(now) > START_JITTER;
    if overdue && good { START_JITTER.mul_f64(random) } else { wait(validity, node, now) }
}

/// Asks for a new certificate for the same keys. It shows no certificate in TLS: an expired one would be refused,
/// and the proof of possession is what counts.
///
/// # Errors
/// Auth refuses, cannot be reached, or its answer does not fit.
pub async fn renew(
    identity: &Identity,
    master: impl FnOnce(Arc<ClientTls>) -> Master,
    clock: &MasterClock,
) -> Result<Identity, RenewalError> {
    let tls: Arc<ClientTls> = ClientTls::trusting(&identity.root_key)?;
    let mut auth = EnrollmentServiceClient::new(master(tls).service(AUTH));
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
        credentials.observed_ip = identity.credentials.observed_ip.clone();
    }
    let Identity { keys, root_key, link_address, .. } = identity.clone();
    Ok(Identity::verified(keys, credentials, root_key, link_address, clock.now())?)
}

/// Only a signed refusal is final; everything else is tried again.
fn failed(status: Status) -> RenewalError {
    match status::reason(&status) {
        Some(reason)
            if !matches!(status.code(), tonic::Code::Unavailable | tonic::Code::ResourceExhausted) =>
        {
            RenewalError::Refused(format!("{} ({reason})", status.message()))
        }
        _ => RenewalError::NotNow(Box::new(status)),
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn nodes_renew_between_a_third_and_a_half_of_a_certificates_life_each_at_its_own_time() {
        let day = Duration::from_secs(24 * 3600);
        let begins = Timestamp::from_micros(1_700_000_000_000_000);
        let validity = Validity { begins, ends: begins + day * 14 };
        let due_of = |first| due(validity, NodeId([first; 20]));
        for first in 0..=255 {
            let due = due_of(first);
            assert!(
                due.since(begins) >= day * 14 / 3 - Duration::from_secs(1) && due.since(begins) <= day * 7
            );
        }
        assert!(due_of(0) < due_of(128) && due_of(128) < due_of(255));
        assert_eq!(wait(validity, NodeId([0; 20]), begins + day * 60), Duration::ZERO);
    }

    /// Renewals in the busiest second, and in the mean second between the first and the last.
    fn peak_and_mean(moments: &[Duration]) -> (f64, f64) {
        let mut seconds = std::collections::BTreeMap::<u64, u32>::new();
        for moment in moments {
            *seconds.entry(moment.as_secs()).or_default() += 1;
        }
        let (first, last) = (seconds.keys().next().unwrap(), seconds.keys().next_back().unwrap());
        let mean = moments.len() as f64 / (last - first + 1) as f64;
        (f64::from(*seconds.values().max().unwrap()), mean)
    }

    const FLEET: usize = 30_000;

    #[test]
    fn of_thirty_thousand_renewals_after_a_week_without_a_master_no_second_has_three_times_the_mean() {
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(1);
        let week = Duration::from_secs(7 * 24 * 3600);
        // Everybody became overdue at the same moment, which is worse than it gets, and tried in vain since.
        let moments: Vec<_> = (0..FLEET)
            .map(|_| {
                let mut moment = Duration::ZERO;
                while moment < week {
                    moment += retry(rng.random());
                }
                moment - week
            })
            .collect();
        let (peak, mean) = peak_and_mean(&moments);
        assert!(peak < 3.0 * mean, "{peak} in one second, {mean} in the mean one");
    }

    #[test]
    fn of_thirty_thousand_hosts_that_start_at_once_no_second_has_three_times_the_mean() {
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(2);
        let day = Duration::from_secs(24 * 3600);
        let begins = Timestamp::from_micros(1_700_000_000_000_000);
        let validity = Validity { begins, ends: begins + day * 14 };
        let node = NodeId([7; 20]);
        let moments: Vec<_> =
            (0..FLEET).map(|_| first(validity, node, begins + day * 10, rng.random())).collect();
        let (peak, mean) = peak_and_mean(&moments);
        assert!(peak < 3.0 * mean, "{peak} in one second, {mean} in the mean one");
        // Whose certificate has run out cannot wait, and whose is fresh waits for its own time.
        assert_eq!(first(validity, node, begins + day * 74, 0.5), Duration::ZERO);
        assert_eq!(first(validity, node, begins, 0.5), wait(validity, node, begins));
    }

    #[test]
    fn a_fleet_enrolled_in_one_second_renews_over_more_than_two_days() {
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(3);
        let day = Duration::from_secs(24 * 3600);
        let begins = Timestamp::from_micros(1_700_000_000_000_000);
        let validity = Validity { begins, ends: begins + day * 14 };
        let moments: Vec<_> = (0..FLEET).map(|_| wait(validity, NodeId(rng.random()), begins)).collect();
        // One every seven seconds: what counts is five minutes, of which none have thrice the mean.
        let windows: Vec<_> = moments.iter().map(|moment| *moment / 300).collect();
        let (peak, mean) = peak_and_mean(&windows);
        assert!(peak < 3.0 * mean, "{peak} in five minutes, {mean} in the mean ones");
        let spread = *moments.iter().max().unwrap() - *moments.iter().min().unwrap();
        assert!(spread > day * 2, "{spread:?}");
    }
}
