//! How fast LSNs may send what is not urgent: what the master takes in of it, shared by the streams there are.

use std::time::Duration;

use muster_proto::control::v1::{RateGrant, TrafficClass};
use muster_wire::time::span_to_wire;
use tokio::time::Instant;

/// Telemetry and bulk that this topology takes in, of all streams together: what one SQLite commits with ease.
const BYTES_PER_SECOND: u64 = 20 * 1024 * 1024;
/// A stream is never granted less: an inventory of one host in a minute.
const LEAST: u64 = 4 * 1024;
/// How often the share of each stream is looked at.
pub(super) const INTERVAL: Duration = Duration::from_secs(30);
/// What was granted holds for so long, and is granted anew after half of it.
const VALID: Duration = Duration::from_secs(3_600);
/// A share that has moved by less than a quarter is not worth a message to every stream.
const MOVED: u64 = 4;

/// What one stream was granted last, and when.
#[derive(Debug, Default)]
pub(super) struct Told(Option<(u64, Instant)>);

impl Told {
    /// What each of so many streams is to be told now: nothing, while the last word is good enough.
    pub(super) fn due(&mut self, streams: usize, now: Instant) -> Vec<RateGrant> {
        let share = share_of(streams);
        let holds = self.0.is_some_and(|(told, at)| {
            share.abs_diff(told) < told / MOVED && now.saturating_duration_since(at) < VALID / 2
        });
        if holds {
            return Vec::new();
        }
        self.0 = Some((share, now));
        let grant = |class: TrafficClass| RateGrant {
            class: class.into(),
            bytes_per_second: share,
            valid_for: Some(span_to_wire(VALID)),
        };
        [TrafficClass::Telemetry, TrafficClass::Bulk].map(grant).into()
    }
}

fn share_of(streams: usize) -> u64 {
    let streams = u64::try_from(streams).unwrap_or(u64::MAX).max(1);
    (BYTES_PER_SECOND / streams).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_share_what_the_master_takes_in_and_none_is_starved() {
        assert_eq!(share_of(0), BYTES_PER_SECOND);
        assert_eq!(share_of(1_000), BYTES_PER_SECOND / 1_000);
        assert_eq!(share_of(1_000_000), LEAST);
    }

    #[test]
    fn a_grant_is_told_again_when_it_has_moved_or_half_its_time_is_over() {
        let (mut told, start) = (Told::default(), Instant::now());
        let rates = |grants: Vec<RateGrant>| grants.iter().map(|it| it.bytes_per_second).collect::<Vec<_>>();
        assert_eq!(rates(told.due(100, start)), [BYTES_PER_SECOND / 100; 2]);
        assert!(told.due(110, start + INTERVAL).is_empty());
        assert_eq!(rates(told.due(200, start + INTERVAL)), [BYTES_PER_SECOND / 200; 2]);
        assert!(told.due(200, start + VALID / 2).is_empty());
        assert_eq!(told.due(200, start + INTERVAL + VALID / 2).len(), 2);
    }
}
