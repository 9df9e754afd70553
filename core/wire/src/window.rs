//! The hash table for people: its values as messages of `muster.dht.v1`, as both the master and an agent show them.

use std::net::SocketAddr;

use bytes::Bytes;
use muster_overlay::dht::{Effort, Kept, Stats};
use muster_proto::dht::v1 as dht;
use muster_types::{NodeId, Timestamp};

use crate::datagram::{Counts, PeerAddress};
use crate::dht::service_to_wire;
use crate::error::WireError;
use crate::field;
use crate::record::{Opened, Value};
use crate::time::{span_to_wire, to_wire};

fn bytes(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub fn contact(address: &PeerAddress) -> dht::DhtContact {
    dht::DhtContact {
        node_id: bytes(address.node.as_bytes()),
        noise_key: bytes(&address.key),
        address: Some(field::observed_to_wire(address.at)),
    }
}

/// # Errors
/// A field is missing or malformed.
pub fn contact_from_wire(wire: &dht::DhtContact) -> Result<PeerAddress, WireError> {
    let node = field::node("contact.node_id", &wire.node_id)?;
    let key = <[u8; 32]>::try_from(&wire.noise_key[..])
        .map_err(|_| WireError::invalid("contact.noise_key", "it has not 32 bytes"))?;
    let at: Option<SocketAddr> = field::observed("contact.address", wire.address.as_ref())?;
    Ok(PeerAddress { node, key, at: field::required("contact.address", at)? })
}

pub fn effort(effort: &Effort) -> dht::Effort {
    let Effort { hops, asked, answered, lasted } = *effort;
    dht::Effort { hops, asked, answered, duration: Some(span_to_wire(lasted)) }
}

pub fn found(opened: &Opened) -> dht::FoundRecord {
    let record = &opened.record;
    let signed = Timestamp::from_micros(i64::try_from(record.sequence).unwrap_or(i64::MAX));
    let value = match &opened.value {
        Value::Opaque(value) => value.clone(),
        _ => Bytes::new(),
    };
    dht::FoundRecord {
        envelope: bytes(&record.bytes),
        publisher_id: bytes(record.publisher.as_bytes()),
        publish_time: Some(to_wire(signed)),
        expire_time: Some(to_wire(opened.expires)),
        value,
        description: describe(&opened.value),
    }
}

fn describe(value: &Value) -> String {
    let at = |contact: &muster_types::Contact| {
        let addresses =
            contact.addresses.iter().filter_map(|address| address.udp().or_else(|| address.tcp()));
        let addresses: Vec<_> = addresses.map(|address| address.to_string()).collect();
        format!("nodes/{} at {}", contact.node, addresses.join(", "))
    };
    match value {
        Value::Contact(contact, _) => at(contact),
        Value::Subnet { subnet, lsn, epoch, .. } => format!("{subnet}: LSN {}, epoch {epoch}", at(lsn)),
        Value::Holder { holder, .. } => format!("held by {}", at(holder)),
        Value::NodeKeys => "the node's ticket with its public keys".to_owned(),
        Value::Root(certificate) => format!("a root certificate of {} bytes", certificate.len()),
        Value::Gsn { contact, reliability_basis_points } => {
            format!(
                "{}, reliable {}.{:02} %",
                at(contact),
                reliability_basis_points / 100,
                reliability_basis_points % 100
            )
        }
        Value::Revocations(_) => "the master's list of revocations".to_owned(),
        Value::Opaque(value) => format!("{} bytes", value.len()),
    }
}

pub fn kept(kept: &Kept<NodeId>, effort: &Effort) -> dht::PutRecordResponse {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| bytes(node.as_bytes())).collect();
    dht::PutRecordResponse {
        holder_ids: ids(&kept.holders),
        silent_ids: ids(&kept.silent),
        refused_ids: kept.refused.iter().map(|(node, _)| bytes(node.as_bytes())).collect(),
        by_bootstrap: kept.by_this_node,
        effort: Some(self::effort(effort)),
    }
}

/// `address`: where the node is, if it serves others.
pub fn stats(
    address: Option<&PeerAddress>,
    (stats, counts, sessions): &(Stats, Counts, usize),
) -> dht::NodeStats {
    dht::NodeStats {
        contact: address.map(contact),
        service: service_to_wire(stats.service).into(),
        contacts: number(stats.contacts),
        away: number(stats.away),
        estimated_servers: stats.servers,
        records: number(stats.records),
        record_bytes: stats.record_bytes as u64,
        sessions: number(*sessions),
        handshakes: counts.handshakes_begun + counts.handshakes_answered,
        dropped_datagrams: counts.dropped,
    }
}
