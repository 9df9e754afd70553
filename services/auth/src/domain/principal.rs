//! Whom auth has admitted: a node, an operator, a CMDB, a service.

use muster_types::{Identity, NodeId, Timestamp};
use rand::CryptoRng;

use super::label::Labels;
use super::leaf::Leaf;
use super::request::{KeyHash, NodeKeys};
use super::revocation::Reason;

/// Somebody with a name in this network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub identity: Identity,
    /// The key of its newest certificate.
    pub key: KeyHash,
    /// Counts enrollments from 1: rises when the same device enrolls again, not when it renews.
    pub generation: u32,
    /// As it called itself; of nodes.
    pub host_name: String,
    pub software_version: String,
    /// As its link or an operator set them.
    pub labels: Labels,
    /// Of nodes only.
    pub node_keys: Option<NodeKeys>,
    pub enroll_time: Timestamp,
    pub renew_time: Timestamp,
    pub revocation: Option<Revocation>,
}

/// The end of a principal's admission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    pub time: Timestamp,
    pub reason: Reason,
    pub comment: String,
}

impl Principal {
    /// Lost: it may renew, so that it stays reachable for the master's lock or erase, and nothing else.
    pub fn is_lost(&self) -> bool {
        self.revocation.as_ref().is_some_and(|revocation| revocation.reason == Reason::Lost)
    }

    /// Revoked for good.
    pub fn is_revoked(&self) -> bool {
        self.revocation.is_some() && !self.is_lost()
    }

    pub fn resource_name(&self) -> String {
        self.identity.resource_name()
    }
}

/// A node's ticket, before a signer signs it: its keys, bound to its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    pub node: NodeId,
    pub serial: Vec<u8>,
    pub keys: NodeKeys,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub labels: Labels,
    pub generation: u32,
}

impl Ticket {
    /// The ticket that goes with `leaf`; `None` for whoever is no node.
    pub fn bind(principal: &Principal, leaf: &Leaf) -> Option<Self> {
        Some(Self {
            node: principal.identity.node_id()?,
            serial: leaf.serial.0.clone(),
            keys: principal.node_keys?,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            labels: principal.labels.clone(),
            generation: principal.generation,
        })
    }
}

/// Draws a node's id: uniformly, so that nobody chooses whose keys it will hold in the DHT.
pub(super) fn draw_node_id(rng: &mut impl CryptoRng) -> NodeId {
    let mut id = NodeId::default();
    rng.fill_bytes(&mut id.0);
    id
}
