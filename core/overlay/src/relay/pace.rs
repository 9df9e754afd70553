//! A rate, as one moment: when everything spent so far will have been earned (the generic cell rate algorithm,
//! ITU-T I.371).

use std::time::Duration;

use muster_types::Instant;

use super::BURST;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    earned: Instant,
}

impl Pace {
    /// Whether what was spent before is earned but for a burst.
    pub(super) fn admits(&self, now: Instant) -> bool {
        self.earned.since(now) <= BURST
    }

    pub(super) fn spend(&mut self, bytes: usize, bytes_per_second: u64, now: Instant) {
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / bytes_per_second.max(1);
        self.earned = self.earned.max(now) + Duration::from_nanos(nanos);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_a_second_a_rate_and_one_burst_pass_and_no_more() {
        let (mut pace, mut passed) = (Pace::default(), 0);
        for micros in 0..1_000_000 {
            let now = Instant::from_elapsed(Duration::from_micros(micros));
            if pace.admits(now) {
                pace.spend(1_000, 100_000, now);
                passed += 1_000;
            }
        }
        assert!((100_000..=122_000).contains(&passed), "{passed}");
    }
}
