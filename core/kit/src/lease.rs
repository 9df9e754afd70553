//! A replica's hold on a store that it shares with others: renewed by a task of its own, and lost when the store gives it
//! to somebody else or says nothing any more. Who has lost it ends, so that its clients find another replica.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// How long a hold lasts without being renewed.
pub const TERM: Duration = Duration::from_secs(15);

/// Three renewals fit into a term. A store that says nothing for so long is silent.
pub const RENEWAL: Duration = Duration::from_secs(5);

/// Why a replica may not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("another replica has taken over what this one held in the shared store")]
    Taken,
    #[error("the shared store has not answered this replica for {TERM:?}")]
    Silence,
}

/// How a renewal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Renewed,
    /// Somebody else holds it.
    Taken,
    /// The store, or the way to it, said no.
    Refused,
    /// Nobody said anything: the connections may be dead without a sign.
    Silence,
}

struct Hold {
    heard: Instant,
}

impl Hold {
    fn lost(&mut self, outcome: Outcome, now: Instant) -> Option<Lost> {
        match outcome {
            Outcome::Taken => return Some(Lost::Taken),
            Outcome::Renewed | Outcome::Refused => self.heard = now,
            Outcome::Silence => {}
        }
        (now.saturating_duration_since(self.heard) >= TERM).then_some(Lost::Silence)
    }
}

/// Renews for as long as the hold lasts; `renew` says whether it is still this replica's. A store that refuses is waited for:
/// it refuses everybody, or tells later that another has taken over.
pub async fn keep<E: Display, F>(mut renew: impl FnMut() -> F) -> Lost
where
    F: Future<Output = Result<bool, E>>,
{
    let mut hold = Hold { heard: Instant::now() };
    let mut renewals = interval(RENEWAL);
    renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        renewals.tick().await;
        let outcome = match timeout(RENEWAL, renew()).await {
            Ok(Ok(true)) => Outcome::Renewed,
            Ok(Ok(false)) => Outcome::Taken,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the shared store refuses this replica");
                Outcome::Refused
            }
            Err(_) => {
                tracing::warn!(within = ?RENEWAL, "the shared store does not answer");
                Outcome::Silence
            }
        };
        if let Some(lost) = hold.lost(outcome, Instant::now()) {
            return lost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_silent_for_a_term_has_cut_the_replica_off() {
        let begin = Instant::now();
        let mut hold = Hold { heard: begin };
        assert_eq!(hold.lost(Outcome::Renewed, begin + RENEWAL), None);
        assert_eq!(hold.lost(Outcome::Silence, begin + RENEWAL + TERM - Duration::from_secs(1)), None);
        assert_eq!(hold.lost(Outcome::Silence, begin + RENEWAL + TERM), Some(Lost::Silence));
    }

    #[test]
    fn a_store_that_refuses_is_waited_for_and_one_that_gave_the_hold_away_is_not() {
        let begin = Instant::now();
        let mut hold = Hold { heard: begin };
        for renewal in 1..100 {
            assert_eq!(hold.lost(Outcome::Refused, begin + renewal * RENEWAL), None);
        }
        assert_eq!(hold.lost(Outcome::Taken, begin + 100 * RENEWAL), Some(Lost::Taken));
    }
}
