//! Messages of a session to bytes and back. What the master and a node say to each other passes through in its
//! protobuf form: an LSN forwards it and has no opinion.

use bytes::Bytes;
use muster_overlay::message::{Accepted, Join, Knock, Message, Part, Ping, Pong};
use muster_proto::control::v1::{Downstream, Upstream};
use muster_proto::overlay::v1::{self, join_answer::Verdict, session_message::Body};
use muster_proto::relay::v1::{CarryRequest, CarryResponse};
use muster_proto::trust::v1::TrustBundle;
use muster_types::{Timestamp, limits};
use prost::Message as _;

use crate::error::WireError;
use crate::field;
use crate::frame;
use crate::hello::Hello;
use crate::letter::Word;
use crate::neighbors;
use crate::sealed;
use crate::signer::Signer;
use crate::verifier::Verifier;

/// Items of one [`Upstream`] (proto).
const UPSTREAM_ITEMS: usize = 256;

/// What a session message turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Received {
    Overlay(Message),
    /// From a child to the master.
    Upstream(Upstream),
    /// From the master to this node, or to nodes under it.
    Downstream(Downstream),
    /// To this node, as a relay.
    CarryRequest(CarryRequest),
    /// From a node that relays.
    CarryResponse(CarryResponse),
    /// For this node, or to be passed on.
    SendTo(Word),
}

/// # Errors
/// Too large, or it holds an unsealed claim or attach that is not the signer's own.
pub fn encode(message: &Message, signer: &Signer, now: Timestamp) -> Result<Bytes, WireError> {
    encode_body(body_to_wire(message, signer, now)?)
}

/// An acceptance that also brings the child the certificates it needs to verify others.
///
/// # Errors
/// As [`encode`].
pub fn encode_accepted(
    accepted: &Accepted,
    bundle: TrustBundle,
    signer: &Signer,
    now: Timestamp,
) -> Result<Bytes, WireError> {
    encode_body(accepted_to_wire(accepted, Some(bundle), signer, now)?)
}

/// # Errors
/// Too large.
pub fn encode_upstream(upstream: Upstream) -> Result<Bytes, WireError> {
    encode_body(Body::Upstream(upstream))
}

/// # Errors
/// Too large.
pub fn encode_downstream(downstream: Downstream) -> Result<Bytes, WireError> {
    encode_body(Body::Downstream(downstream))
}

/// # Errors
/// Too large.
pub fn encode_carry_request(request: CarryRequest) -> Result<Bytes, WireError> {
    encode_body(Body::CarryRequest(request))
}

/// # Errors
/// Too large.
pub fn encode_carry_response(response: CarryResponse) -> Result<Bytes, WireError> {
    encode_body(Body::CarryResponse(response))
}

/// # Errors
/// Too large.
pub fn encode_send_to(word: &Word) -> Result<Bytes, WireError> {
    encode_body(Body::SendTo(word.to_wire()))
}

fn encode_body(body: Body) -> Result<Bytes, WireError> {
    let message = v1::SessionMessage { body: Some(body) };
    frame::bounded(message.encoded_len())?;
    Ok(message.encode_to_vec().into())
}

/// The bundle in an acceptance, if it is one and has one: to be loaded before the message is decoded, since the
/// signers of what it holds may be new.
pub fn offered_bundle(message: &[u8]) -> Option<TrustBundle> {
    frame::bounded(message.len()).ok()?;
    match v1::SessionMessage::decode(message).ok()?.body? {
        Body::JoinAnswer(v1::JoinAnswer { verdict: Some(Verdict::Accepted(accepted)) }) => {
            accepted.trust_bundle
        }
        _ => None,
    }
}

