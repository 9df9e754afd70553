//! A call: one node tells another that it wants to talk, and where it may be found. Whoever passes it on can neither change
//! nor invent it, nor read where the caller is if the caller knows the other's sealing key.

use std::time::Duration;

use muster_overlay::meeting::{Candidate, Kind, Ports, Whereabouts};
use muster_proto::overlay::v1::{self, PortChoice};
use muster_proto::payload_type::CALL;
use muster_proto::trust::v1::Envelope;
use muster_types::{NodeId, Timestamp, limits};
use prost::Message;

use crate::envelope::open_ed25519;
use crate::error::WireError;
use crate::field;
use crate::sealing::{self, CALLS, KEY_BYTES, SealingKey};
use crate::signer::Signer;
use crate::ticket::NodeTicket;
use crate::time::{from_wire, to_wire};
use crate::verifier::Verifier;

/// Sealed, with its ticket.
pub const CALL_BYTES: usize = 4 * 1024;

/// Relays that one call names.
pub const RELAYS: usize = 4;

/// A call that took longer to arrive, or whose sender's clock is further off, is not answered: translators have forgotten
/// by then.
const LIFETIME: Duration = Duration::from_secs(60);

/// What one node says to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub to: NodeId,
    pub meeting: u64,
    pub answer: bool,
    pub whereabouts: Whereabouts,
    /// By name, as the registry lists them: at which the sender sits, or will.
    pub relays: Vec<String>,
}

/// A call that came, from whom its signature says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    pub from: NodeId,
    pub noise_key: [u8; KEY_BYTES],
    /// For the answer.
    pub sealing_key: [u8; KEY_BYTES],
    pub call: Call,
}

impl Call {
    /// Signs it as this node's; with the called node's key, only that one can read where this node is.
    pub fn seal(&self, signer: &Signer, to: Option<&[u8; KEY_BYTES]>, now: Timestamp) -> Envelope {
        let body = self.body();
        let place = place(self.meeting, signer.node, self.to);
        let sealed = to.and_then(|key| sealing::seal(key, CALLS, &place, &body.encode_to_vec()).ok());
        let open = if sealed.is_some() { v1::CallBody::default() } else { body };
        let wire = v1::Call {
            network_id: field::to_bytes(signer.network.as_bytes()),
            from_id: field::to_bytes(signer.node.as_bytes()),
            to_id: field::to_bytes(self.to.as_bytes()),
            meeting: self.meeting,
            answer: self.answer,
            candidates: open.candidates,
            ports: open.ports,
            port_step: open.port_step,
            ticket: Some(signer.ticket.clone()),
            call_time: Some(to_wire(now)),
            relays: open.relays,
            sealed,
        };
        signer.sign(CALL, wire.encode_to_vec().into())
    }

    fn body(&self) -> v1::CallBody {
        let (ports, step) = match self.whereabouts.ports {
            Ports::Unknown => (PortChoice::Unspecified, 0),
            Ports::Kept => (PortChoice::Kept, 0),
            Ports::Counted(step) => (PortChoice::Counted, step),
            Ports::Drawn => (PortChoice::Drawn, 0),
        };
        let candidates = self.whereabouts.candidates.iter().take(limits::ADDRESSES);
        v1::CallBody {
            candidates: candidates.map(candidate_to_wire).collect(),
            ports: ports.into(),
            port_step: step.into(),
            relays: self.relays.iter().take(RELAYS).cloned().collect(),
        }
    }
}

