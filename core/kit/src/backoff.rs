//! When to try again: exponential with full jitter, so that a thousand clients that failed together do not return together.

use std::time::Duration;

use rand::Rng;

/// The first retry comes within this: short enough for a blip, long enough to spread a crowd.
pub const FIRST: Duration = Duration::from_millis(500);
/// No retry waits longer than this, unless the other side asked for it.
pub const LONGEST: Duration = Duration::from_secs(30);

/// The delay before each retry of one operation. Randomness is passed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    ceiling: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { ceiling: FIRST }
    }
}

impl Backoff {
    pub fn new() -> Self {
        Self::default()
    }

    /// The next delay: anything from zero to a ceiling that doubles from [`FIRST`] to [`LONGEST`].
    pub fn next_delay(&mut self, rng: &mut impl Rng) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (ceiling * 2).min(LONGEST);
        rng.random_range(Duration::ZERO..=ceiling)
    }

    /// The next delay. Where the other side named one, that one and a little jitter: it has spread its callers already,
    /// and who waits longer leaves its place unused.
    pub fn delay_after(&mut self, retry_after: Option<Duration>, rng: &mut impl Rng) -> Duration {
        match retry_after {
            Some(asked) => asked.saturating_add(rng.random_range(Duration::ZERO..=FIRST)),
            None => self.next_delay(rng),
        }
    }

    /// To be called after a success that lasted: the next failure begins from [`FIRST`] again.
    pub fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    proptest! {
        #[test]
        fn no_delay_leaves_its_bounds(seed: u64, retries in 1u32..40) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut backoff = Backoff::new();
            for retry in 0..retries {
                let ceiling = FIRST.saturating_mul(1 << retry.min(20)).min(LONGEST);
                prop_assert!(backoff.next_delay(&mut rng) <= ceiling);
            }
            backoff.reset();
            prop_assert!(backoff.next_delay(&mut rng) <= FIRST);
        }

        #[test]
        fn who_is_asked_to_wait_waits_just_so_long_however_often_it_failed(
            seed: u64, seconds in 0u64..10_000, failures in 0u32..20,
        ) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let (asked, mut backoff) = (Duration::from_secs(seconds), Backoff::new());
            (0..failures).for_each(|_| { backoff.next_delay(&mut rng); });
            let delay = backoff.delay_after(Some(asked), &mut rng);
            prop_assert!(delay >= asked && delay <= asked + FIRST);
        }
    }
}
