//! What messages weigh on the wire, estimated: IPv4 and UDP headers (28 bytes), a QUIC short header with an 8-byte
//! connection id and 2-byte packet number (11), its tag (16), and the protobuf inside.

use muster_overlay::message::{Discovery, Message, NeighborList};

/// Headers and tag around one QUIC packet.
pub(crate) const PACKET: usize = 28 + 11 + 16;
/// An acknowledgement in a packet of its own; each message is counted with one, though QUIC often merges them.
pub(crate) const ACK: usize = PACKET + 6;
/// A beat in a datagram frame.
pub(crate) const BEAT: usize = PACKET + 3 + 24;
/// A mutual TLS 1.3 handshake with P-256 chains of two, all flights, the first padded to 1,200 bytes.
pub(crate) const HANDSHAKE: [usize; 3] = [1_260, 3_400, 2_400];
/// A claim: node ticket, uptime ticket, two envelopes with signatures and key ids.
const CLAIM: usize = 950;
/// A signed increment of the list of revocations: an entry for each of three hundred certificates, in two packets' worth each.
pub(crate) const REVOCATIONS: usize = 300 * 90;
/// A signed attach.
const ATTACH: usize = 190;
/// An uptime ticket in its envelope.
const UPTIME: usize = 240;
/// A node in a neighbor list: id, one or two addresses, uptime, standing.
const NEIGHBOR: usize = 58;

/// A STUN request or answer.
pub(crate) const KNOCK: usize = 28 + 44;

/// An LSN shows its claim on the LAN.
pub(crate) const CLAIM_DATAGRAM: usize = 28 + 18 + CLAIM;

pub(crate) fn discovery(discovery: &Discovery) -> usize {
    28 + 18
        + match discovery {
            Discovery::Query(query) => 34 + 22 * query.subnet_keys.len(),
            Discovery::Claim(_) => CLAIM,
        }
}

pub(crate) fn message(message: &Message) -> usize {
    let list = |list: &NeighborList| 8 + NEIGHBOR * list.neighbors.len();
    let body = match message {
        Message::Join(_) => 80 + ATTACH + UPTIME,
        Message::Accepted(accepted) => 40 + CLAIM + list(&accepted.neighbors),
        Message::Refused(part) | Message::Part(part) => {
            12 + part.description.len() + part.better.as_ref().map_or(0, |_| CLAIM)
        }
        Message::Ping(_) => 8,
        Message::Pong(pong) => 8 + pong.lsn.as_ref().map_or(0, |_| CLAIM),
        Message::NeighborList(neighbors) => list(neighbors),
        Message::Claim(_) => CLAIM,
        Message::Knock(_) => 2,
    };
    // Stream frame header, and further packets beyond 1,200 bytes.
    body + 6 + PACKET * body.div_ceil(1_150).max(1)
}

/// Name and number of a message's kind, for the table of traffic.
pub(crate) fn kind(message: &Message) -> &'static str {
    match message {
        Message::Join(_) => "join",
        Message::Accepted(_) => "accepted",
        Message::Refused(_) => "refused",
        Message::Ping(_) => "ping",
        Message::Pong(_) => "pong",
        Message::Part(_) => "part",
        Message::NeighborList(_) => "neighbor list",
        Message::Claim(_) => "claim",
        Message::Knock(_) => "knock",
    }
}
