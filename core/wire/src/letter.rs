//! Letters from node to node and their receipts: signed by whom they are of, with its ticket, the content sealed to the
//! recipient. And [`Word`], in which they and calls travel: whoever passes one on verifies whose it is, and reads no more.

use std::time::Duration;

use bytes::Bytes;
use muster_overlay::post::{HOPS, Header};
use muster_proto::control::v1::{SendTo, send_to::Body};
use muster_proto::overlay::v1;
use muster_proto::payload_type::{CALL, LETTER, LETTER_RECEIPT};
use muster_proto::trust::v1::Envelope;
use muster_types::{LetterId, NodeId, Timestamp, limits};
use prost::Message;

use crate::call::CALL_BYTES;
use crate::envelope::open_ed25519;
use crate::error::WireError;
use crate::field;
use crate::sealing::{self, KEY_BYTES, LETTERS, SealingKey};
use crate::signer::Signer;
use crate::ticket::NodeTicket;
use crate::time::{from_wire, to_wire};
use crate::verifier::Verifier;

/// A letter of the largest size with its seal, signature and ticket.
const SEALED_BYTES: usize = limits::LETTER_BYTES + 4 * 1024;
/// A receipt with its ticket.
const RECEIPT_BYTES: usize = 4 * 1024;

/// All of a word, with what is read on its way.
pub const WORD_BYTES: usize = SEALED_BYTES + 128;

/// Clocks may differ by so much.
const AHEAD: Duration = Duration::from_secs(300);

/// What one node writes to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    pub id: LetterId,
    pub to: NodeId,
    pub sent: Timestamp,
    pub expires: Timestamp,
    /// At most [`limits::LETTER_BYTES`].
    pub content: Bytes,
}

/// One of the three that a word can be; each proves itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Letter(Envelope),
    Receipt(Envelope),
    Call(Envelope),
}

/// What is passed on.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    pub to: NodeId,
    pub lsn: Option<NodeId>,
    pub hops: u8,
    pub content: Content,
}

impl Letter {
    /// Signs it as this node's and seals its content to the recipient's key.
    ///
    /// # Errors
    /// Too large, or the key is none.
    pub fn seal(&self, signer: &Signer, key: &[u8; KEY_BYTES]) -> Result<Envelope, WireError> {
        within("a letter", self.content.len(), limits::LETTER_BYTES)?;
        let place = place(self.id, signer.node, self.to);
        let sealed = sealing::seal(key, LETTERS, &place, &self.content);
        let wire = v1::Letter {
            network_id: field::to_bytes(signer.network.as_bytes()),
            from_id: field::to_bytes(signer.node.as_bytes()),
            to_id: field::to_bytes(self.to.as_bytes()),
            letter_id: field::to_bytes(self.id.as_bytes()),
            send_time: Some(to_wire(self.sent)),
            expire_time: Some(to_wire(self.expires)),
            ticket: Some(signer.ticket.clone()),
            sealed: Some(sealed.map_err(|error| WireError::invalid("letter.sealed", error))?),
        };
        Ok(signer.sign(LETTER, wire.encode_to_vec().into()))
    }

    /// Opens a letter to `own`, whose sealing key this is; tells whose it is.
    ///
    /// # Errors
    /// Not to this node, run out, for longer than a letter may live, not signed by whom its ticket names, or sealed to another
    /// key.
    pub fn open(
        sealed: &Envelope,
        own: NodeId,
        key: &SealingKey,
        verifier: &Verifier<'_>,
    ) -> Result<(NodeId, Self), WireError> {
        within("a letter", sealed.encoded_len(), SEALED_BYTES)?;
        let wire: v1::Letter = field::parse("letter", &sealed.payload)?;
        let from = signed_by(sealed, LETTER, &wire.from_id, wire.ticket.as_ref(), verifier)?;
        field::own_network("letter.network_id", &wire.network_id, verifier.trust.network())?;
        field::same_node("letter.to_id", field::node("letter.to_id", &wire.to_id)?, own)?;
        let id = letter_id("letter.letter_id", &wire.letter_id)?;
        let sent = field::required("letter.send_time", wire.send_time.and_then(from_wire))?;
        let expires = field::required("letter.expire_time", wire.expire_time.and_then(from_wire))?;
        if expires <= verifier.now {
            return Err(WireError::invalid("letter.expire_time", "its time is over"));
        }
        if sent > verifier.now + AHEAD || expires.since(sent) > limits::LETTER_LIFETIME {
            return Err(WireError::invalid("letter.expire_time", "it is for longer than a letter may live"));
        }
        let content = field::required("letter.sealed", wire.sealed)?;
        let opened = key.open(LETTERS, &place(id, from, own), &content);
        let content = opened.map_err(|error| WireError::invalid("letter.sealed", error))?;
        within("a letter", content.len(), limits::LETTER_BYTES)?;
        Ok((from, Self { id, to: own, sent, expires, content }))
    }
}

/// This node's word to `to` that it has the letter, durably.
pub fn receipt(id: LetterId, to: NodeId, signer: &Signer) -> Envelope {
    let wire = v1::LetterReceipt {
        network_id: field::to_bytes(signer.network.as_bytes()),
        from_id: field::to_bytes(signer.node.as_bytes()),
        to_id: field::to_bytes(to.as_bytes()),
        letter_id: field::to_bytes(id.as_bytes()),
        ticket: Some(signer.ticket.clone()),
    };
    signer.sign(LETTER_RECEIPT, wire.encode_to_vec().into())
}

