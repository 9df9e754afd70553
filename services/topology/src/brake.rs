//! Stops whoever deletes too much of the fleet at once: a filter that was meant otherwise, or a CMDB that lost its own data.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Deletions count for so long.
const WINDOW: Duration = Duration::from_secs(3_600);

/// So many are never too many.
const ALWAYS: usize = 20;

/// Of the fleet, one in so many.
const SHARE: usize = 20;

/// Callers that are remembered; of more, those without a recent deletion are forgotten, and then nobody new is counted.
const CALLERS: usize = 1_024;

/// What each caller has deleted within the last hour, by this replica.
#[derive(Debug, Default)]
pub(crate) struct Brake(Mutex<HashMap<String, VecDeque<Instant>>>);

impl Brake {
    /// How many the caller has deleted lately, if a further one needs a look at the fleet's size.
    pub(crate) fn is_near(&self, caller: &str, now: Instant) -> Option<usize> {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let deleted = callers.get_mut(caller)?;
        forget_old(deleted, now);
        Some(deleted.len()).filter(|count| *count >= ALWAYS)
    }

    /// Whether so many deletions are a share of such a fleet, those counted, that nobody means.
    pub(crate) fn is_mass(deleted: usize, left: usize) -> bool {
        deleted >= ALWAYS.max((left + deleted) / SHARE)
    }

    pub(crate) fn note(&self, caller: &str, now: Instant) {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= CALLERS && !callers.contains_key(caller) {
            callers.retain(|_, deleted| {
                forget_old(deleted, now);
                !deleted.is_empty()
            });
            if callers.len() >= CALLERS {
                return;
            }
        }
        let deleted = callers.entry(caller.to_owned()).or_default();
        forget_old(deleted, now);
        deleted.push_back(now);
    }
}

fn forget_old(deleted: &mut VecDeque<Instant>, now: Instant) {
    while deleted.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
        deleted.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twentieth_of_the_fleet_within_an_hour_is_too_much_for_one_caller_and_not_for_the_next() {
        let (brake, start) = (Brake::default(), Instant::now());
        for _ in 0..ALWAYS {
            assert_eq!(brake.is_near("cmdbs/a", start), None);
            brake.note("cmdbs/a", start);
        }
        assert_eq!(brake.is_near("cmdbs/a", start), Some(ALWAYS));
        assert_eq!(brake.is_near("cmdbs/b", start), None);
        assert_eq!(brake.is_near("cmdbs/a", start + WINDOW), None);
    }

    #[test]
    fn small_fleets_have_twenty_and_large_ones_a_twentieth() {
        assert!(!Brake::is_mass(19, 0) && Brake::is_mass(20, 30));
        assert!(!Brake::is_mass(1_499, 28_501) && Brake::is_mass(1_500, 28_500));
    }
}
