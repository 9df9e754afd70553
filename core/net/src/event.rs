//! What an endpoint tells its owner.

use std::net::SocketAddr;

use bytes::Bytes;
use muster_types::NodeId;

use crate::error::CloseReason;
use crate::session::Session;

/// Events that wait for the owner; beyond it peers are slowed down (messages) or dropped (datagrams).
pub const EVENTS: usize = 256;

#[derive(Debug)]
pub enum NetEvent {
    /// Whoever dialled. Comes before anything that the session brings.
    SessionOpened(Session),
    /// One session message, not yet parsed; bounded by [`muster_types::limits::MESSAGE_BYTES`].
    Message { from: Session, bytes: Bytes },
    /// One QUIC datagram: a beat.
    Datagram { from: Session, bytes: Bytes },
    /// Comes exactly once for each opened session, after all that it brought.
    SessionClosed { peer: NodeId, session: Session, reason: CloseReason },
    /// A datagram of the local network, not yet parsed. `interface` is its index, where that is known.
    Discovery { from: SocketAddr, bytes: Bytes, interface: Option<u32> },
    /// Another path carries the session now; which, it tells itself.
    PathChanged(Session),
    /// A probe of reachability came in ([`muster_wire::probe`]); anybody may have sent it.
    Reached { from: SocketAddr, token: muster_wire::probe::Token },
    /// The host's interfaces, addresses or routes changed; [`interfaces`](crate::interfaces) tells how they are.
    NetworkChanged,
}
