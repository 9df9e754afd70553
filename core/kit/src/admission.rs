//! How many may come in: so many a second, and a second's worth at once. Who comes beyond that is told when there will
//! be room, each its own moment, so that a crowd that was sent away does not come back as a crowd.

use std::num::NonZeroU32;
use std::time::Duration;

use muster_types::Instant;

/// What may come in at once after a pause, in time at the rate.
const BURST: Duration = Duration::from_secs(1);
/// Nobody is sent away for longer; a crowd that this does not hold is spread over it once more.
pub const LONGEST: Duration = Duration::from_secs(600);

/// A bucket of tokens, and the next moment that has not been promised to anybody.
#[derive(Debug, Clone)]
pub struct Admission {
    each: Duration,
    worked_off: Instant,
    promised: Instant,
}

impl Admission {
    pub fn new(per_second: NonZeroU32) -> Self {
        let each = Duration::from_secs(1) / per_second.get();
        Self { each, worked_off: Instant::ZERO, promised: Instant::ZERO }
    }

    /// One more wants to come in.
    ///
    /// # Errors
    /// There is no room; when it should try again.
    pub fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        let worked_off = self.worked_off.max(now) + self.each;
        if worked_off.since(now) <= BURST {
            self.worked_off = worked_off;
            return Ok(());
        }
        self.promised = self.promised.max(self.worked_off) + self.each;
        if self.promised.since(now) > LONGEST {
            self.promised = self.worked_off + self.each;
        }
        Err(self.promised.since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::Backoff;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use std::collections::BTreeMap;

    const RATE: u32 = 500;

    fn admission() -> Admission {
        Admission::new(NonZeroU32::new(RATE).unwrap())
    }

    fn at(millis: u64) -> Instant {
        Instant::from_elapsed(Duration::from_millis(millis))
    }

    proptest! {
        #[test]
        fn no_second_sees_more_than_the_rate_and_the_burst(gaps in prop::collection::vec(0u64..5, 1..4_000)) {
            let (mut admission, mut now, mut admitted) = (admission(), 1_000, Vec::new());
            for gap in gaps {
                now += gap;
                if admission.admit(at(now)).is_ok() {
                    admitted.push(now);
                }
            }
            for (index, &begin) in admitted.iter().enumerate() {
                let within = admitted[index..].iter().take_while(|&&moment| moment < begin + 1_000).count();
                prop_assert!(within <= 2 * RATE as usize + 1, "{within} within a second");
            }
        }
    }

    /// Thirty thousand that lost the master and now try once within 30 s are all in after a minute, which is what the
    /// rate allows, though each is sent away more than once.
    #[test]
    fn a_crowd_that_obeys_is_through_as_soon_as_the_rate_allows() {
        let (mut admission, mut rng) = (admission(), ChaCha8Rng::seed_from_u64(1));
        let mut waiting: BTreeMap<(Duration, u32), Backoff> = BTreeMap::new();
        for host in 0..30_000 {
            waiting.insert((Duration::from_millis(u64::from(host)), host), Backoff::new());
        }
        let mut last = Duration::ZERO;
        while let Some(((now, host), mut backoff)) = waiting.pop_first() {
            match admission.admit(Instant::from_elapsed(now)) {
                Ok(()) => last = now,
                Err(asked) => {
                    let next = now + backoff.delay_after(Some(asked), &mut rng);
                    waiting.insert((next, host), backoff);
                }
            }
        }
        assert!(last < Duration::from_secs(61), "the last one was in after {last:?}");
    }

    #[test]
    fn nobody_is_sent_away_for_longer_than_the_limit() {
        let mut admission = admission();
        let longest = (0..1_000_000).filter_map(|_| admission.admit(at(0)).err()).max();
        assert!(longest.is_some_and(|longest| longest <= LONGEST && longest > LONGEST / 2));
    }
}
