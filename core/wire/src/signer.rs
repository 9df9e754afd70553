//! This node's own hand: the key that signs its claims, attaches and reports, and the tickets that go with them.

use bytes::Bytes;
use muster_proto::trust::v1::Envelope;
use muster_types::{NetworkId, NodeId};
use ring::signature::Ed25519KeyPair;

use crate::envelope;

/// Signs what this node says of itself.
#[derive(Debug)]
pub struct Signer {
    pub(crate) network: NetworkId,
    pub(crate) node: NodeId,
    pub(crate) ticket: Envelope,
    pub(crate) uptime: Option<Envelope>,
    pub(crate) boot_nonce: u64,
    pub(crate) known_revocation: u64,
    key: Ed25519KeyPair,
}

impl Signer {
    /// The hand of `node`, whose `key` is the one that `ticket` names.
    pub fn new(
        network: NetworkId,
        node: NodeId,
        key: Ed25519KeyPair,
        ticket: Envelope,
        boot_nonce: u64,
    ) -> Self {
        Self { network, node, ticket, uptime: None, boot_nonce, known_revocation: 0, key }
    }

    pub fn node(&self) -> NodeId {
        self.node
    }

    pub fn boot_nonce(&self) -> u64 {
        self.boot_nonce
    }

    /// The newest word of topology on this node's uptime; goes with every claim and join from now on.
    pub fn set_uptime(&mut self, sealed: Envelope) {
        self.uptime = Some(sealed);
    }

    /// Up to where this node knows every revocation; its next Hello says so.
    pub fn set_known_revocation(&mut self, number: u64) {
        self.known_revocation = number;
    }

    /// The ticket after a renewal.
    pub fn set_ticket(&mut self, sealed: Envelope) {
        self.ticket = sealed;
    }

    /// Signs any payload as this node's.
    pub fn sign(&self, payload_type: &'static str, payload: Bytes) -> Envelope {
        envelope::sign_ed25519(payload_type, payload, &self.key)
    }
}
