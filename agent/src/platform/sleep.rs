//! Whether the host slept. Linux tells by its clocks: the one that runs on during suspend leaves the other behind.

use std::time::Duration;

/// How often the clocks are compared.
pub const INTERVAL: Duration = Duration::from_secs(5);

pub use muster_kit::clock::BootClock;
