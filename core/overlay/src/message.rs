//! What nodes say to each other, as the machines see it: parsed, bounded, and with every signature already verified
//! by whoever feeds them. How it looks on the wire is `muster-wire`'s business.

use std::net::SocketAddr;
use std::sync::Arc;

use muster_types::{Contact, NodeId, SubnetKey, Version};

use crate::claim::Claim;
use crate::standing::{Standing, Uptime};

/// Bytes as their signer sent them, carried along untouched. A message that its sender has yet to sign has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seal(Option<Arc<[u8]>>);

impl Seal {
    /// Of a message that this node makes; whoever encodes it signs it.
    pub const OWN: Self = Self(None);

    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(Some(bytes.into()))
    }

    pub fn bytes(&self) -> Option<&[u8]> {
        self.0.as_deref()
    }
}

/// On the local network, outside of any session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    Query(LsnQuery),
    Claim(Claim),
}

/// "Who is LSN here?"
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LsnQuery {
    pub node: NodeId,
    pub subnet_keys: Vec<SubnetKey>,
    pub uptime: Uptime,
    pub nonce: u32,
}

/// One message of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Join(Join),
    Accepted(Accepted),
    Refused(Part),
    Ping(Ping),
    Pong(Pong),
    Part(Part),
    NeighborList(NeighborList),
    /// A new LSN announces itself, or an LSN shows a rival who it is (specification: Uptime).
    Claim(Claim),
    /// Of an LSN that may not be reached by everybody.
    Knock(Knock),
}

/// Whether uninvited packets reach an LSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knock {
    /// From it to a deputy: "try it".
    Please,
    /// From the deputy: they do. From an LSN to a rival: "others reach me, though you do not".
    Answered,
    /// From a deputy or a rival: nothing came of it.
    Unanswered,
}

/// A node asks to become a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    pub contact: Contact,
    pub subnet_keys: Vec<SubnetKey>,
    pub uptime: Uptime,
    pub standing: Standing,
    pub attach: Attach,
    pub version: Version,
    /// Of an LSN that gives in: how many children come after it.
    pub brings: Option<u32>,
}

/// The child's word that it is under this LSN. The shell adds the date and the boot nonce when it signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    pub node: NodeId,
    pub lsn: NodeId,
    pub lineage: u64,
    pub epoch: u64,
    pub seal: Seal,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub neighbors: NeighborList,
    pub claim: Claim,
    pub terms: Terms,
    /// Where the child's packets come from.
    pub observed: Option<SocketAddr>,
}

/// What an LSN asks of its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub lease: std::time::Duration,
    pub ping_interval: std::time::Duration,
}

/// In descending order of attested uptime, without the LSN; the first two are its deputies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NeighborList {
    /// Rises with every change.
    pub number: u64,
    /// Shared: an LSN tells many children the same.
    pub neighbors: Arc<[Neighbor]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbor {
    pub contact: Contact,
    pub uptime: Uptime,
    pub standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    pub sequence: u64,
    pub load_percent: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pong {
    pub sequence: u64,
    pub load_percent: u8,
    /// The answering node's own LSN, when it is not the asking node's.
    pub lsn: Option<Claim>,
    /// The answering LSN has no control channel now.
    pub without_master: bool,
}

/// "I leave" or "leave me", with a reason; nobody acknowledges it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub code: PartCode,
    pub description: String,
    pub better: Option<Claim>,
}

/// 2xx: as intended; 4xx: the receiver's or its user's doing; 5xx: the sender's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartCode(pub u16);

impl PartCode {
    /// The host shuts down or the agent is stopped.
    pub const LEAVING: Self = Self(200);
    /// Go to a better LSN.
    pub const BETTER_LSN: Self = Self(201);
    /// A planned exit of an LSN: its successor is named.
    pub const HANDED_OVER: Self = Self(202);
    /// The agent was uninstalled.
    pub const UNINSTALLED: Self = Self(210);
    /// The version is below the minimum.
    pub const TOO_OLD: Self = Self(426);
    /// The cell is full.
    pub const FULL: Self = Self(429);
    /// The asked node is not an LSN.
    pub const NOT_LSN: Self = Self(421);
    /// The attach or the keys do not fit.
    pub const REFUSED: Self = Self(403);
    /// The sender failed.
    pub const INTERNAL: Self = Self(500);
}

/// Every 200 ms from the LSN to its deputies; each returns every fifth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    pub lineage: u64,
    pub epoch: u64,
    pub sequence: u64,
    pub answer: bool,
}
