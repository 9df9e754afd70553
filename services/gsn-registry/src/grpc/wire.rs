//! Messages to the domain's terms and back.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use muster_proto::gsn::v1;
use muster_proto::gsn::v1::CandidateState;
use muster_types::{Contact, NodeId, Timestamp};
use muster_wire::WireError;
use muster_wire::gsn::{address_from_wire, contact_from_wire, contact_to_wire, keys_from_wire};
use muster_wire::probe::Token;
use muster_wire::time::{span_from_wire, to_wire};

use crate::domain::candidate::{Offer, Standing};
use crate::domain::record::{Caps, Kept, Load, State};
use crate::domain::registry::{Listed, Report};
use crate::domain::relays::{ADDRESSES, NAME_BYTES, Relay, RelayAddress};

/// What a node says of its NAT.
const NAT_BYTES: usize = 64;

/// A probe that a candidate repeats.
pub(super) struct Heard {
    pub(super) token: Token,
    pub(super) source: SocketAddr,
    pub(super) sent_ago: Option<Duration>,
}

pub(super) fn offer(wire: v1::Candidacy, noise_key: [u8; 32]) -> Result<Offer, WireError> {
    let contact = contact_from_wire("candidacy.contact", wire.contact)?;
    let mut nat = wire.nat;
    nat.truncate(nat.floor_char_boundary(NAT_BYTES));
    Ok(Offer {
        node: contact.node,
        addresses: contact.addresses.into_iter().filter(|address| is_anybodys(address.ip)).collect(),
        noise_key,
        eligible: wire.eligible,
        caps: caps(wire.caps.as_ref()),
        subnets: keys_from_wire("candidacy.subnet_keys", &wire.subnet_keys)?,
        nat,
    })
}

/// Nobody is probed by multicast or broadcast, and nobody's "any address" is.
fn is_anybodys(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast() || ip.is_link_local());
    !(ip.is_unspecified() || ip.is_multicast() || broadcast)
}

fn caps(wire: Option<&v1::Caps>) -> Caps {
    wire.map_or_else(Caps::default, |caps| Caps {
        signalling: caps.signalling_bytes_per_second,
        relaying: caps.relaying_bytes_per_second,
        nodes: caps.relayed_nodes,
    })
}

pub(super) fn load(wire: &v1::Load) -> Load {
    Load {
        nodes: wire.relayed_nodes,
        bytes: wire.relayed_bytes,
        signals: wire.signals,
        percent: u8::try_from(wire.load_percent).unwrap_or(100).min(100),
    }
}

pub(super) fn heard(wire: &v1::ProbeHeard) -> Result<Heard, WireError> {
    let token = Token::try_from(&wire.token[..]).map_err(|_| WireError::Missing("probe_heard.token"))?;
    let source = address_from_wire("probe_heard.source", wire.source.as_ref())?;
    Ok(Heard { token, source, sent_ago: wire.sent_ago.and_then(span_from_wire) })
}

pub(super) fn report(wire: &v1::SuperNodeReport) -> Result<Report, WireError> {
    let node = NodeId::try_from(&wire.node_id[..]).map_err(|_| WireError::Missing("report.node_id"))?;
    Ok(Report {
        node,
        unreachable: wire.unreachable,
        tried: wire.punches_tried,
        served: wire.punches_served,
        relayed: wire.relayed_bytes_per_second,
    })
}

pub(crate) fn standing(standing: &Standing) -> v1::Standing {
    v1::Standing {
        state: state_to_wire(standing.state).into(),
        expire_time: standing.until.map(to_wire),
        reason: standing.reason.clone(),
        reliability_basis_points: standing.reliability.into(),
    }
}

fn state_to_wire(state: State) -> CandidateState {
    match state {
        State::Unwilling => CandidateState::Unwilling,
        State::Unproven => CandidateState::Unproven,
        State::Spare => CandidateState::Spare,
        State::Serving => CandidateState::Serving,
        State::Gone => CandidateState::Gone,
    }
}

