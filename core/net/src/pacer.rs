//! Rate grants: how fast each traffic class may send from this node, all peers together. A class without a grant
//! is not held back.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::class::TrafficClass;

/// What may go out at once after a pause, in time at the granted rate: long enough for timers' grain, short
/// enough not to be felt on the link.
const BURST: Duration = Duration::from_millis(50);

/// At once after a reconnect, of each class that can wait: a herd of 30,000 then weighs 300 MB, not what it kept for a day.
pub const REOPENING_BYTES: u64 = 10 * 1024;
/// And then in a second, as long as the herd may still be at it.
const REOPENING_RATE: u32 = 100 * 1024;
const REOPENING: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
pub struct Pacer {
    buckets: [Mutex<Option<Bucket>>; TrafficClass::ALL.len()],
}

/// A token bucket, kept as the moment at which it will be full again.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    bytes_per_second: u64,
    burst: Duration,
    ends: Instant,
    full_at: Instant,
}

impl Pacer {
    /// From now on, and for so long, the class sends no faster than this. Zero stops it.
    pub fn grant(&self, class: TrafficClass, bytes_per_second: u64, valid_for: Duration) {
        self.grant_at(class, bytes_per_second, valid_for, Instant::now());
    }

    /// A connection stands again, and everybody's does: what waits goes slowly at first, and little of it at once.
    pub fn reopen(&self) {
        let now = Instant::now();
        let burst = Duration::from_secs(REOPENING_BYTES) / REOPENING_RATE;
        for class in [TrafficClass::Task, TrafficClass::Telemetry, TrafficClass::Bulk] {
            let bytes_per_second = u64::from(REOPENING_RATE);
            let mut slot = self.lock(class);
            // A grant of the master's that is stricter stands.
            if slot
                .as_ref()
                .is_none_or(|bucket| bucket.ends <= now || bucket.bytes_per_second > bytes_per_second)
            {
                *slot = Some(Bucket { bytes_per_second, burst, ends: now + REOPENING, full_at: now });
            }
        }
    }

    fn grant_at(&self, class: TrafficClass, bytes_per_second: u64, valid_for: Duration, now: Instant) {
        *self.lock(class) =
            Some(Bucket { bytes_per_second, burst: BURST, ends: now + valid_for, full_at: now });
    }

    /// Waits until `bytes` of this class may go.
    pub async fn admit(&self, class: TrafficClass, bytes: usize) {
        loop {
            let now = Instant::now();
            let Some(at) = self.reserve(class, bytes, now) else { return };
            sleep_until(at).await;
        }
    }

    /// Takes the tokens if they are there; else when to ask again.
    pub(crate) fn reserve(&self, class: TrafficClass, bytes: usize, now: Instant) -> Option<Instant> {
        let mut slot = self.lock(class);
        let bucket = slot.as_mut()?;
        if now >= bucket.ends {
            *slot = None;
            return None;
        }
        if bucket.bytes_per_second == 0 {
            return Some(bucket.ends);
        }
        let free_at = bucket.full_at.checked_sub(bucket.burst).unwrap_or(now);
        if free_at > now {
            return Some(free_at.min(bucket.ends));
        }
        let cost = Duration::from_secs_f64(bytes as f64 / bucket.bytes_per_second as f64);
        bucket.full_at = bucket.full_at.max(now) + cost;
        None
    }

    fn lock(&self, class: TrafficClass) -> std::sync::MutexGuard<'_, Option<Bucket>> {
        self.buckets[class.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// How long `chunks` of 1,000 bytes take.
    fn spent(pacer: &Pacer, class: TrafficClass, chunks: usize, begin: Instant) -> Duration {
        let mut now = begin;
        for _ in 0..chunks {
            while let Some(later) = pacer.reserve(class, 1_000, now) {
                assert!(later > now);
                now = later;
            }
        }
        now - begin
    }

    #[test]
    fn a_class_keeps_to_its_grant_and_the_others_are_free() {
        let (pacer, now) = (Pacer::default(), Instant::now());
        pacer.grant_at(TrafficClass::Bulk, 10_000, MINUTE, now);
        let bulk = spent(&pacer, TrafficClass::Bulk, 100, now);
        assert!(bulk >= Duration::from_millis(9_700) && bulk <= Duration::from_millis(10_100), "{bulk:?}");
        assert_eq!(spent(&pacer, TrafficClass::Control, 100, now), Duration::ZERO);
    }

    #[test]
    fn a_grant_of_nothing_holds_until_it_ends() {
        let (pacer, now) = (Pacer::default(), Instant::now());
        pacer.grant_at(TrafficClass::Bulk, 0, MINUTE, now);
        assert_eq!(spent(&pacer, TrafficClass::Bulk, 1, now), MINUTE);
    }

    #[test]
    fn after_a_reconnect_ten_kilobytes_go_at_once_and_the_rest_slowly() {
        let (pacer, now) = (Pacer::default(), Instant::now());
        pacer.reopen();
        let at_once =
            (0..100).take_while(|_| pacer.reserve(TrafficClass::Task, 1_000, now).is_none()).count();
        assert!((10..=12).contains(&at_once), "{at_once} kB at once");
        let later = spent(&pacer, TrafficClass::Task, 100, now);
        assert!(later > Duration::from_millis(900), "100 kB within {later:?}");
        assert_eq!(spent(&pacer, TrafficClass::Control, 100, now), Duration::ZERO);
    }

    #[test]
    fn a_new_grant_replaces_the_old_one() {
        let (pacer, now) = (Pacer::default(), Instant::now());
        pacer.grant_at(TrafficClass::Bulk, 1, MINUTE, now);
        pacer.grant_at(TrafficClass::Bulk, 1_000_000, MINUTE, now);
        assert!(spent(&pacer, TrafficClass::Bulk, 100, now) < Duration::from_millis(200));
    }
}
