//! A control stream to topology: whose it is, which replica serves it, and where its updates stand.

use std::time::Duration;

use muster_types::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use super::cell::CellId;
use super::opaque::Opaque;

/// Between heartbeats of a stream (design, section 3: answered keep-alives of the transport prove nothing). One is 145 bytes of
/// IP with its acknowledgement by TCP, whose absence tells the node of a path that is gone; every fourth is answered, which
/// makes 236. So a quiet stream costs 24 kB an hour, 0.8 kB for each of 30 nodes. The node asks sooner when it says
/// something, and again each second when it is not answered.
pub const HEARTBEAT: Duration = Duration::from_secs(25);

/// A stream without a frame for so long is closed: the node has given it up before.
pub const SILENT_AFTER: Duration = Duration::from_secs(35);

/// A carrier whose stream was lost for so long went dark with all it carried. With [`SILENT_AFTER`] and the
/// sweep this stays within the 90 s of design, section 2.
pub const DARK_AFTER: Duration = Duration::from_secs(45);

/// A node that its cell's next LSN did not show within so long was lost: the lease of 10 s, and a round.
pub const MISSED_AFTER: Duration = Duration::from_secs(15);

/// A replica that did not renew its lease for so long serves no streams.
pub const REPLICA_LEASE: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub node: NodeId,
    /// Of an LSN.
    pub cell: Option<CellId>,
    pub lineage: u64,
    pub epoch: u64,
    /// Proves at a reconnect that both sides mean the same numbering of updates.
    pub token: Opaque,
    pub known_update: u64,
    pub replica: String,
    pub session: u64,
    pub opened: Timestamp,
    /// When the stream was found lost; `None` while it stands.
    pub lost: Option<Timestamp>,
    /// When it was last known to live.
    pub heard: Timestamp,
    /// What it carried has been judged after its loss.
    pub settled: bool,
}

impl Attachment {
    pub fn is_live(&self) -> bool {
        self.lost.is_none()
    }
}
