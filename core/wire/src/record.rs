//! Records of the hash table: made and signed here by their publisher, opened and verified here by everybody else, once
//! for each record and not once for each hop.

mod reader;
mod value;

use std::time::Duration;

use bytes::Bytes;
use muster_overlay::dht::{Kind, RECORD_BYTES, Record};
use muster_proto::overlay::v1;
use muster_proto::payload_type::RECORD;
use muster_types::{Instant, Key, NetworkId, Timestamp};
use prost::Message;
use ring::digest::{SHA256, digest};

pub use reader::{Moment, Opened, Reader};
pub use value::{VIA, Value};

use crate::error::WireError;
use crate::field;
use crate::signer::Signer;
use crate::time;

/// How long a record lives unless its publisher says otherwise; it is renewed at two thirds.
pub const LIFE: Duration = Duration::from_secs(24 * 3600);

/// How long it may live: what its publisher does not renew within two days is of a publisher that is gone.
pub const LIFE_MAX: Duration = Duration::from_secs(48 * 3600);

/// Content, by its name, where the name alone is known.
pub fn named_key(name: &str) -> Key {
    hashed(&[b"muster name ", name.as_bytes()])
}

/// What a person means by a key: 40 hexadecimal digits, `nodes/` and a node's id, or any name.
pub fn key_of(text: &str) -> Key {
    let digits = text.strip_prefix("nodes/").unwrap_or(text);
    digits.parse().unwrap_or_else(|_| named_key(text))
}

/// Where the network's root stands.
pub fn root_key(network: NetworkId) -> Key {
    hashed(&[b"muster root ", network.as_bytes()])
}

/// Where the network's super nodes stand, each by its own record.
pub fn super_nodes_key(network: NetworkId) -> Key {
    hashed(&[b"muster super nodes ", network.as_bytes()])
}

/// Where the revocations behind number `base` stand: who knows the list up to there finds what it lacks.
pub fn revocations_key(network: NetworkId, base: u64) -> Key {
    hashed(&[b"muster revocations ", network.as_bytes(), &base.to_be_bytes()])
}

fn hashed(parts: &[&[u8]]) -> Key {
    let hash = digest(&SHA256, &parts.concat());
    let mut key = Key::default();
    key.0.copy_from_slice(&hash.as_ref()[..Key::LEN]);
    key
}

/// A record of the signer's own, with its ticket if there is room for it.
///
/// # Errors
/// Too large, or the value is one that only another node may publish under this key.
pub fn sign(
    key: Key,
    value: &Value,
    life: Duration,
    signer: &Signer,
    (now, date): (Instant, Timestamp),
) -> Result<Record, WireError> {
    value.check(key, signer.node, signer.network)?;
    let life = life.min(LIFE_MAX);
    let sequence = u64::try_from(date.as_micros()).unwrap_or(0);
    let mut wire = v1::Record {
        key: field::to_bytes(key.as_bytes()),
        kind: kind_to_wire(value.kind()).into(),
        publisher_id: field::to_bytes(signer.node.as_bytes()),
        sequence,
        expire_time: Some(time::to_wire(date + life)),
        ticket: Some(signer.ticket.clone()),
        value: Some(value.to_wire()),
    };
    let mut bytes = signer.sign(RECORD, wire.encode_to_vec().into()).encode_to_vec();
    if bytes.len() > RECORD_BYTES {
        wire.ticket = None;
        bytes = signer.sign(RECORD, wire.encode_to_vec().into()).encode_to_vec();
    }
    check_size(bytes.len())?;
    let (publisher, expires) = (signer.node, now + life);
    Ok(Record { key, kind: value.kind(), publisher, sequence, expires, bytes: bytes.into() })
}

fn check_size(actual: usize) -> Result<(), WireError> {
    if actual <= RECORD_BYTES {
        Ok(())
    } else {
        Err(WireError::TooLarge { what: "a record with its signature", actual, limit: RECORD_BYTES })
    }
}

/// The content's address in the table: what it hashes to.
pub fn content_key(content: &[u8]) -> Key {
    hashed(&[content])
}

pub(crate) fn kind_to_wire(kind: Kind) -> v1::RecordKind {
    match kind {
        Kind::Contact => v1::RecordKind::Contact,
        Kind::Subnet => v1::RecordKind::Subnet,
        Kind::Holders => v1::RecordKind::Holders,
        Kind::NodeKeys => v1::RecordKind::NodeKeys,
        Kind::Root => v1::RecordKind::Root,
        Kind::Gsn => v1::RecordKind::Gsn,
        Kind::Revocations => v1::RecordKind::Revocations,
        Kind::Opaque => v1::RecordKind::Opaque,
    }
}

/// # Errors
/// Not a kind that this version knows.
pub fn kind(field: &'static str, wire: i32) -> Result<Kind, WireError> {
    let wire = v1::RecordKind::try_from(wire).unwrap_or(v1::RecordKind::Unspecified);
    let known = Kind::ALL.iter().find(|kind| kind_to_wire(**kind) == wire);
    known.copied().ok_or(WireError::UnknownKind(field))
}

pub(crate) fn key(field: &'static str, bytes: &Bytes) -> Result<Key, WireError> {
    Key::try_from(&bytes[..]).map_err(|error| WireError::invalid(field, error))
}