/// `None`: any.
pub(super) fn state(wire: CandidateState) -> Option<State> {
    match wire {
        CandidateState::Unspecified => None,
        CandidateState::Unwilling => Some(State::Unwilling),
        CandidateState::Unproven => Some(State::Unproven),
        CandidateState::Spare => Some(State::Spare),
        CandidateState::Serving => Some(State::Serving),
        CandidateState::Gone => Some(State::Gone),
    }
}

fn caps_to_wire(caps: Caps) -> v1::Caps {
    v1::Caps {
        signalling_bytes_per_second: caps.signalling,
        relaying_bytes_per_second: caps.relaying,
        relayed_nodes: caps.nodes,
    }
}

pub(super) fn super_node(listed: &Listed) -> v1::SuperNode {
    let kept = &listed.kept;
    v1::SuperNode {
        contact: Some(contact_to_wire(&Contact { node: kept.node, addresses: kept.proven.clone() })),
        noise_key: Bytes::copy_from_slice(&kept.noise_key),
        reliability_basis_points: kept.history.reliability().into(),
        caps: Some(caps_to_wire(kept.caps)),
        load_percent: kept.load.percent.into(),
        common_prefix_bits: listed.common_bits.into(),
        same_subnet: listed.same_subnet,
    }
}

pub(super) fn candidate(kept: &Kept, now: Timestamp) -> v1::Candidate {
    let Kept { history, load, .. } = kept;
    // A replica that died had no time to say that its streams ended.
    let state = if kept.alive_until <= now { State::Gone } else { kept.state };
    v1::Candidate {
        name: format!("nodes/{}", kept.node),
        state: state_to_wire(state).into(),
        reason: kept.reason.clone(),
        contact: Some(contact_to_wire(&Contact { node: kept.node, addresses: kept.offered.clone() })),
        caps: Some(caps_to_wire(kept.caps)),
        nat: kept.nat.clone(),
        reliability_basis_points: history.reliability().into(),
        probes_sent: history.probes_sent,
        probes_heard: history.probes_heard,
        probes_counted: history.probes_counted,
        punches_tried: history.punches_tried,
        punches_served: history.punches_served,
        unreachable_reports: history.unreachable,
        measured_bytes_per_second: history.measured,
        load: Some(v1::Load {
            relayed_nodes: load.nodes,
            relayed_bytes: load.bytes,
            signals: load.signals,
            load_percent: load.percent.into(),
        }),
        offer_time: Some(to_wire(kept.since)),
        last_proof_time: kept.last_proof.map(to_wire),
        lease_expire_time: kept.lease_until.map(to_wire),
    }
}

pub(super) fn relay(relay: &Relay) -> v1::Relay {
    let address = |address: &RelayAddress| v1::RelayAddress {
        host: address.host.clone(),
        tcp_port: address.tcp_port.into(),
        udp_port: address.udp_port.map_or(0, u32::from),
    };
    v1::Relay {
        name: relay.name.clone(),
        addresses: relay.addresses.iter().map(address).collect(),
        draining: relay.draining,
        load_percent: relay.load_percent.into(),
    }
}

pub(super) fn registration(wire: v1::Relay, until: Timestamp) -> Result<Relay, WireError> {
    let length = |field, text: &str| match text.len() {
        0 => Err(WireError::Missing(field)),
        1..=NAME_BYTES => Ok(()),
        actual => Err(WireError::TooLarge { what: field, actual, limit: NAME_BYTES }),
    };
    let port = |port: u32| u16::try_from(port).ok().filter(|port| *port > 0);
    length("relay.name", &wire.name)?;
    let mut addresses = Vec::new();
    for address in wire.addresses.into_iter().take(ADDRESSES) {
        length("relay.addresses.host", &address.host)?;
        let tcp_port = port(address.tcp_port).ok_or(WireError::Missing("relay.addresses.tcp_port"))?;
        addresses.push(RelayAddress { host: address.host, tcp_port, udp_port: port(address.udp_port) });
    }
    let load_percent = u8::try_from(wire.load_percent).unwrap_or(100).min(100);
    Ok(Relay { name: wire.name, addresses, draining: wire.draining, load_percent, until })
}
