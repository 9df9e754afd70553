//! Claims to be the LSN of a cell, and which of two prevails.

use muster_types::{Contact, NodeId, SubnetKey};

use crate::message::Seal;
use crate::standing::{Standing, Uptime};

/// "I am the LSN of this cell", signed by the claimant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The cell's line of LSNs, drawn at random by its first.
    pub lineage: u64,
    /// One more than the predecessor's.
    pub epoch: u64,
    pub predecessor: Option<NodeId>,
    pub subnet_keys: Vec<SubnetKey>,
    pub claimant: Contact,
    pub uptime: Uptime,
    pub standing: Standing,
    /// Of an LSN that leaves: who takes over.
    pub successor: Option<NodeId>,
    /// The lineage has stood for 30 s: a younger one does not unseat it.
    pub settled: bool,
    pub seal: Seal,
}
