//! The clocks of a running program: one that measures through sleep, the wall's, and the master's as learnt from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_types::{Instant, Timestamp};

/// A clock that stood still for so long against the other means that the host slept.
pub const WOKE_UP_DRIFT: Duration = Duration::from_secs(5);

/// Reads the clock that runs on during suspend, and notices when the host has slept.
#[derive(Debug, Clone)]
pub struct BootClock {
    /// Boot time less monotonic time when last looked at.
    slept: Duration,
}

impl Default for BootClock {
    fn default() -> Self {
        Self::new()
    }
}

impl BootClock {
    pub fn new() -> Self {
        Self { slept: boot_time().saturating_sub(awake_time()) }
    }

    /// Now, since the host's boot: the same for every process of the host.
    pub fn now(&self) -> Instant {
        Instant::from_elapsed(boot_time())
    }

    /// How long the host slept since this was last asked, if it did: every lease, session and path is suspect then.
    pub fn woke_up(&mut self) -> Option<Duration> {
        self.drifted(boot_time().saturating_sub(awake_time()))
    }

    fn drifted(&mut self, slept: Duration) -> Option<Duration> {
        let drift = slept.saturating_sub(self.slept);
        self.slept = slept;
        (drift >= WOKE_UP_DRIFT).then_some(drift)
    }
}

/// Now, by the host's calendar clock.
pub fn wall() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))
}

/// The master's clock as this host knows it. A jump of the host's own calendar clock does not move it. Clones are the same clock.
#[derive(Debug, Clone)]
pub struct MasterClock {
    /// The master's time, in microseconds, when the host booted.
    at_boot: Arc<AtomicI64>,
}

impl MasterClock {
    /// From an offset to [`wall`] that was kept from an earlier run; zero if there is none.
    pub fn from_offset_micros(offset: i64) -> Self {
        let at_boot = wall().as_micros().saturating_add(offset).saturating_sub(boot_micros());
        Self { at_boot: Arc::new(AtomicI64::new(at_boot)) }
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.at_boot.load(Ordering::Relaxed).saturating_add(boot_micros()))
    }

    /// Learns from an authenticated answer that said `master_time` and took `round_trip`.
    pub fn learn(&self, master_time: Timestamp, round_trip: Duration) {
        let now = master_time + round_trip / 2;
        self.at_boot.store(now.as_micros().saturating_sub(boot_micros()), Ordering::Relaxed);
    }

    /// The master's time less the host's calendar time: what to keep for [`Self::from_offset_micros`].
    pub fn offset_micros(&self) -> i64 {
        self.now().as_micros().saturating_sub(wall().as_micros())
    }
}

fn boot_micros() -> i64 {
    i64::try_from(boot_time().as_micros()).unwrap_or(i64::MAX)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn boot_time() -> Duration {
    read(rustix::time::ClockId::Boottime)
}

/// macOS's monotonic clock runs on during sleep.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn boot_time() -> Duration {
    read(rustix::time::ClockId::Monotonic)
}

fn awake_time() -> Duration {
    read(rustix::time::ClockId::Monotonic)
}

fn read(clock: rustix::time::ClockId) -> Duration {
    let now = rustix::time::clock_gettime(clock);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_is_noticed_once_and_a_hiccup_never() {
        let mut clock = BootClock { slept: Duration::from_secs(100) };
        assert_eq!(clock.drifted(Duration::from_secs(104)), None);
        assert_eq!(clock.drifted(Duration::from_secs(164)), Some(Duration::from_secs(60)));
        assert_eq!(clock.drifted(Duration::from_secs(164)), None);
    }

    #[test]
    fn the_boot_clock_rises() {
        let clock = BootClock::new();
        let before = clock.now();
        assert!(clock.now() >= before && before > Instant::ZERO);
    }

    #[test]
    fn the_masters_clock_is_kept_by_its_offset() {
        let clock = MasterClock::from_offset_micros(0);
        let hour = Duration::from_secs(3600);
        clock.learn(wall() + hour, Duration::from_millis(40));
        let kept = MasterClock::from_offset_micros(clock.offset_micros());
        let error = kept.now().as_micros() - (wall() + hour).as_micros();
        assert!((0..1_000_000).contains(&error), "{error} µs off");
    }
}
