//! What nodes sign: claims and attaches. Own ones are signed here, received ones verified here, and both keep
//! the bytes as signed, so that they can be passed on.

use bytes::Bytes;
use muster_overlay::Claim;
use muster_overlay::message::{Attach, Seal};
use muster_proto::overlay::v1;
use muster_proto::payload_type::{ATTACH, CLAIM};
use muster_proto::trust::v1::Envelope;
use muster_types::{NodeId, Timestamp};
use prost::Message;

use crate::envelope::{self, EnvelopeError};
use crate::error::WireError;
use crate::field;
use crate::signer::Signer;
use crate::ticket::NodeTicket;
use crate::time;
use crate::verifier::Verifier;

/// The claim as its claimant signed it; an own one is signed now.
///
/// # Errors
/// It bears no seal and yet is not the signer's own, or its seal is no envelope.
pub fn claim_to_wire(claim: &Claim, signer: &Signer, now: Timestamp) -> Result<Envelope, WireError> {
    if let Some(bytes) = claim.seal.bytes() {
        return field::parse("claim envelope", bytes);
    }
    field::same_node("claim.claimant", claim.claimant.node, signer.node)?;
    let payload = v1::Claim {
        network_id: field::to_bytes(signer.network.as_bytes()),
        lineage: claim.lineage,
        epoch: claim.epoch,
        predecessor: field::optional_node_to_wire(claim.predecessor),
        subnet_keys: field::keys_to_wire(&claim.subnet_keys),
        claimant: Some(field::contact_to_wire(&claim.claimant)),
        ticket: Some(signer.ticket.clone()),
        uptime: signer.uptime.clone(),
        standing: Some(field::standing_to_wire(claim.standing)),
        claim_time: Some(time::to_wire(now)),
        successor: field::optional_node_to_wire(claim.successor),
        settled: claim.settled,
    };
    Ok(signer.sign(CLAIM, payload.encode_to_vec().into()))
}

/// A claim whose ticket leads to the trusted root and whose signature is by the key in that ticket.
///
/// # Errors
/// Not signed by its claimant, malformed, of another network, or its ticket is not believed.
pub fn claim_from_wire(sealed: &Envelope, verifier: &Verifier<'_>) -> Result<Claim, WireError> {
    if sealed.payload_type != CLAIM {
        let actual = sealed.payload_type.clone();
        return Err(not_believed("claim", EnvelopeError::PayloadType { expected: CLAIM, actual }));
    }
    // The claim names the ticket, the ticket the key: so it is read before it is believed.
    let claim: v1::Claim = field::parse("claim", &sealed.payload)?;
    let ticket = verifier.ticket("claim.ticket", claim.ticket.as_ref())?;
    open("claim", sealed, CLAIM, &ticket)?;
    field::own_network("claim.network_id", &claim.network_id, verifier.trust.network())?;
    let claimant = field::contact("claim.claimant", claim.claimant)?;
    field::same_node("claim.claimant", claimant.node, ticket.node)?;
    Ok(Claim {
        lineage: claim.lineage,
        epoch: claim.epoch,
        predecessor: field::optional_node("claim.predecessor", &claim.predecessor)?,
        subnet_keys: field::keys("claim.subnet_keys", &claim.subnet_keys)?,
        uptime: verifier.uptime("claim.uptime", claim.uptime.as_ref(), ticket.node)?,
        claimant,
        standing: field::standing(claim.standing),
        successor: field::optional_node("claim.successor", &claim.successor)?,
        settled: claim.settled,
        seal: Seal::new(sealed.encode_to_vec()),
    })
}

/// The attach as the child signed it; an own one is signed now.
///
/// # Errors
/// It bears no seal and yet is not the signer's own, or its seal is no envelope.
pub fn attach_to_wire(attach: &Attach, signer: &Signer, now: Timestamp) -> Result<Envelope, WireError> {
    if let Some(bytes) = attach.seal.bytes() {
        return field::parse("attach envelope", bytes);
    }
    field::same_node("attach.node_id", attach.node, signer.node)?;
    let payload = v1::Attach {
        node_id: field::to_bytes(attach.node.as_bytes()),
        lsn_id: field::to_bytes(attach.lsn.as_bytes()),
        lineage: attach.lineage,
        epoch: attach.epoch,
        attach_time: Some(time::to_wire(now)),
        boot_nonce: signer.boot_nonce,
    };
    Ok(signer.sign(ATTACH, payload.encode_to_vec().into()))
}

/// An attach as its child signed it, with what only the child could add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedAttach {
    pub attach: Attach,
    pub date: Timestamp,
    pub boot_nonce: u64,
}

/// An attach that the holder of `ticket` signed.
///
/// # Errors
/// Not signed by it, or malformed.
pub fn attach_from_wire(sealed: &Envelope, ticket: &NodeTicket) -> Result<SignedAttach, WireError> {
    let payload = open("attach", sealed, ATTACH, ticket)?;
    let wire: v1::Attach = field::parse("attach", &payload)?;
    let node: NodeId = field::node("attach.node_id", &wire.node_id)?;
    field::same_node("attach.node_id", node, ticket.node)?;
    let date = field::required("attach.attach_time", wire.attach_time.and_then(time::from_wire))?;
    let attach = Attach {
        node,
        lsn: field::node("attach.lsn_id", &wire.lsn_id)?,
        lineage: wire.lineage,
        epoch: wire.epoch,
        seal: Seal::new(sealed.encode_to_vec()),
    };
    Ok(SignedAttach { attach, date, boot_nonce: wire.boot_nonce })
}

fn open(
    field: &'static str,
    sealed: &Envelope,
    expected: &'static str,
    ticket: &NodeTicket,
) -> Result<Bytes, WireError> {
    envelope::open_ed25519(sealed, expected, &ticket.signing_key)
        .map_err(|source| not_believed(field, source))
}

fn not_believed(field: &'static str, source: EnvelopeError) -> WireError {
    WireError::Envelope { field, source }
}
