//! Whom a session is with: what the ticket of a Noise key attests. Tickets are verified once, then known by their hash.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use muster_proto::trust::v1::Envelope;
use muster_types::{NodeId, Timestamp};
use prost::Message;
use ring::digest::{SHA256, digest};

use crate::ticket::{NodeTicket, TicketError};
use crate::verifier::Verifier;

/// An X25519 public key.
pub type NoiseKey = [u8; 32];

/// Verified tickets that are remembered; beyond it all are verified anew.
const KNOWN: usize = 4_096;

/// The first bytes of a ticket's hash: tells its owner that it need not be sent.
pub(super) type Mark = [u8; 8];

/// Whom to ask, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerAddress {
    pub node: NodeId,
    pub key: NoiseKey,
    pub at: SocketAddr,
}

/// The node at the other end, as its ticket attests it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub node: NodeId,
    pub key: NoiseKey,
    /// Ed25519: signs its records.
    pub signing_key: NoiseKey,
    pub certificate_serial: Bytes,
    pub not_after: Timestamp,
}

/// Why a ticket does not make its sender a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PeerError {
    #[error("the bytes are no ticket: {0}")]
    Malformed(String),
    #[error(transparent)]
    Ticket(#[from] TicketError),
    #[error("the ticket of {0:?} binds another Noise key")]
    OtherKey(NodeId),
}

#[derive(Default)]
pub(super) struct Peers {
    known: HashMap<NoiseKey, (Arc<Peer>, Mark, [u8; 32])>,
}

impl Peers {
    /// The holder of `key`, by the ticket that it showed.
    pub(super) fn by_ticket(
        &mut self,
        key: &NoiseKey,
        ticket: &[u8],
        verifier: &Verifier<'_>,
    ) -> Result<Arc<Peer>, PeerError> {
        let hash = hash(ticket);
        if let Some((peer, _, known)) = self.known.get(key)
            && *known == hash
            && verifier.now <= peer.not_after
            && verifier.trust.revocations().of_holder(peer.node, &peer.certificate_serial, None).is_none()
        {
            return Ok(Arc::clone(peer));
        }
        let sealed = Envelope::decode(ticket).map_err(|error| PeerError::Malformed(error.to_string()))?;
        let ticket = NodeTicket::open(&sealed, verifier.trust, verifier.now)?;
        if ticket.noise_key != *key {
            return Err(PeerError::OtherKey(ticket.node));
        }
        let NodeTicket { node, signing_key, certificate_serial, not_after, .. } = ticket;
        let peer = Arc::new(Peer { node, key: *key, signing_key, certificate_serial, not_after });
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.insert(*key, (Arc::clone(&peer), mark(&hash), hash));
        Ok(peer)
    }

    /// The holder of `key`, if its ticket was shown before and is still good.
    pub(super) fn known(&self, key: &NoiseKey, now: Timestamp) -> Option<(Arc<Peer>, Mark)> {
        let (peer, mark, _) = self.known.get(key)?;
        (now <= peer.not_after).then(|| (Arc::clone(peer), *mark))
    }

    pub(super) fn forget(&mut self, whom: impl Fn(&Peer) -> bool) {
        self.known.retain(|_, (peer, ..)| !whom(peer));
    }
}

fn hash(ticket: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, ticket).as_ref());
    hash
}

fn mark(hash: &[u8; 32]) -> Mark {
    let mut mark = Mark::default();
    mark.copy_from_slice(&hash[..8]);
    mark
}

pub(super) fn mark_of(ticket: &[u8]) -> Mark {
    mark(&hash(ticket))
}
