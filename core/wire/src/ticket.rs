//! Tickets: what the master attests of a node, opened and checked.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use muster_overlay::standing::Uptime;
use muster_proto::payload_type::{NODE_TICKET, UPTIME_TICKET};
use muster_proto::trust::v1::{self, Envelope};
use muster_types::limits::CERTIFICATE_LIFETIME;
use muster_types::{NodeId, Timestamp};
use prost::Message;
use ring::digest::{SHA256, digest};

use crate::envelope::EnvelopeError;
use crate::revocation::Reason;
use crate::trust::TrustStore;

/// The code of a Part that sends a node away whose ticket is by a key that was withdrawn: it comes again with a new one.
pub const STALE_TICKET: u32 = 401;

/// Length of X25519 and Ed25519 public keys.
const KEY_BYTES: usize = 32;

/// The id of a bootstrap node follows from its Noise key: auth signs its ticket without having drawn the id, and nobody
/// can choose it.
pub fn bootstrap_id(noise_key: &[u8; KEY_BYTES]) -> NodeId {
    let hash = digest(&SHA256, &[&b"muster bootstrap node "[..], noise_key].concat());
    let mut id = NodeId::default();
    id.0.copy_from_slice(&hash.as_ref()[..NodeId::LEN]);
    id
}

/// What auth is asked to sign for a bootstrap node. It has no certificate; its ticket is told by its key, and nothing is
/// ever sealed to it.
pub fn bootstrap_ticket(noise_key: &[u8; KEY_BYTES], signing_key: &[u8], now: Timestamp) -> Bytes {
    let noise = Bytes::copy_from_slice(noise_key);
    let ticket = v1::NodeTicket {
        node_id: Bytes::copy_from_slice(bootstrap_id(noise_key).as_bytes()),
        certificate_serial: Bytes::copy_from_slice(&digest(&SHA256, noise_key).as_ref()[..16]),
        sealing_key: noise.clone(),
        noise_key: noise,
        signing_key: Bytes::copy_from_slice(signing_key),
        not_before_time: Some(crate::time::to_wire(now - CLOCK_TOLERANCE)),
        not_after_time: Some(crate::time::to_wire(now + CERTIFICATE_LIFETIME)),
        ..v1::NodeTicket::default()
    };
    ticket.encode_to_vec().into()
}

/// Whether this is the ticket of a bootstrap node, and so none of an enrolled one.
pub fn is_bootstrap_ticket(payload: &[u8]) -> bool {
    NodeTicket::parse(payload).is_ok_and(|ticket| {
        ticket.node == bootstrap_id(&ticket.noise_key)
            && ticket.labels.is_empty()
            && ticket.enrollment_generation == 0
    })
}

/// How far others' clocks may lag behind the master's.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3_600);

/// Connected all the time, in basis points.
const FULL_UPTIME: u16 = 10_000;

/// Why a ticket was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error("the ticket's {0} is missing or malformed")]
    Field(&'static str),
    #[error("the ticket of {node:?} is valid from {not_before:?} to {not_after:?}, not now")]
    NotNow { node: NodeId, not_before: Timestamp, not_after: Timestamp },
    #[error("the certificate of {node:?} is {reason}")]
    Revoked { node: NodeId, reason: Reason },
}

/// The keys of one node, bound to its certificate by auth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTicket {
    pub node: NodeId,
    pub certificate_serial: Bytes,
    pub noise_key: [u8; KEY_BYTES],
    pub sealing_key: [u8; KEY_BYTES],
    pub signing_key: [u8; KEY_BYTES],
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub labels: BTreeMap<String, String>,
    pub enrollment_generation: u32,
}

impl NodeTicket {
    /// Opens a ticket that a signer of this network made and that is valid at `now`, by the master's clock.
    ///
    /// # Errors
    /// Not signed by a signer, malformed, expired or not yet valid, or of a node that is not admitted any more.
    pub fn open(sealed: &Envelope, trust: &TrustStore, now: Timestamp) -> Result<Self, TicketError> {
        let ticket = Self::open_even_revoked(sealed, trust, now)?;
        match trust.revocations().of_holder(ticket.node, &ticket.certificate_serial, None) {
            None => Ok(ticket),
            Some(it) => Err(TicketError::Revoked { node: ticket.node, reason: it.reason }),
        }
    }

    /// The same of a node that is not admitted: for topology, which hands a lost one its lock or erase.
    ///
    /// # Errors
    /// Not signed by a signer, malformed, expired or not yet valid.
    pub fn open_even_revoked(
        sealed: &Envelope,
        trust: &TrustStore,
        now: Timestamp,
    ) -> Result<Self, TicketError> {
        let ticket = Self::parse(&trust.open(sealed, NODE_TICKET)?)?;
        if now < ticket.not_before || now > ticket.not_after {
            let Self { node, not_before, not_after, .. } = ticket;
            return Err(TicketError::NotNow { node, not_before, not_after });
        }
        Ok(ticket)
    }

    /// One that has been opened before.
    pub(crate) fn believed(sealed: &Envelope) -> Result<Self, TicketError> {
        Self::parse(&sealed.payload)
    }

    fn parse(payload: &[u8]) -> Result<Self, TicketError> {
        let wire = v1::NodeTicket::decode(payload)
            .map_err(|error| EnvelopeError::Payload("node ticket", error.to_string()))?;
        Ok(Self {
            node: NodeId::try_from(&wire.node_id[..]).map_err(|_| TicketError::Field("node_id"))?,
            certificate_serial: wire.certificate_serial,
            noise_key: key(&wire.noise_key, "noise_key")?,
            sealing_key: key(&wire.sealing_key, "sealing_key")?,
            signing_key: key(&wire.signing_key, "signing_key")?,
            not_before: date(wire.not_before_time, "not_before_time")?,
            not_after: date(wire.not_after_time, "not_after_time")?,
            labels: wire.labels.into_iter().collect(),
            enrollment_generation: wire.enrollment_generation,
        })
    }
}

/// What topology attested of a node that is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attested {
    pub node: NodeId,
    pub uptime: Uptime,
    /// When it did.
    pub issued: Timestamp,
}

/// Opens what topology attested of a node's uptime.
///
/// # Errors
/// Not signed by a signer, malformed, or expired at `now`.
pub fn open_uptime(sealed: &Envelope, trust: &TrustStore, now: Timestamp) -> Result<Attested, TicketError> {
    let payload = trust.open(sealed, UPTIME_TICKET)?;
    let wire = v1::UptimeTicket::decode(payload)
        .map_err(|error| EnvelopeError::Payload("uptime ticket", error.to_string()))?;
    let node = NodeId::try_from(&wire.node_id[..]).map_err(|_| TicketError::Field("node_id"))?;
    let not_before = date(wire.issue_time, "issue_time")?;
    let not_after = date(wire.expire_time, "expire_time")?;
    if now > not_after {
        return Err(TicketError::NotNow { node, not_before, not_after });
    }
    let share = u16::try_from(wire.uptime_basis_points).ok().filter(|share| *share <= FULL_UPTIME);
    let uptime = Uptime(share.ok_or(TicketError::Field("uptime_basis_points"))?);
    Ok(Attested { node, uptime, issued: not_before })
}

fn key(bytes: &[u8], field: &'static str) -> Result<[u8; KEY_BYTES], TicketError> {
    bytes.try_into().map_err(|_| TicketError::Field(field))
}

fn date(wire: Option<prost_types::Timestamp>, field: &'static str) -> Result<Timestamp, TicketError> {
    wire.and_then(crate::time::from_wire).ok_or(TicketError::Field(field))
}