/// What `peer`, who said this Hello, says now.
///
/// # Errors
/// Too large, malformed, not believed, or of a kind that this version does not know.
pub fn decode(bytes: &[u8], peer: &Hello, verifier: &Verifier<'_>) -> Result<Received, WireError> {
    frame::bounded(bytes.len())?;
    let message: v1::SessionMessage = field::parse("session message", bytes)?;
    let message = match message.body.ok_or(WireError::UnknownKind("session message"))? {
        Body::Hello(_) => return Err(WireError::invalid("session message", "a second hello")),
        Body::Join(wire) => Message::Join(join_from_wire(wire, peer, verifier)?),
        Body::JoinAnswer(wire) => answer_from_wire(wire, verifier)?,
        Body::Ping(wire) => Message::Ping(ping_from_wire(wire)?),
        Body::Pong(wire) => Message::Pong(pong_from_wire(&wire, verifier)?),
        Body::Part(wire) => Message::Part(part_from_wire(wire, verifier)?),
        Body::NeighborList(wire) => Message::NeighborList(neighbors::from_wire(wire)?),
        Body::Claim(wire) => Message::Claim(sealed::claim_from_wire(&wire, verifier)?),
        Body::UptimeContest(wire) => {
            let claim = field::required("uptime_contest.claim", wire.claim)?;
            Message::Claim(sealed::claim_from_wire(&claim, verifier)?)
        }
        Body::Upstream(wire) => return upstream(wire, peer).map(Received::Upstream),
        Body::Downstream(wire) => return downstream(wire).map(Received::Downstream),
        Body::CarryRequest(wire) => return Ok(Received::CarryRequest(wire)),
        Body::CarryResponse(wire) => return Ok(Received::CarryResponse(wire)),
        Body::Knock(wire) => Message::Knock(knock_from_wire(wire.word())?),
        Body::SendTo(wire) => return Word::from_wire(wire).map(Received::SendTo),
    };
    Ok(Received::Overlay(message))
}

/// A child speaks only for itself.
fn upstream(wire: Upstream, peer: &Hello) -> Result<Upstream, WireError> {
    field::at_most("upstream.items", &wire.items, UPSTREAM_ITEMS)?;
    let node = field::node("upstream.node_id", &wire.node_id)?;
    field::same_node("upstream.node_id", node, peer.node())?;
    Ok(wire)
}

fn downstream(wire: Downstream) -> Result<Downstream, WireError> {
    field::at_most("downstream.targets", &wire.targets, limits::CELL_NODES)?;
    for target in &wire.targets {
        field::node("downstream.targets", target)?;
    }
    Ok(wire)
}

fn body_to_wire(message: &Message, signer: &Signer, now: Timestamp) -> Result<Body, WireError> {
    Ok(match message {
        Message::Join(join) => Body::Join(v1::Join {
            contact: Some(field::contact_to_wire(&join.contact)),
            subnet_keys: field::keys_to_wire(&join.subnet_keys),
            uptime: signer.uptime.clone(),
            standing: Some(field::standing_to_wire(join.standing)),
            attach: Some(sealed::attach_to_wire(&join.attach, signer, now)?),
            brings: join.brings,
        }),
        Message::Accepted(accepted) => accepted_to_wire(accepted, None, signer, now)?,
        Message::Refused(part) => answer(Verdict::Refused(part_to_wire(part, signer, now)?)),
        Message::Ping(ping) => {
            Body::Ping(v1::Ping { sequence: ping.sequence, load_percent: ping.load_percent.into() })
        }
        Message::Pong(pong) => Body::Pong(v1::Pong {
            sequence: pong.sequence,
            lsn_claim: pong
                .lsn
                .as_ref()
                .map(|claim| sealed::claim_to_wire(claim, signer, now))
                .transpose()?,
            load_percent: pong.load_percent.into(),
            without_master: pong.without_master,
        }),
        Message::Part(part) => Body::Part(part_to_wire(part, signer, now)?),
        Message::NeighborList(list) => Body::NeighborList(neighbors::to_wire(list)),
        Message::Claim(claim) => Body::Claim(sealed::claim_to_wire(claim, signer, now)?),
        Message::Knock(word) => Body::Knock(v1::Knock { word: knock_to_wire(*word).into() }),
    })
}

fn answer(verdict: Verdict) -> Body {
    Body::JoinAnswer(v1::JoinAnswer { verdict: Some(verdict) })
}

fn accepted_to_wire(
    accepted: &Accepted,
    trust_bundle: Option<TrustBundle>,
    signer: &Signer,
    now: Timestamp,
) -> Result<Body, WireError> {
    Ok(answer(Verdict::Accepted(v1::JoinAccepted {
        neighbor_list: Some(neighbors::to_wire(&accepted.neighbors)),
        observed_address: accepted.observed.map(field::observed_to_wire),
        terms: Some(neighbors::terms_to_wire(accepted.terms)),
        claim: Some(sealed::claim_to_wire(&accepted.claim, signer, now)?),
        trust_bundle,
    })))
}

