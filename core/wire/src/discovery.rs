//! Datagrams on the local network, outside of any session: the mark byte, then a protobuf message, 1,200 bytes
//! in all (proto: `muster.overlay.v1.Discovery`).

use bytes::{BufMut, Bytes, BytesMut};
use muster_overlay::Claim;
use muster_overlay::message::{Discovery, LsnQuery};
use muster_proto::overlay::v1::{self, discovery::Body};
use muster_types::{Timestamp, limits};
use prost::Message;

use crate::error::WireError;
use crate::field;
use crate::sealed;
use crate::signer::Signer;
use crate::verifier::Verifier;

/// First byte of a discovery datagram; 0x80 to 0xBF are ours on the shared socket.
pub const MARK: u8 = 0x80;

/// # Errors
/// A claim that is too large for one datagram, or unsealed and not the signer's own.
pub fn encode(discovery: &Discovery, signer: &Signer, now: Timestamp) -> Result<Bytes, WireError> {
    match discovery {
        Discovery::Query(query) => datagram(signer, Body::Query(query_to_wire(query))),
        Discovery::Claim(claim) => encode_claim(claim.clone(), signer, now),
    }
}

/// An own claim that is too large loses its last addresses until it fits; one suffices to reach its claimant.
fn encode_claim(mut claim: Claim, signer: &Signer, now: Timestamp) -> Result<Bytes, WireError> {
    loop {
        let body = Body::Claim(sealed::claim_to_wire(&claim, signer, now)?);
        let result = datagram(signer, body);
        let trimmable = claim.seal.bytes().is_none() && claim.claimant.addresses.len() > 1;
        if result.is_ok() || !trimmable {
            return result;
        }
        claim.claimant.addresses.pop();
    }
}

fn datagram(signer: &Signer, body: Body) -> Result<Bytes, WireError> {
    let network_id = field::to_bytes(signer.network.as_bytes());
    let message = v1::Discovery { network_id, body: Some(body) };
    let actual = 1 + message.encoded_len();
    if actual > limits::DATAGRAM_BYTES {
        let what = "a discovery datagram";
        return Err(WireError::TooLarge { what, actual, limit: limits::DATAGRAM_BYTES });
    }
    let mut bytes = BytesMut::with_capacity(actual);
    bytes.put_u8(MARK);
    bytes.put(message.encode_to_vec().as_slice());
    Ok(bytes.freeze())
}

fn query_to_wire(query: &LsnQuery) -> v1::LsnQuery {
    v1::LsnQuery {
        subnet_keys: field::keys_to_wire(&query.subnet_keys),
        node_id: field::to_bytes(query.node.as_bytes()),
        uptime_basis_points: query.uptime.0.into(),
        nonce: query.nonce,
    }
}

/// # Errors
/// Too large, no discovery datagram, of another network, or a claim that is not believed.
pub fn decode(bytes: &[u8], verifier: &Verifier<'_>) -> Result<Discovery, WireError> {
    if bytes.len() > limits::DATAGRAM_BYTES {
        let what = "a discovery datagram";
        return Err(WireError::TooLarge { what, actual: bytes.len(), limit: limits::DATAGRAM_BYTES });
    }
    let message = match bytes.split_first() {
        Some((&MARK, message)) => message,
        _ => {
            let reason = format!("its first byte is not {MARK:#x}");
            return Err(WireError::Malformed { what: "discovery datagram", reason });
        }
    };
    let wire: v1::Discovery = field::parse("discovery datagram", message)?;
    field::own_network("discovery.network_id", &wire.network_id, verifier.trust.network())?;
    match wire.body.ok_or(WireError::UnknownKind("discovery datagram"))? {
        Body::Query(query) => query_from_wire(&query).map(Discovery::Query),
        Body::Claim(claim) => sealed::claim_from_wire(&claim, verifier).map(Discovery::Claim),
    }
}

fn query_from_wire(wire: &v1::LsnQuery) -> Result<LsnQuery, WireError> {
    Ok(LsnQuery {
        node: field::node("query.node_id", &wire.node_id)?,
        subnet_keys: field::keys("query.subnet_keys", &wire.subnet_keys)?,
        uptime: field::uptime("query.uptime_basis_points", wire.uptime_basis_points)?,
        nonce: wire.nonce,
    })
}
