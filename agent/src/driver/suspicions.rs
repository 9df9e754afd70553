//! Who does not answer in the hash table may be gone: its LSN is told, and looks. Own children are looked after here.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use muster_overlay::Input;
use muster_overlay::intent::Station;
use muster_proto::control::v1::{Suspicion, TrafficClass, Upstream, UpstreamItem, upstream_item::Body};
use muster_types::NodeId;
use tokio::time::Instant;

use crate::driver::Driver;

/// The same node is not reported again within this.
const PAUSE: Duration = Duration::from_secs(60);

/// Nodes reported within a pause. Who misses more of them has lost its own network.
const MOST: usize = 16;

#[derive(Default)]
pub(super) struct Suspicions(BTreeMap<NodeId, Instant>);

impl Suspicions {
    /// Whether this is worth a word now.
    fn take(&mut self, node: NodeId, now: Instant) -> bool {
        self.0.retain(|_, told| now.duration_since(*told) < PAUSE);
        let fresh = self.0.len() < MOST && !self.0.contains_key(&node);
        if fresh {
            self.0.insert(node, now);
        }
        fresh
    }
}

impl Driver {
    /// A contact of the hash table has failed its pings.
    pub(super) fn suspect(&mut self, node: NodeId) {
        if !self.suspicions.take(node, Instant::now()) {
            return;
        }
        if self.is_own_child(node) {
            return self.overlay.handle(Input::Suspected(node));
        }
        let suspicion = Suspicion { node_id: Bytes::copy_from_slice(node.as_bytes()) };
        let class = TrafficClass::Control.into();
        let body = Some(Body::Suspicion(suspicion));
        self.send_up(vec![UpstreamItem { class, body, ..UpstreamItem::default() }]);
    }

    /// What children suspect of each other need not go to the master.
    pub(super) fn take_suspicions(&mut self, upstream: &mut Upstream) {
        for item in std::mem::take(&mut upstream.items) {
            match &item.body {
                Some(Body::Suspicion(it)) if self.is_child(it) => self.on_suspicion(it),
                _ => upstream.items.push(item),
            }
        }
    }

    /// Somebody does not reach one of this LSN's children. The machine asks those alone that it has.
    pub(super) fn on_suspicion(&mut self, suspicion: &Suspicion) {
        if let Ok(node) = NodeId::try_from(&suspicion.node_id[..]) {
            tracing::debug!(node = %node.short(), "others do not reach a child");
            self.overlay.handle(Input::Suspected(node));
        }
    }

    fn is_child(&self, suspicion: &Suspicion) -> bool {
        NodeId::try_from(&suspicion.node_id[..]).is_ok_and(|node| self.is_own_child(node))
    }

    fn is_own_child(&self, node: NodeId) -> bool {
        matches!(self.overlay.station(), Station::IsLsn { .. })
            && self.overlay.machine().children().contains(&node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_suspected_once_a_minute_and_not_everybody_at_once() {
        let (mut suspicions, start) = (Suspicions::default(), Instant::now());
        assert!(suspicions.take(NodeId([1; 20]), start));
        assert!(!suspicions.take(NodeId([1; 20]), start + PAUSE / 2));
        let others = (2..100).filter(|id| suspicions.take(NodeId([*id; 20]), start + PAUSE / 2)).count();
        assert_eq!(others, MOST - 1);
        assert!(suspicions.take(NodeId([1; 20]), start + PAUSE));
    }
}
