//! The host's clock that runs on during sleep, and whether the host slept: then the clock that stands still was left
//! behind.

use std::path::PathBuf;
use std::time::Duration;

use muster_kit::clock::{BootClock, WOKE_UP_DRIFT};
use muster_types::Instant;

/// How often the clocks are compared when nothing else happens.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// Names a file, for tests, who cannot send a host to sleep: the seconds in it are added to the clock that runs on.
const SEAM: &str = "MUSTER_SLEEP_SEAM";

#[derive(Debug)]
pub struct HostClock {
    boot: BootClock,
    seam: Option<PathBuf>,
    added: Duration,
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new(std::env::var_os(SEAM).map(PathBuf::from))
    }
}

impl HostClock {
    fn new(seam: Option<PathBuf>) -> Self {
        let mut clock = Self { boot: BootClock::new(), seam, added: Duration::ZERO };
        clock.added = clock.seam_reads();
        clock
    }

    pub fn now(&self) -> Instant {
        self.boot.now() + self.added
    }

    /// How long the host slept since this was last asked, if it did. The clock goes on from there.
    pub fn woke_up(&mut self) -> Option<Duration> {
        let added = self.seam_reads().max(self.added);
        let jumped = added - std::mem::replace(&mut self.added, added);
        self.boot.woke_up().or((jumped >= WOKE_UP_DRIFT).then_some(jumped))
    }

    fn seam_reads(&self) -> Duration {
        let seconds = self.seam.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        Duration::from_secs(seconds.and_then(|text| text.trim().parse().ok()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_by_the_seam_is_told_once_and_moves_the_clock() {
        let directory = tempfile::tempdir().unwrap();
        let seam = directory.path().join("slept");
        let mut clock = HostClock::new(Some(seam.clone()));
        let before = clock.now();
        assert_eq!(clock.woke_up(), None);
        std::fs::write(&seam, "600\n").unwrap();
        assert_eq!(clock.woke_up(), Some(Duration::from_secs(600)));
        assert_eq!(clock.woke_up(), None);
        assert!(clock.now().since(before) >= Duration::from_secs(600));
        assert_eq!(
            HostClock::new(Some(seam)).woke_up(),
            None,
            "an agent that starts has slept through nothing"
        );
    }
}
