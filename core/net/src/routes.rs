//! Where packets for virtual addresses go: into the queue of the TCP connection (or relay) that stands for one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::path::{Path, VirtualAddress, canonical};
use crate::sealed::Sealed;

/// Packets on their way into or out of one route. Short, since QUIC retransmits on top: what waits long is sent
/// twice.
const ROUTE_PACKETS: usize = 512;

/// Packets from all routes that QUIC has yet to read.
const INBOUND_PACKETS: usize = 1_024;

/// Connections that carry packets: a full cell whose UDP is blocked, and some to spare for strangers.
pub(crate) const ROUTES: usize = muster_types::limits::CELL_NODES + 64;

/// A packet that did not come by UDP.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) from: SocketAddr,
    pub(crate) bytes: Bytes,
}

#[derive(Debug)]
pub(crate) struct Routes {
    table: RwLock<HashMap<VirtualAddress, Route>>,
    next: AtomicU64,
    inbound: mpsc::Sender<Packet>,
    sealed: mpsc::Sender<Sealed>,
}

#[derive(Debug)]
struct Route {
    path: Path,
    packets: mpsc::Sender<Bytes>,
}

/// One end of a route; dropping it takes the route out of the table.
#[derive(Debug)]
pub(crate) struct RouteEnd {
    pub(crate) address: VirtualAddress,
    routes: Arc<Routes>,
}

impl Routes {
    /// Sealed datagrams that come by a route go to `sealed`.
    pub(crate) fn new(sealed: mpsc::Sender<Sealed>) -> (Arc<Self>, mpsc::Receiver<Packet>) {
        let (inbound, packets) = mpsc::channel(INBOUND_PACKETS);
        let routes = Self { table: RwLock::default(), next: AtomicU64::new(1), inbound, sealed };
        (Arc::new(routes), packets)
    }

    /// Gives a path a virtual address. `None`: the table is full.
    pub(crate) fn open(
        self: &Arc<Self>,
        path: impl FnOnce(VirtualAddress) -> Path,
    ) -> Option<(RouteEnd, mpsc::Receiver<Bytes>)> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= ROUTES {
            return None;
        }
        let address = VirtualAddress::new(self.next.fetch_add(1, Ordering::Relaxed));
        let (packets, outbound) = mpsc::channel(ROUTE_PACKETS);
        table.insert(address, Route { path: path(address), packets });
        Some((RouteEnd { address, routes: Arc::clone(self) }, outbound))
    }

    /// Takes a packet for a virtual address; `false` if the address is a real one. A route that is full or gone
    /// loses it.
    pub(crate) fn carry(&self, to: SocketAddr, contents: &[u8], segment_size: Option<usize>) -> bool {
        let Some(address) = VirtualAddress::from_socket_address(to) else { return false };
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = table.get(&address) {
            for packet in contents.chunks(segment_size.unwrap_or(contents.len()).max(1)) {
                if route.packets.try_send(Bytes::copy_from_slice(packet)).is_err() {
                    tracing::trace!(path = %route.path, "lost a packet");
                }
            }
        }
        true
    }

    /// What stands behind an address that QUIC knows a peer by. `None`: a route that has ended meanwhile.
    pub(crate) fn path(&self, remote: SocketAddr) -> Option<Path> {
        let Some(address) = VirtualAddress::from_socket_address(remote) else {
            return Some(Path::Udp(canonical(remote)));
        };
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.get(&address).map(|route| route.path)
    }

    /// Ends a route: its carrier sees the queue close.
    pub(crate) fn close(&self, address: VirtualAddress) {
        self.table.write().unwrap_or_else(PoisonError::into_inner).remove(&address);
    }
}

impl RouteEnd {
    /// Hands a packet to QUIC, waiting while it is busy: the peer's TCP stack is slowed down, nothing is lost.
    /// `false`: the endpoint is gone.
    pub(crate) async fn deliver(&self, bytes: Bytes) -> bool {
        let packet = Packet { from: self.address.socket_address(), bytes };
        self.routes.inbound.send(packet).await.is_ok()
    }

    /// The same without waiting: it is lost while QUIC is busy.
    pub(crate) fn offer(&self, bytes: Bytes) {
        let packet = Packet { from: self.address.socket_address(), bytes };
        if self.routes.inbound.try_send(packet).is_err() {
            tracing::trace!("lost a relayed packet: nobody keeps up");
        }
    }

    /// Hands on a sealed datagram; when nobody keeps up, it is lost.
    pub(crate) fn deliver_sealed(&self, bytes: Bytes) {
        let from = self.address.socket_address();
        if self.routes.sealed.try_send(Sealed { from, bytes }).is_err() {
            tracing::debug!("dropped a sealed datagram: nobody keeps up");
        }
    }
}

impl Drop for RouteEnd {
    fn drop(&mut self) {
        self.routes.close(self.address);
    }
}
