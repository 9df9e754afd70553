//! One peer behind a relay, as QUIC sees it: a path like any other. Whoever speaks with the relay brings packets in here and
//! takes those that go out; a route that is dropped carries nothing any more, and the session on it waits for another.

use std::sync::Arc;

use bytes::Bytes;
use muster_wire::datagram::Kind;
use tokio::sync::mpsc;

use crate::path::{Path, VirtualAddress};
use crate::routes::{RouteEnd, Routes};

/// What QUIC accepts at most, and a relay carries (its `PACKET_BYTES`).
const PACKET_BYTES: usize = muster_wire::relay::PACKET_BYTES;

/// Both directions of one relayed path.
#[derive(Debug)]
pub struct RelayRoute {
    inbound: RelayInbound,
    outbound: mpsc::Receiver<Bytes>,
}

/// Its way in; clones are the same. The route ends with the last of them.
#[derive(Debug, Clone)]
pub struct RelayInbound(Arc<RouteEnd>);

impl RelayRoute {
    /// `None`: there are too many routes.
    pub(crate) fn open(routes: &Arc<Routes>) -> Option<Self> {
        let (end, outbound) = routes.open(Path::Relay)?;
        Some(Self { inbound: RelayInbound(Arc::new(end)), outbound })
    }

    /// What to dial.
    pub fn path(&self) -> Path {
        Path::Relay(self.inbound.address())
    }

    pub fn split(self) -> (RelayInbound, mpsc::Receiver<Bytes>) {
        (self.inbound, self.outbound)
    }
}

impl RelayInbound {
    pub fn address(&self) -> VirtualAddress {
        self.0.address
    }

    /// A packet that the relay brought. When nobody keeps up it is lost, as on any network: one slow session must not hold
    /// up the others of the same relay.
    pub fn deliver(&self, packet: Bytes) {
        if packet.is_empty() || packet.len() > PACKET_BYTES {
            return tracing::debug!(bytes = packet.len(), "a relay brought no packet");
        }
        if Kind::of(&packet).is_some() {
            self.0.deliver_sealed(packet);
        } else {
            self.0.offer(packet);
        }
    }
}
