//! How fast LSNs may send what is not urgent: what the master takes in of it, shared by the streams there are.

use std::time::Duration;

use muster_proto::control::v1::{RateGrant, TrafficClass};
use muster_wire::time::span_to_wire;

/// Telemetry and bulk that this topology takes in, of all streams together: what one SQLite commits with ease.
const BYTES_PER_SECOND: u64 = 20 * 1024 * 1024;
/// A stream is never granted less: an inventory of one host in a minute.
const LEAST: u64 = 4 * 1024;
/// How often each stream is told.
pub(super) const INTERVAL: Duration = Duration::from_secs(30);
/// A grant outlives two that get lost.
const VALID: Duration = Duration::from_secs(90);

/// What each of so many streams is granted.
pub(super) fn for_each_of(streams: usize) -> [RateGrant; 2] {
    let streams = u64::try_from(streams).unwrap_or(u64::MAX).max(1);
    let bytes_per_second = (BYTES_PER_SECOND / streams).max(LEAST);
    [TrafficClass::Telemetry, TrafficClass::Bulk].map(|class| RateGrant {
        class: class.into(),
        bytes_per_second,
        valid_for: Some(span_to_wire(VALID)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_share_what_the_master_takes_in_and_none_is_starved() {
        let rate = |streams| for_each_of(streams)[0].bytes_per_second;
        assert_eq!(rate(0), BYTES_PER_SECOND);
        assert_eq!(rate(1_000), BYTES_PER_SECOND / 1_000);
        assert_eq!(rate(1_000_000), LEAST);
    }
}