fn answer_from_wire(wire: v1::JoinAnswer, verifier: &Verifier<'_>) -> Result<Message, WireError> {
    match wire.verdict.ok_or(WireError::UnknownKind("join answer"))? {
        Verdict::Refused(part) => part_from_wire(part, verifier).map(Message::Refused),
        Verdict::Accepted(wire) => {
            let claim = field::required("join_answer.claim", wire.claim)?;
            Ok(Message::Accepted(Accepted {
                neighbors: neighbors::from_wire(field::required(
                    "join_answer.neighbor_list",
                    wire.neighbor_list,
                )?)?,
                claim: sealed::claim_from_wire(&claim, verifier)?,
                terms: neighbors::terms_from_wire(wire.terms)?,
                observed: field::observed("join_answer.observed_address", wire.observed_address.as_ref())?,
            }))
        }
    }
}

/// Version and boot nonce were said in the Hello; an attach of another run of the agent is not taken.
fn join_from_wire(wire: v1::Join, peer: &Hello, verifier: &Verifier<'_>) -> Result<Join, WireError> {
    let contact = field::contact("join.contact", wire.contact)?;
    field::same_node("join.contact", contact.node, peer.node())?;
    let sealed = field::required("join.attach", wire.attach)?;
    let signed = sealed::attach_from_wire(&sealed, &peer.ticket)?;
    if signed.boot_nonce != peer.boot_nonce {
        return Err(WireError::invalid("join.attach", "it was signed by another run of this node's agent"));
    }
    Ok(Join {
        contact,
        subnet_keys: field::keys("join.subnet_keys", &wire.subnet_keys)?,
        uptime: verifier.uptime("join.uptime", wire.uptime.as_ref(), peer.node())?,
        standing: field::standing(wire.standing),
        attach: signed.attach,
        version: peer.software,
        brings: wire.brings,
    })
}

fn ping_from_wire(wire: v1::Ping) -> Result<Ping, WireError> {
    let load_percent = field::percent("ping.load_percent", wire.load_percent)?;
    Ok(Ping { sequence: wire.sequence, load_percent })
}

fn pong_from_wire(wire: &v1::Pong, verifier: &Verifier<'_>) -> Result<Pong, WireError> {
    Ok(Pong {
        sequence: wire.sequence,
        load_percent: field::percent("pong.load_percent", wire.load_percent)?,
        lsn: wire.lsn_claim.as_ref().map(|claim| sealed::claim_from_wire(claim, verifier)).transpose()?,
        without_master: wire.without_master,
    })
}

fn knock_to_wire(word: Knock) -> v1::KnockWord {
    match word {
        Knock::Please => v1::KnockWord::Please,
        Knock::Answered => v1::KnockWord::Answered,
        Knock::Unanswered => v1::KnockWord::Unanswered,
    }
}

fn knock_from_wire(word: v1::KnockWord) -> Result<Knock, WireError> {
    match word {
        v1::KnockWord::Please => Ok(Knock::Please),
        v1::KnockWord::Answered => Ok(Knock::Answered),
        v1::KnockWord::Unanswered => Ok(Knock::Unanswered),
        v1::KnockWord::Unspecified => Err(WireError::UnknownKind("knock.word")),
    }
}

fn part_to_wire(part: &Part, signer: &Signer, now: Timestamp) -> Result<v1::Part, WireError> {
    let better = part.better.as_ref();
    Ok(v1::Part {
        code: part.code.0.into(),
        description: field::cut_text(&part.description),
        better_lsn: better.map(|claim| sealed::claim_to_wire(claim, signer, now)).transpose()?,
    })
}

fn part_from_wire(wire: v1::Part, verifier: &Verifier<'_>) -> Result<Part, WireError> {
    let better = wire.better_lsn.as_ref();
    Ok(Part {
        code: neighbors::part_code(wire.code)?,
        description: field::text("part.description", wire.description)?,
        better: better.map(|claim| sealed::claim_from_wire(claim, verifier)).transpose()?,
    })
}
