//! Believes records: the publisher's ticket leads to the root, its key fits the signature. What was believed once is known by
//! its hash.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use muster_overlay::dht::Record;
use muster_proto::overlay::v1;
use muster_proto::payload_type::RECORD;
use muster_proto::trust::v1::Envelope;
use muster_types::{Instant, NodeId, Timestamp};
use prost::Message;
use ring::digest::{SHA256, digest};

use super::value::Value;
use super::{LIFE_MAX, check_size, key, kind};
use crate::datagram::Peer;
use crate::envelope::{self, EnvelopeError};
use crate::error::WireError;
use crate::field;
use crate::ticket::{NodeTicket, TicketError};
use crate::time;
use crate::verifier::Verifier;

/// Records that are known to be good.
const KNOWN: usize = 4_096;

/// Publishers whose keys are known.
const PUBLISHERS: usize = 4_096;

/// How far a publisher's clock may be ahead of the master's.
const AHEAD: Duration = Duration::from_secs(300);

/// When something is read, by both clocks, and whom to believe.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    pub verifier: Verifier<'a>,
    pub now: Instant,
}

/// A record that is believed, and what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct Opened {
    pub record: Record,
    pub value: Value,
    /// By the master's clock.
    pub expires: Timestamp,
    /// The publisher's keys, if it sent them along.
    pub ticket: Option<NodeTicket>,
}

#[derive(Debug, Clone, Copy)]
struct Publisher {
    key: [u8; 32],
    until: Timestamp,
    /// Of the ticket that said so.
    hash: [u8; 32],
}

/// Remembers what was verified.
#[derive(Debug, Default)]
pub struct Reader {
    known: HashMap<[u8; 32], Record>,
    publishers: HashMap<NodeId, Publisher>,
}

impl Reader {
    /// A peer of a session showed its ticket: its records need none.
    pub fn meet(&mut self, peer: &Peer) {
        if !self.publishers.contains_key(&peer.node) {
            self.know(peer.node, Publisher { key: peer.signing_key, until: peer.not_after, hash: [0; 32] });
        }
    }

    /// Forgets whoever was revoked, and all that is known of it.
    pub fn forget(&mut self, whom: impl Fn(NodeId) -> bool) {
        self.publishers.retain(|node, _| !whom(*node));
        self.known.retain(|_, record| !whom(record.publisher));
    }

    /// The record in these bytes, if it is to be believed.
    ///
    /// # Errors
    /// Too large, malformed, expired, from the future, under a key where its publisher may not say this, or not signed by it.
    pub fn open(&mut self, bytes: &[u8], at: &Moment<'_>) -> Result<Record, WireError> {
        check_size(bytes.len())?;
        let hash = sha256(bytes);
        if let Some(known) = self.known.get(&hash).filter(|record| record.expires > at.now) {
            return Ok(known.clone());
        }
        let record = self.read(bytes, at)?.record;
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.insert(hash, record.clone());
        Ok(record)
    }

    /// The same, and what it says.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn read(&mut self, bytes: &[u8], at: &Moment<'_>) -> Result<Opened, WireError> {
        check_size(bytes.len())?;
        let sealed: Envelope = field::parse("record", bytes)?;
        // The payload names the ticket, the ticket the key: so it is read before it is believed.
        let wire: v1::Record = field::parse("record", &sealed.payload)?;
        let publisher = field::node("record.publisher_id", &wire.publisher_id)?;
        let (signing_key, ticket) = self.signing_key(publisher, wire.ticket.as_ref(), at)?;
        envelope::open_ed25519(&sealed, RECORD, &signing_key).map_err(not_believed)?;

        let value = Value::from_wire(field::required("record.value", wire.value)?)?;
        let (key, kind) = (key("record.key", &wire.key)?, kind("record.kind", wire.kind)?);
        if kind != value.kind() {
            return Err(WireError::invalid("record.kind", "it holds a value of another kind"));
        }
        value.check(key, publisher, at.verifier.trust.network())?;
        let date = field::required("record.expire_time", wire.expire_time.and_then(time::from_wire))?;
        let expires = expiry(wire.sequence, date, at)?;
        let bytes = Arc::from(bytes);
        let record = Record { key, kind, publisher, sequence: wire.sequence, expires, bytes };
        Ok(Opened { record, value, expires: date, ticket })
    }

    fn signing_key(
        &mut self,
        publisher: NodeId,
        ticket: Option<&Envelope>,
        at: &Moment<'_>,
    ) -> Result<([u8; 32], Option<NodeTicket>), WireError> {
        let Some(sealed) = ticket else {
            let known = self.publishers.get(&publisher).filter(|known| at.verifier.now <= known.until);
            let unknown = || not_believed(EnvelopeError::UnknownSigner(publisher.to_string()));
            return known.map(|known| (known.key, None)).ok_or_else(unknown);
        };
        let hash = sha256(&sealed.encode_to_vec());
        let refused = |source| WireError::Ticket { field: "record.ticket", source };
        if let Some(known) = self.publishers.get(&publisher)
            && known.hash == hash
            && at.verifier.now <= known.until
        {
            return Ok((known.key, NodeTicket::believed(sealed).ok()));
        }
        let ticket = NodeTicket::open(sealed, at.verifier.trust, at.verifier.now).map_err(refused)?;
        if ticket.node != publisher {
            return Err(refused(TicketError::Field("node_id")));
        }
        let key = ticket.signing_key;
        self.know(publisher, Publisher { key, until: ticket.not_after, hash });
        Ok((key, Some(ticket)))
    }

    fn know(&mut self, node: NodeId, publisher: Publisher) {
        if self.publishers.len() >= PUBLISHERS {
            self.publishers.clear();
        }
        self.publishers.insert(node, publisher);
    }
}

/// By this machine's clock. What is signed for longer than anybody may ends when it should have.
fn expiry(sequence: u64, expires: Timestamp, at: &Moment<'_>) -> Result<Instant, WireError> {
    let signed = Timestamp::from_micros(i64::try_from(sequence).unwrap_or(i64::MAX));
    let date = at.verifier.now;
    if signed > date + AHEAD {
        return Err(WireError::invalid("record.sequence", "it was signed in the future"));
    }
    let left = expires.min(signed + LIFE_MAX).as_micros() - date.as_micros();
    match u64::try_from(left) {
        Ok(left) if left > 0 => Ok(at.now + Duration::from_micros(left)),
        _ => Err(WireError::invalid("record.expire_time", "the record has expired")),
    }
}

fn not_believed(source: EnvelopeError) -> WireError {
    WireError::Envelope { field: "record", source }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}
