//! Everything a node can want from its shell, as one closed enum that the shell matches exhaustively.

use std::net::SocketAddr;
use std::time::Duration;

use muster_types::{Contact, Instant, NodeId, Version};

use crate::claim::Claim;
use crate::message::{Attach, Beat, Discovery, Message, Part};
use crate::standing::Standing;

#[derive(Debug, Clone, PartialEq)]
pub enum Intent {
    /// Open a session, or answer at once with `Opened` if there is one.
    Open(Contact),
    /// Open another session beside a silent one, by another way; where it stands, `Opened` says so.
    Probe(Contact),
    /// Try whether uninvited packets reach a node, beside any session and from sockets that it has never heard of: a firewall
    /// lets in what comes to a port that its host has sent from. Always answered, by
    /// [`Input::Knocked`](crate::Input::Knocked).
    Knock(Contact),
    /// Close a session after what was sent has gone out.
    Close(NodeId),
    Send {
        to: NodeId,
        message: Message,
    },
    SendBeat {
        to: NodeId,
        beat: Beat,
    },
    /// Tell the local network, by multicast and broadcast.
    Multicast(Discovery),
    /// Answer one node of the local network.
    Answer {
        to: SocketAddr,
        discovery: Discovery,
    },
    /// Look up LSNs that were met on this network before.
    Recall,
    /// Ask topology for LSNs by subnet key.
    AskMaster,
    /// Keep a control channel to topology: as LSN with this claim, or without one as a lone node.
    AttachMaster(Option<Claim>),
    /// Let go of the control channel; the LSN has one.
    DetachMaster,
    /// Tell topology that this node leaves: it has no LSN that would. Over the channel there is, or one made for it.
    PartMaster(Part),
    /// Tell topology what changed in the child table.
    Update(Update),
    /// Keep for the next time on this network.
    Remember(Claim),
    /// The node's state changed: for status, logs and whoever routes to the master.
    Changed(Station),
    /// A connection to the network ended and was found again.
    Disconnected(Disconnection),
}

/// What the node is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Station {
    NoConnection,
    LookingForLsn,
    Joining {
        lsn: NodeId,
    },
    HasLsn {
        lsn: NodeId,
        lineage: u64,
        epoch: u64,
    },
    IsLsn {
        lineage: u64,
        epoch: u64,
    },
    /// The last intent of a node that leaves.
    Parted,
}

/// Changes of the child table since the update before; numbers have no gaps.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    pub number: u64,
    /// The changes are the whole table.
    pub snapshot: bool,
    pub changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub node: NodeId,
    pub presence: Presence,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Presence {
    Attached {
        attach: Attach,
        contact: Contact,
        version: Version,
        standing: Standing,
    },
    /// `None`: lost connection.
    Departed(Option<Part>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnection {
    pub reason: LossReason,
    pub began: Instant,
    pub lasted: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LossReason {
    LsnLost,
    LsnParted,
    NetworkLost,
    NetworkChanged,
    Slept,
    /// The host was awake and did not run this process.
    Stalled,
}