impl Called {
    /// Opens a call to `own`, whose sealing key this is.
    ///
    /// # Errors
    /// Too large, of another network, to another node, of this very one, too old, not signed by whom its ticket names, or
    /// sealed to another key.
    pub fn open(
        sealed: &Envelope,
        own: NodeId,
        key: &SealingKey,
        verifier: &Verifier<'_>,
    ) -> Result<Self, WireError> {
        let actual = sealed.encoded_len();
        if actual > CALL_BYTES {
            return Err(WireError::TooLarge { what: "a call", actual, limit: CALL_BYTES });
        }
        let wire: v1::Call = field::parse("call", &sealed.payload)?;
        field::own_network("call.network_id", &wire.network_id, verifier.trust.network())?;
        field::same_node("call.to_id", field::node("call.to_id", &wire.to_id)?, own)?;
        let ticket = field::required("call.ticket", wire.ticket.as_ref())?;
        let ticket = NodeTicket::open(ticket, verifier.trust, verifier.now)
            .map_err(|source| WireError::Ticket { field: "call.ticket", source })?;
        let from = field::node("call.from_id", &wire.from_id)?;
        field::same_node("call.from_id", from, ticket.node)?;
        if from == own {
            return Err(WireError::invalid("call.from_id", "that is this host"));
        }
        open_ed25519(sealed, CALL, &ticket.signing_key)
            .map_err(|source| WireError::Envelope { field: "call", source })?;
        fresh(&wire, verifier.now)?;
        let body = match &wire.sealed {
            Some(sealed) => {
                let opened = key.open(CALLS, &place(wire.meeting, from, own), sealed);
                let opened = opened.map_err(|error| WireError::invalid("call.sealed", error))?;
                field::parse("call.sealed", &opened)?
            }
            None => v1::CallBody {
                candidates: wire.candidates,
                ports: wire.ports,
                port_step: wire.port_step,
                relays: wire.relays,
            },
        };
        let (whereabouts, relays) = body_from_wire(body)?;
        let call = Call { to: own, meeting: wire.meeting, answer: wire.answer, whereabouts, relays };
        let (noise_key, sealing_key) = (ticket.noise_key, ticket.sealing_key);
        Ok(Self { from, noise_key, sealing_key, call })
    }
}

fn fresh(wire: &v1::Call, now: Timestamp) -> Result<(), WireError> {
    let time = field::required("call.call_time", wire.call_time.and_then(from_wire))?;
    if now.since(time).max(time.since(now)) > LIFETIME {
        return Err(WireError::invalid("call.call_time", "it is not of this minute"));
    }
    Ok(())
}

/// What was sealed for one meeting of two opens in no other.
fn place(meeting: u64, from: NodeId, to: NodeId) -> Vec<u8> {
    [&meeting.to_be_bytes()[..], from.as_bytes(), to.as_bytes()].concat()
}

fn body_from_wire(wire: v1::CallBody) -> Result<(Whereabouts, Vec<String>), WireError> {
    field::at_most("call.candidates", &wire.candidates, limits::ADDRESSES)?;
    field::at_most("call.relays", &wire.relays, RELAYS)?;
    let candidates = wire.candidates.iter().map(candidate_from_wire).collect::<Result<_, _>>()?;
    let step = u16::try_from(wire.port_step)
        .map_err(|_| WireError::invalid("call.port_step", format!("{} is no step", wire.port_step)))?;
    let ports = match wire.ports() {
        PortChoice::Unspecified => Ports::Unknown,
        PortChoice::Kept => Ports::Kept,
        PortChoice::Counted => Ports::Counted(step),
        PortChoice::Drawn => Ports::Drawn,
    };
    let relays =
        wire.relays.into_iter().map(|name| field::text("call.relays", name)).collect::<Result<_, _>>()?;
    Ok((Whereabouts { candidates, ports }, relays))
}

fn candidate_to_wire(candidate: &Candidate) -> v1::Candidate {
    let address = Some(field::observed_to_wire(candidate.at));
    v1::Candidate { address, reflexive: candidate.kind == Kind::Reflexive }
}

fn candidate_from_wire(wire: &v1::Candidate) -> Result<Candidate, WireError> {
    let at = field::observed("call.candidates", wire.address.as_ref())?;
    let kind = if wire.reflexive { Kind::Reflexive } else { Kind::Host };
    Ok(Candidate { at: field::required("call.candidates", at)?, kind })
}
