//! What a message takes on the wire, estimated as a sealed datagram would carry it.

use muster_overlay::dht::{Answer, Record, Request};

/// IPv4 and UDP.
const HEADERS: usize = 28;
/// Kind, receiver, counter and tag of a sealed datagram.
const SEAL: usize = 32;
/// Message kind, request number, version, flags.
const FRAME: usize = 12;
/// A contact of one address: id, address, port, static key's hash left out, protobuf's frame.
const CONTACT: usize = 36;
/// A key as a field.
const KEY: usize = 22;
const RECORD_FRAME: usize = 4;
/// What a datagram carries at most.
const DATAGRAM: usize = 1_200;
/// The first flight of a session is padded; its answer carries the handshake too.
pub(super) const FIRST_FLIGHT: usize = DATAGRAM + HEADERS;
pub(super) const HANDSHAKE: usize = 60;

pub(super) fn of_request(request: &Request) -> usize {
    let body = match request {
        Request::Ping | Request::Parting => 0,
        Request::FindNode { .. } => KEY,
        Request::FindValue { .. } | Request::Listen { .. } => KEY + 4,
        Request::Store { record, .. } | Request::Changed { record } => of_record(record),
        Request::Offer { digests } => digests.len() * 8,
    };
    HEADERS + SEAL + FRAME + body
}

pub(super) fn of_answer<C>(answer: &Answer<C>) -> usize {
    let body = match answer {
        Answer::Pong { .. } | Answer::Stored | Answer::Listening { .. } | Answer::Refused(_) => 4,
        Answer::Nodes { closest } => closest.len() * CONTACT,
        Answer::Value { records, closest } => {
            records.iter().map(of_record).sum::<usize>() + closest.len() * CONTACT
        }
        Answer::Wanted { digests } => digests.len() * 8,
    };
    HEADERS + (SEAL + FRAME + body).min(DATAGRAM)
}

fn of_record(record: &Record) -> usize {
    RECORD_FRAME + record.bytes.len()
}
