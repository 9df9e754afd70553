//! The hash table's requests and answers to bytes and back: each fits one sealed datagram. Contacts are packed by hand, so
//! that as many of twenty as possible fit.

mod contact;

use std::time::Duration;

use bytes::Bytes;
use muster_overlay::dht::{Answer, OFFERED, Record, Refusal, Request, SET, Service};
use muster_proto::overlay::v1::{self, dht_answer, dht_request};
use muster_types::NodeId;
use prost::Message;

use crate::datagram::PeerAddress;
use crate::error::WireError;
use crate::field;
use crate::record::{key, kind, kind_to_wire};

/// Longer leases are not asked for.
const LEASE_SECONDS: u32 = 24 * 3600;

/// Reads records of others: see [`Reader`](crate::record::Reader).
pub type ReadRecord<'a> = &'a mut dyn FnMut(&[u8]) -> Result<Record, WireError>;

pub fn encode_request(request: &Request, service: Service) -> Bytes {
    let bytes = |record: &Record| Bytes::copy_from_slice(&record.bytes);
    // What it is does not matter, only that it is there.
    const NONCE: u64 = u64::MAX;
    let body = match request {
        Request::Ping => dht_request::Body::Ping(v1::DhtPing { nonce: NONCE }),
        Request::FindNode { target } => {
            dht_request::Body::FindNode(v1::DhtFindNode { target: field::to_bytes(target.as_bytes()) })
        }
        Request::FindValue { key, kind } => dht_request::Body::FindValue(v1::DhtFindValue {
            key: field::to_bytes(key.as_bytes()),
            kind: kind_to_wire(*kind).into(),
        }),
        Request::Store { record, cached } => {
            dht_request::Body::Store(v1::DhtStore { record: bytes(record), cached: *cached })
        }
        Request::Offer { digests } => {
            let digests = digests.iter().copied().take(OFFERED).collect();
            dht_request::Body::Offer(v1::DhtOffer { digests })
        }
        Request::Listen { key, kind, lease } => dht_request::Body::Listen(v1::DhtListen {
            key: field::to_bytes(key.as_bytes()),
            kind: kind_to_wire(*kind).into(),
            lease_seconds: seconds(*lease),
        }),
        Request::Changed { record } => dht_request::Body::Changed(v1::DhtChanged { record: bytes(record) }),
        Request::Parting => dht_request::Body::Parting(v1::DhtParting { nonce: NONCE }),
    };
    let wire = v1::DhtRequest { service: service_to_wire(service).into(), body: Some(body) };
    wire.encode_to_vec().into()
}

/// # Errors
/// No request of this version, or with a record that is not believed.
pub fn decode_request(bytes: &[u8], read: ReadRecord<'_>) -> Result<(Service, Request), WireError> {
    let wire: v1::DhtRequest = field::parse("request", bytes)?;
    let request = match wire.body.ok_or(WireError::UnknownKind("request"))? {
        dht_request::Body::Ping(_) => Request::Ping,
        dht_request::Body::FindNode(find) => {
            Request::FindNode { target: key("find_node.target", &find.target)? }
        }
        dht_request::Body::FindValue(find) => Request::FindValue {
            key: key("find_value.key", &find.key)?,
            kind: kind("find_value.kind", find.kind)?,
        },
        dht_request::Body::Store(store) => {
            Request::Store { record: read(&store.record)?, cached: store.cached }
        }
        dht_request::Body::Offer(offer) => {
            field::at_most("offer.digests", &offer.digests, OFFERED)?;
            Request::Offer { digests: offer.digests }
        }
        dht_request::Body::Listen(listen) => Request::Listen {
            key: key("listen.key", &listen.key)?,
            kind: kind("listen.kind", listen.kind)?,
            lease: lease(listen.lease_seconds),
        },
        dht_request::Body::Changed(changed) => Request::Changed { record: read(&changed.record)? },
        dht_request::Body::Parting(_) => Request::Parting,
    };
    Ok((service(wire.service)?, request))
}

/// An answer of at most `room` bytes: what does not fit is left out from the end of its lists. `locate` knows where a
/// contact is; who cannot be reached by everybody is left out too.
pub fn encode_answer(
    answer: &Answer<NodeId>,
    service: Service,
    room: usize,
    locate: impl Fn(NodeId) -> Option<PeerAddress>,
) -> Bytes {
    let pack = |closest: &[NodeId]| {
        closest.iter().filter_map(|node| locate(*node)).map(|at| contact::pack(&at)).collect()
    };
    let body = match answer {
        Answer::Pong { offices } => dht_answer::Body::Pong(v1::DhtPong { offices: *offices }),
        Answer::Nodes { closest } => dht_answer::Body::Nodes(v1::DhtNodes { closest: pack(closest) }),
        Answer::Value { records, closest } => dht_answer::Body::Value(v1::DhtValue {
            records: records.iter().map(|record| Bytes::copy_from_slice(&record.bytes)).collect(),
            closest: pack(closest),
        }),
        Answer::Stored => dht_answer::Body::Stored(v1::DhtStored {}),
        Answer::Wanted { digests } => dht_answer::Body::Wanted(v1::DhtWanted { digests: digests.clone() }),
        Answer::Listening { lease } => {
            dht_answer::Body::Listening(v1::DhtListening { lease_seconds: seconds(*lease) })
        }
        Answer::Refused(refusal) => {
            dht_answer::Body::Refused(v1::DhtRefusal { reason: refusal_to_wire(*refusal).into() })
        }
    };
    let mut wire = v1::DhtAnswer { service: service_to_wire(service).into(), body: Some(body) };
    while wire.encoded_len() > room && cut(&mut wire) {}
    wire.encode_to_vec().into()
}

