//! Everything that can happen to a node, as one closed enum. The shell translates; the machine decides.

use std::net::{IpAddr, SocketAddr};

use muster_types::{Address, NodeId, Prefix, SubnetKey, Version};

use crate::claim::Claim;
use crate::message::{Beat, Discovery, Message};
use crate::standing::{Standing, Uptime};

#[derive(Debug, Clone)]
pub enum Input {
    /// The host's network as it is now; without addresses there is none.
    Network(Network),
    /// The subnet keys as the master derives them from the address that it sees.
    SubnetKeys(Vec<SubnetKey>),
    /// What topology last attested of this node.
    Uptime(Uptime),
    /// A datagram on the local network; claims in it are verified.
    Heard {
        from: SocketAddr,
        discovery: Discovery,
    },
    /// The answer to [`Intent::Recall`](crate::Intent::Recall): LSNs met on this network before, best first.
    Recalled(Vec<Claim>),
    /// The answer to [`Intent::AskMaster`](crate::Intent::AskMaster); `None`: it could not be reached.
    MasterAnswered(Option<Vec<Claim>>),
    /// A session is ready, whoever opened it. Both ends are authenticated.
    Opened {
        peer: NodeId,
        version: Version,
        observed: Option<SocketAddr>,
    },
    /// The answer to an [`Intent::Open`](crate::Intent::Open) that came to nothing.
    OpenFailed {
        peer: NodeId,
    },
    Closed {
        peer: NodeId,
    },
    /// The answer to an [`Intent::Knock`](crate::Intent::Knock).
    Knocked {
        peer: NodeId,
        answered: bool,
    },
    Received {
        from: NodeId,
        message: Message,
    },
    BeatReceived {
        from: NodeId,
        beat: Beat,
    },
    /// The control channel to topology stands. It knows this node's updates up to `known_update`;
    /// with `resync` it wants the whole child table.
    MasterAttached {
        known_update: u64,
        resync: bool,
    },
    MasterDetached {
        reason: String,
    },
    /// Topology knows another LSN with one of this one's subnet keys.
    Rival(Claim),
    UpdateAcknowledged {
        number: u64,
    },
    /// Topology shows this node as attached under its present LSN.
    Receipt {
        lsn: NodeId,
    },
    /// Topology has signed lately that this node is connected, and it came by the LSN.
    Vouched,
    /// Topology was told that this node is gone.
    Missed,
    /// Versions below this are refused, says topology.
    MinimumVersion(Version),
    /// The signed list of revocations names this node: nobody admits it any more.
    Barred(NodeId),
    /// Others do not reach this node, say they: a hint, and worth a look.
    Suspected(NodeId),
    /// This host's load in percent, for pings.
    Load(u8),
    /// The host slept: every session and lease is suspect.
    WokeUp,
    /// The user or the system wants this node to leave. The shell goes on driving until `Changed(Parted)`.
    Leave {
        code: crate::message::PartCode,
        description: String,
    },
}

/// The default-route interfaces' state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    /// Where this node listens, best first; empty: no network.
    pub addresses: Vec<Address>,
    pub prefixes: Vec<Prefix>,
    /// Names the attachment (gateway and prefix), so that a change is told from a renewal.
    pub gateway: Option<IpAddr>,
    pub standing: Standing,
}
