//! This replica's lease on the streams that it serves, renewed by a task of its own: nothing slow stands before it.
//!
//! Who cannot renew it keeps hosts that nobody reaches any more. A replica that the shared store does not answer, or
//! does not take while it takes others, ends: its hosts find another one, and its successor connects anew.

use std::time::Duration;

use muster_kit::clock;
use muster_types::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::RunError;
use crate::domain::attachment::REPLICA_LEASE;
use crate::hub::Hub;
use crate::peers::Word;
use crate::store::StoreError;

/// Three renewals fit into a lease. A store that says nothing for so long is silent.
pub const RENEWAL: Duration = Duration::from_secs(5);

/// Another replica's renewal proves that the store still works if it is no older: when the store is lost for all, nobody's
/// lease has run out before everybody's last renewal is older.
const FRESH: Duration = Duration::from_secs(10);

/// How a renewal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Renewed,
    /// The store, or the way to it, said no.
    Refused,
    /// Nobody said anything: the connections may be dead without a sign.
    Silence,
}

struct Lease {
    renewed: Instant,
}

impl Lease {
    /// Whether this replica is to end. A store that is away for all is waited for.
    fn is_lost(&mut self, outcome: Outcome, now: Instant, others: Option<Instant>) -> bool {
        if outcome == Outcome::Renewed {
            self.renewed = now;
        }
        let others_are_served = others.is_some_and(|at| now.saturating_duration_since(at) < FRESH);
        now.saturating_duration_since(self.renewed) >= REPLICA_LEASE
            && (outcome == Outcome::Silence || others_are_served)
    }
}

pub(crate) async fn renew_first(hub: &Hub) -> Result<(), StoreError> {
    let now = clock::wall();
    hub.store.renew_lease(&hub.replica, now, now + REPLICA_LEASE).await
}

/// Renews the lease for as long as this runs; returns why the replica has to end.
pub(crate) async fn keep(hub: &Hub) -> RunError {
    let begin = clock::wall();
    let mut lease = Lease { renewed: Instant::now() };
    let mut renewals = interval(RENEWAL);
    renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        renewals.tick().await;
        let outcome = match timeout(RENEWAL, renew(hub, begin)).await {
            Ok(Ok(true)) => Outcome::Renewed,
            Ok(Ok(false)) => return RunError::NotAlone,
            Ok(Err(error)) => {
                tracing::warn!(%error, "this replica's lease is not renewed");
                Outcome::Refused
            }
            Err(_) => {
                tracing::warn!(within = ?RENEWAL, "the store does not answer");
                Outcome::Silence
            }
        };
        if outcome == Outcome::Renewed {
            hub.tell(&Word::Renewed);
        }
        let others = *hub.others_renewed.borrow();
        if lease.is_lost(outcome, Instant::now(), others) && hub.peers.is_some() {
            return RunError::CutOff;
        }
    }
}

/// Whether this replica may go on. Without a bus there is to be one replica: the younger of two ends.
async fn renew(hub: &Hub, begin: Timestamp) -> Result<bool, StoreError> {
    renew_first(hub).await?;
    if hub.peers.is_some() {
        return Ok(true);
    }
    let others = hub.store.others(&hub.replica, clock::wall()).await?;
    // Names are UUIDs of version 7, which rise with time; a predecessor that was killed renews no more.
    Ok(!others.iter().any(|(name, renewed)| *renewed > begin && *name < hub.replica))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lease() -> (Lease, Instant) {
        let begin = Instant::now();
        (Lease { renewed: begin }, begin)
    }

    #[test]
    fn a_store_that_is_silent_for_a_lease_has_cut_this_replica_off() {
        let (mut lease, begin) = lease();
        assert!(!lease.is_lost(Outcome::Silence, begin + 14 * SECOND, None));
        assert!(lease.is_lost(Outcome::Silence, begin + 15 * SECOND, None));
    }

    #[test]
    fn a_store_that_refuses_everybody_is_waited_for() {
        let (mut lease, begin) = lease();
        // Everybody's last renewal was as it went away, five seconds after ours.
        let others = Some(begin + 5 * SECOND);
        for second in 1..600 {
            assert!(!lease.is_lost(Outcome::Refused, begin + second * SECOND, others), "after {second} s");
        }
    }

    #[test]
    fn a_store_that_refuses_this_replica_alone_has_cut_it_off() {
        let (mut lease, begin) = lease();
        assert!(!lease.is_lost(Outcome::Refused, begin + 14 * SECOND, Some(begin + 12 * SECOND)));
        assert!(lease.is_lost(Outcome::Refused, begin + 16 * SECOND, Some(begin + 12 * SECOND)));
    }

    #[test]
    fn a_renewal_begins_the_lease_anew() {
        let (mut lease, begin) = lease();
        assert!(!lease.is_lost(Outcome::Renewed, begin + 20 * SECOND, None));
        assert!(!lease.is_lost(Outcome::Silence, begin + 34 * SECOND, None));
    }
}