/// Leaves out what matters least. `false`: nothing can be left out any more.
fn cut(wire: &mut v1::DhtAnswer) -> bool {
    match &mut wire.body {
        Some(dht_answer::Body::Nodes(nodes)) => nodes.closest.pop().is_some(),
        Some(dht_answer::Body::Value(value)) => {
            value.closest.pop().is_some() || (value.records.len() > 1 && value.records.pop().is_some())
        }
        Some(dht_answer::Body::Wanted(wanted)) => wanted.digests.pop().is_some(),
        _ => false,
    }
}

/// Records that are not believed are left out; `learn` is told of each contact.
///
/// # Errors
/// No answer of this version.
pub fn decode_answer(
    bytes: &[u8],
    read: ReadRecord<'_>,
    mut learn: impl FnMut(PeerAddress),
) -> Result<(Service, Answer<NodeId>), WireError> {
    let wire: v1::DhtAnswer = field::parse("answer", bytes)?;
    let mut unpack = |packed: &[Bytes]| -> Result<Vec<NodeId>, WireError> {
        field::at_most("answer.closest", packed, muster_overlay::dht::CONTACTS)?;
        let unpacked = packed.iter().map(|bytes| contact::unpack(bytes));
        unpacked.map(|address| address.map(|address| (learn(address), address.node).1)).collect()
    };
    let answer = match wire.body.ok_or(WireError::UnknownKind("answer"))? {
        dht_answer::Body::Pong(pong) => Answer::Pong { offices: pong.offices },
        dht_answer::Body::Nodes(nodes) => Answer::Nodes { closest: unpack(&nodes.closest)? },
        dht_answer::Body::Value(value) => {
            field::at_most("answer.records", &value.records, SET)?;
            let records = value.records.iter().filter_map(|bytes| read(bytes).ok()).collect();
            Answer::Value { records, closest: unpack(&value.closest)? }
        }
        dht_answer::Body::Stored(_) => Answer::Stored,
        dht_answer::Body::Wanted(wanted) => {
            field::at_most("answer.digests", &wanted.digests, OFFERED)?;
            Answer::Wanted { digests: wanted.digests }
        }
        dht_answer::Body::Listening(listening) => Answer::Listening { lease: lease(listening.lease_seconds) },
        dht_answer::Body::Refused(refused) => Answer::Refused(refusal(refused.reason)?),
    };
    Ok((service(wire.service)?, answer))
}

fn seconds(span: Duration) -> u32 {
    u32::try_from(span.as_secs()).unwrap_or(u32::MAX)
}

fn lease(seconds: u32) -> Duration {
    Duration::from_secs(seconds.min(LEASE_SECONDS).into())
}

pub(crate) fn service_to_wire(service: Service) -> v1::DhtService {
    match service {
        Service::Client => v1::DhtService::Client,
        Service::Volunteer => v1::DhtService::Volunteer,
        Service::Office => v1::DhtService::Office,
    }
}

fn service(wire: i32) -> Result<Service, WireError> {
    match v1::DhtService::try_from(wire) {
        Ok(v1::DhtService::Client) => Ok(Service::Client),
        Ok(v1::DhtService::Volunteer) => Ok(Service::Volunteer),
        Ok(v1::DhtService::Office) => Ok(Service::Office),
        Ok(v1::DhtService::Unspecified) | Err(_) => Err(WireError::UnknownKind("service")),
    }
}

fn refusal_to_wire(refusal: Refusal) -> v1::DhtRefusalReason {
    match refusal {
        Refusal::NotServing => v1::DhtRefusalReason::NotServing,
        Refusal::TooLarge => v1::DhtRefusalReason::TooLarge,
        Refusal::Expired => v1::DhtRefusalReason::Expired,
        Refusal::Older => v1::DhtRefusalReason::Older,
        Refusal::Full => v1::DhtRefusalReason::Full,
    }
}

fn refusal(wire: i32) -> Result<Refusal, WireError> {
    match v1::DhtRefusalReason::try_from(wire) {
        Ok(v1::DhtRefusalReason::NotServing) => Ok(Refusal::NotServing),
        Ok(v1::DhtRefusalReason::TooLarge) => Ok(Refusal::TooLarge),
        Ok(v1::DhtRefusalReason::Expired) => Ok(Refusal::Expired),
        Ok(v1::DhtRefusalReason::Older) => Ok(Refusal::Older),
        Ok(v1::DhtRefusalReason::Full) => Ok(Refusal::Full),
        Ok(v1::DhtRefusalReason::Unspecified) | Err(_) => Err(WireError::UnknownKind("refusal")),
    }
}