/// Who has which of `own`'s letters.
///
/// # Errors
/// To another node, or not signed by whom its ticket names.
pub fn open_receipt(
    sealed: &Envelope,
    own: NodeId,
    verifier: &Verifier<'_>,
) -> Result<(NodeId, LetterId), WireError> {
    within("a receipt", sealed.encoded_len(), RECEIPT_BYTES)?;
    let wire: v1::LetterReceipt = field::parse("letter receipt", &sealed.payload)?;
    let from = signed_by(sealed, LETTER_RECEIPT, &wire.from_id, wire.ticket.as_ref(), verifier)?;
    field::own_network("letter_receipt.network_id", &wire.network_id, verifier.trust.network())?;
    field::same_node("letter_receipt.to_id", field::node("letter_receipt.to_id", &wire.to_id)?, own)?;
    Ok((from, letter_id("letter_receipt.letter_id", &wire.letter_id)?))
}

impl Word {
    /// One that begins its way here.
    pub fn new(to: NodeId, content: Content) -> Self {
        Self { to, lsn: None, hops: HOPS, content }
    }

    pub fn to_wire(&self) -> SendTo {
        let lsn_id = self.lsn.map(|lsn| field::to_bytes(lsn.as_bytes())).unwrap_or_default();
        let body = match self.content.clone() {
            Content::Letter(sealed) => Body::Letter(sealed),
            Content::Receipt(sealed) => Body::Receipt(sealed),
            Content::Call(sealed) => Body::Call(sealed),
        };
        let to_id = field::to_bytes(self.to.as_bytes());
        SendTo { to_id, hops: self.hops.into(), lsn_id, body: Some(body) }
    }

    /// # Errors
    /// Malformed, or larger than what it holds may be.
    pub fn from_wire(wire: SendTo) -> Result<Self, WireError> {
        let content = match field::required("send_to.body", wire.body)? {
            Body::Letter(sealed) => bounded("a letter", sealed, SEALED_BYTES).map(Content::Letter),
            Body::Receipt(sealed) => bounded("a receipt", sealed, RECEIPT_BYTES).map(Content::Receipt),
            Body::Call(sealed) => bounded("a call", sealed, CALL_BYTES).map(Content::Call),
        };
        let hops = u8::try_from(wire.hops).unwrap_or(HOPS).min(HOPS);
        let lsn = field::optional_node("send_to.lsn_id", &wire.lsn_id)?;
        Ok(Self { to: field::node("send_to.to_id", &wire.to_id)?, lsn, hops, content: content? })
    }

    /// With its signature.
    pub fn bytes(&self) -> usize {
        let (Content::Letter(sealed) | Content::Receipt(sealed) | Content::Call(sealed)) = &self.content;
        sealed.encoded_len()
    }

    /// What decides about its way. Whose it is has been verified: only what a node of this network signed is passed on.
    ///
    /// # Errors
    /// Not signed by whom its ticket names, of another network, or to somebody else than the word says.
    pub fn header(&self, verifier: &Verifier<'_>) -> Result<Header, WireError> {
        let (sealed, kind) = match &self.content {
            Content::Letter(sealed) => (sealed, LETTER),
            Content::Receipt(sealed) => (sealed, LETTER_RECEIPT),
            Content::Call(sealed) => (sealed, CALL),
        };
        let signed = match &self.content {
            Content::Letter(_) => {
                let wire: v1::Letter = field::parse("letter", &sealed.payload)?;
                (wire.network_id, wire.from_id, wire.to_id, wire.ticket)
            }
            Content::Receipt(_) => {
                let wire: v1::LetterReceipt = field::parse("letter receipt", &sealed.payload)?;
                (wire.network_id, wire.from_id, wire.to_id, wire.ticket)
            }
            Content::Call(_) => {
                let wire: v1::Call = field::parse("call", &sealed.payload)?;
                (wire.network_id, wire.from_id, wire.to_id, wire.ticket)
            }
        };
        let (network, from, to, ticket) = signed;
        field::own_network("send_to.network_id", &network, verifier.trust.network())?;
        field::same_node("send_to.to_id", field::node("send_to.to_id", &to)?, self.to)?;
        let from = signed_by(sealed, kind, &from, ticket.as_ref(), verifier)?;
        Ok(Header { from, to: self.to, lsn: self.lsn, hops: self.hops })
    }
}

/// Whose ticket it carries, by whose key it is signed.
fn signed_by(
    sealed: &Envelope,
    kind: &'static str,
    from: &[u8],
    ticket: Option<&Envelope>,
    verifier: &Verifier<'_>,
) -> Result<NodeId, WireError> {
    let from = field::node("send_to.from_id", from)?;
    let ticket = field::required("send_to.ticket", ticket)?;
    let ticket = NodeTicket::open(ticket, verifier.trust, verifier.now)
        .map_err(|source| WireError::Ticket { field: "send_to.ticket", source })?;
    field::same_node("send_to.from_id", from, ticket.node)?;
    open_ed25519(sealed, kind, &ticket.signing_key)
        .map_err(|source| WireError::Envelope { field: "send_to", source })?;
    Ok(from)
}

fn letter_id(field: &'static str, bytes: &[u8]) -> Result<LetterId, WireError> {
    LetterId::try_from(bytes).map_err(|error| WireError::invalid(field, error))
}

/// What was sealed for one letter of one node to another opens in no other.
fn place(id: LetterId, from: NodeId, to: NodeId) -> Vec<u8> {
    [id.as_bytes(), from.as_bytes(), to.as_bytes()].concat()
}

fn within(what: &'static str, actual: usize, limit: usize) -> Result<(), WireError> {
    if actual <= limit { Ok(()) } else { Err(WireError::TooLarge { what, actual, limit }) }
}

fn bounded(what: &'static str, sealed: Envelope, limit: usize) -> Result<Envelope, WireError> {
    within(what, sealed.encoded_len(), limit).map(|()| sealed)
}
