//! What gets through on the network that the host is on. Dials that came about flow in; out flows which way the next
//! dial tries first.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a network that drops UDP is remembered when that was found for the first time; doubles each time it is found
/// again: a guest network changes within minutes, a company's firewall does not.
const REMEMBERED: Duration = Duration::from_secs(600);
/// And no longer than this.
const REMEMBERED_MAX: Duration = Duration::from_secs(3_600);
/// UDP that worked so lately is not what failed: the peer may drop it.
const FRESH: Duration = Duration::from_secs(60);
/// Networks remembered; a laptop's week. When more come, the one whose time ends first is forgotten.
const NETWORKS: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Reach(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    network: String,
    /// Here, last.
    udp_worked: Option<Instant>,
    blocked: HashMap<String, Blocked>,
}

#[derive(Debug, Clone, Copy)]
struct Blocked {
    until: Instant,
    span: Duration,
}

impl Reach {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host is on this network now.
    pub(crate) fn enter(&self, network: &str) {
        let mut known = self.lock();
        if known.network != network {
            network.clone_into(&mut known.network);
            known.udp_worked = None;
        }
    }

    /// Whether this network is remembered for dropping UDP.
    pub(crate) fn drops_udp(&self, now: Instant) -> bool {
        let known = self.lock();
        known.blocked.get(&known.network).is_some_and(|blocked| blocked.until > now)
    }

    /// A session came about by UDP.
    pub(crate) fn udp_worked(&self, now: Instant) {
        let mut known = self.lock();
        known.udp_worked = Some(now);
        let network = known.network.clone();
        if known.blocked.remove(&network).is_some() {
            tracing::info!("UDP gets through here again");
        }
    }

    /// A session came about by TCP, while UDP had its chance.
    pub(crate) fn udp_failed(&self, now: Instant) {
        let mut known = self.lock();
        let network = known.network.clone();
        let earlier = known.blocked.get(&network).copied();
        let fresh = known.udp_worked.is_some_and(|worked| now - worked < FRESH);
        if fresh || earlier.is_some_and(|blocked| blocked.until > now) {
            return;
        }
        if known.blocked.len() >= NETWORKS {
            let first =
                known.blocked.iter().min_by_key(|(_, blocked)| blocked.until).map(|(name, _)| name.clone());
            first.and_then(|name| known.blocked.remove(&name));
        }
        let span = earlier.map_or(REMEMBERED, |blocked| (blocked.span * 2).min(REMEMBERED_MAX));
        tracing::info!(?span, "this network drops UDP: sessions begin by TCP");
        known.blocked.insert(network, Blocked { until: now + span, span });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_failed_is_remembered_for_ten_minutes_then_twenty_and_never_beyond_an_hour() {
        let reach = Reach::default();
        let mut now = Instant::now();
        for minutes in [10, 20, 40, 60, 60] {
            assert!(!reach.drops_udp(now));
            reach.udp_failed(now);
            assert!(reach.drops_udp(now + minutes * MINUTE - Duration::from_secs(1)));
            now += minutes * MINUTE;
        }
    }

    #[test]
    fn each_network_is_remembered_by_itself_and_udp_that_works_clears_it() {
        let reach = Reach::default();
        let now = Instant::now();
        reach.enter("office");
        reach.udp_failed(now);
        reach.enter("home");
        assert!(!reach.drops_udp(now));
        reach.enter("office");
        assert!(reach.drops_udp(now));
        reach.udp_worked(now);
        assert!(!reach.drops_udp(now));
    }

    #[test]
    fn one_peer_that_udp_does_not_reach_makes_no_network_that_drops_it() {
        let reach = Reach::default();
        let now = Instant::now();
        reach.udp_worked(now);
        reach.udp_failed(now + MINUTE / 2);
        assert!(!reach.drops_udp(now + MINUTE / 2));
    }
}
