//! Messages of nodes to the domain: parsed, bounded, and verified against the keys of who signed them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use muster_proto::control::v1::{self as control, LocalPrefix, NodePresence};
use muster_proto::overlay::v1 as overlay;
use muster_proto::payload_type;
use muster_proto::task::v1 as task;
use muster_proto::trust::v1::Envelope;
use muster_types::{NetworkId, NodeId, Prefix, SubnetKey, limits};
use muster_wire::envelope::open_ed25519;
use muster_wire::sealing::SealingKey;
use muster_wire::ticket::NodeTicket;
use muster_wire::time::{from_wire, span_from_wire};
use prost::Message;

use crate::domain::cell::Claim;
use crate::domain::node::{Attested, Profile};
use crate::domain::opaque::Opaque;
use crate::domain::reports::Report;
use crate::domain::target::{Ending, Step, TargetState};
use crate::domain::task::TaskId;
use crate::domain::update::Sighting;
use crate::sealed::open_report;

/// Characters of a text that a node says of itself: host names have 253 at most (RFC 1035).
const TEXT: usize = 256;

/// Characters of a reason that a node gives.
const REASON: usize = 4_096;

/// A message of a node that it should not have sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Misbehaved(pub(super) String);

fn misbehaved(what: impl Into<String>) -> Misbehaved {
    Misbehaved(what.into())
}

/// At most so many characters; the rest is cut, as it is for people only.
fn text(mut text: String, length: usize) -> String {
    if let Some((cut, _)) = text.char_indices().nth(length) {
        text.truncate(cut);
    }
    text
}

pub(super) fn node_id(bytes: &[u8], field: &str) -> Result<NodeId, Misbehaved> {
    NodeId::try_from(bytes).map_err(|error| misbehaved(format!("{field}: {error}")))
}

pub(super) fn attested(ticket: &NodeTicket, sealed: Option<&Envelope>) -> Attested {
    Attested {
        signing_key: Opaque(ticket.signing_key.to_vec()),
        sealing_key: Opaque(ticket.sealing_key.to_vec()),
        ticket: Opaque(sealed.map(Envelope::encode_to_vec).unwrap_or_default()),
        labels: ticket.labels.clone(),
        generation: ticket.enrollment_generation,
        issued: ticket.not_before,
    }
}

pub(super) fn profile(presence: NodePresence) -> Profile {
    let round_trip = presence.round_trip.and_then(span_from_wire).unwrap_or_default();
    Profile {
        host_name: text(presence.host_name, TEXT),
        software_version: text(presence.software_version, TEXT),
        addresses: presence.addresses.into_iter().take(limits::ADDRESSES).map(|it| text(it, TEXT)).collect(),
        path: text(presence.path, TEXT),
        os: text(presence.os, TEXT),
        architecture: text(presence.architecture, TEXT),
        wired: presence.wired,
        mains_powered: presence.mains_powered,
        round_trip_micros: u64::try_from(round_trip.as_micros()).unwrap_or_default(),
        boot_nonce: presence.boot_nonce,
    }
}

/// A node's own address and the prefix it lies in.
fn local(prefix: &LocalPrefix) -> Option<(IpAddr, Prefix)> {
    let address = match prefix.address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(&prefix.address[..]).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(&prefix.address[..]).ok()?),
        _ => return None,
    };
    let length = u8::try_from(prefix.length).ok()?;
    Some((address, Prefix::of(address, length)))
}

/// The local networks that a node reports, for people.
pub(super) fn prefixes(reported: &[LocalPrefix]) -> Vec<String> {
    reported
        .iter()
        .take(limits::SUBNET_KEYS)
        .filter_map(local)
        .map(|(_, prefix)| prefix.to_string())
        .collect()
}

/// The keys of a node's local networks, as the master sees it at `observed`. A node on the master's own host is
/// seen at the loopback; its neighbors are seen at their own addresses, and so is it taken to be.
pub(super) fn subnet_keys(reported: &[LocalPrefix], observed: Option<IpAddr>) -> BTreeSet<SubnetKey> {
    let Some(observed) = observed.map(|ip| ip.to_canonical()) else { return BTreeSet::new() };
    reported
        .iter()
        .take(limits::SUBNET_KEYS)
        .filter_map(local)
        .filter_map(|(own, prefix)| {
            let public = if observed.is_loopback() { own } else { observed };
            SubnetKey::derive(prefix, public)
        })
        .collect()
}

pub(super) fn keys(reported: &[Bytes]) -> BTreeSet<SubnetKey> {
    reported.iter().take(limits::SUBNET_KEYS).filter_map(|key| SubnetKey::try_from(&key[..]).ok()).collect()
}

/// A claim that its claimant signed, of this network and by this node. `derived` are the keys that the master
/// computed for it; the claim's own are proposals for the families that this stream does not show.
pub(super) fn claim(
    sealed: &Envelope,
    network: NetworkId,
    ticket: &NodeTicket,
    derived: &BTreeSet<SubnetKey>,
    observed: Option<IpAddr>,
    prefixes: Vec<String>,
) -> Result<Claim, Misbehaved> {
    let payload = open_ed25519(sealed, payload_type::CLAIM, &ticket.signing_key)
        .map_err(|error| misbehaved(format!("its claim: {error}")))?;
    let wire = overlay::Claim::decode(payload).map_err(|error| misbehaved(format!("its claim: {error}")))?;
    if wire.network_id[..] != network.as_bytes()[..] {
        return Err(misbehaved("its claim is for another network"));
    }
    let claimant = wire.claimant.map_or_else(Bytes::new, |contact| contact.node_id);
    if node_id(&claimant, "claimant")? != ticket.node {
        return Err(misbehaved("its claim is another node's"));
    }
    let predecessor = (!wire.predecessor.is_empty()).then(|| node_id(&wire.predecessor, "predecessor"));
    let mut keys = derived.clone();
    if observed.is_some() {
        keys.extend(self::keys(&wire.subnet_keys));
    }
    Ok(Claim {
        claimant: ticket.node,
        lineage: wire.lineage,
        epoch: wire.epoch,
        predecessor: predecessor.transpose()?,
        keys: keys.into_iter().take(limits::SUBNET_KEYS).collect(),
        prefixes,
        observed,
        sealed: Opaque(sealed.encode_to_vec()),
    })
}

/// A child's consent to be shown under `lsn`, signed with the key in its ticket.
pub(super) fn sighting(
    presence: NodePresence,
    ticket: &NodeTicket,
    node: NodeId,
    lsn: NodeId,
) -> Result<Sighting, Misbehaved> {
    if ticket.node != node {
        return Err(misbehaved("the ticket is another node's"));
    }
    let sealed = presence.attach.as_ref().ok_or_else(|| misbehaved("the attach is missing"))?;
    let payload = open_ed25519(sealed, payload_type::ATTACH, &ticket.signing_key)
        .map_err(|error| misbehaved(format!("the attach: {error}")))?;
    let attach =
        overlay::Attach::decode(payload).map_err(|error| misbehaved(format!("the attach: {error}")))?;
    if node_id(&attach.node_id, "attach")? != node || node_id(&attach.lsn_id, "attach")? != lsn {
        return Err(misbehaved("the attach binds another node or another LSN"));
    }
    let attach_time =
        attach.attach_time.and_then(from_wire).ok_or_else(|| misbehaved("the attach has no time"))?;
    let attested = attested(ticket, presence.ticket.as_ref());
    let mut profile = profile(presence);
    profile.boot_nonce = attach.boot_nonce;
    let (lineage, epoch) = (attach.lineage, attach.epoch);
    Ok(Sighting { node, attested, profile, lineage, epoch, attach_time })
}

/// The boot nonce of an agent that signed `nonce` with the node's key: it is running.
pub(super) fn life(sealed: &Envelope, node: NodeId, key: &[u8], nonce: u64) -> Result<u64, Misbehaved> {
    let payload = open_ed25519(sealed, payload_type::LIFE, key)
        .map_err(|error| misbehaved(format!("its life: {error}")))?;
    let life = control::Life::decode(payload).map_err(|error| misbehaved(format!("its life: {error}")))?;
    if node_id(&life.node_id, "life")? != node || life.nonce != nonce {
        return Err(misbehaved("its life is another node's, or answers another question"));
    }
    Ok(life.boot_nonce)
}

/// A report that `node` signed with its key. Answers also its trace context.
pub(super) fn report(
    sealed: &Envelope,
    node: NodeId,
    signing_key: &[u8],
    sealing: &SealingKey,
) -> Result<(Report, String), Misbehaved> {
    let payload = open_ed25519(sealed, payload_type::TASK_REPORT, signing_key)
        .map_err(|error| misbehaved(format!("its report: {error}")))?;
    let mut wire =
        task::TaskReport::decode(payload).map_err(|error| misbehaved(format!("its report: {error}")))?;
    open_report(sealing, node, &mut wire)
        .map_err(|error| misbehaved(format!("its sealed report: {error}")))?;
    if node_id(&wire.node_id, "report")? != node {
        return Err(misbehaved("its report is another node's"));
    }
    let task = TaskId::from_bytes(&wire.task_id).ok_or_else(|| misbehaved("its report names no task"))?;
    if wire.sequence == 0 {
        return Err(misbehaved("reports are numbered from 1"));
    }
    let step = wire.step.ok_or_else(|| misbehaved("its report says nothing"))?;
    let report = Report {
        task,
        occurrence: text(wire.occurrence, TEXT),
        sequence: wire.sequence,
        step: self::step(step)?,
    };
    Ok((report, wire.traceparent))
}

fn step(wire: task::task_report::Step) -> Result<Step, Misbehaved> {
    use task::task_report::Step as Wire;
    Ok(match wire {
        Wire::Delivered(_) => Step::Delivered,
        Wire::Started(_) => Step::Started,
        Wire::Output(output) if output.data.len() > limits::OUTPUT_CHUNK_BYTES => {
            return Err(misbehaved("its output chunk is too large"));
        }
        Wire::Output(output) => Step::Output(Opaque(output.encode_to_vec())),
        Wire::Progress(mut progress) => {
            progress.phase = text(progress.phase, TEXT);
            progress.text = text(progress.text, REASON);
            Step::Progress(Opaque(progress.encode_to_vec()))
        }
        Wire::Finished(mut finished) => {
            let state =
                TargetState::from_number(i64::from(finished.state)).filter(|state| state.is_terminal());
            let state =
                state.ok_or_else(|| misbehaved("its task finished in a state that is not terminal"))?;
            finished.reason = text(finished.reason, REASON);
            finished.reason_code = text(finished.reason_code, TEXT);
            let word = Opaque(finished.encode_to_vec());
            Step::Finished(state, Ending { reason_code: finished.reason_code, reason: finished.reason, word })
        }
    })
}

/// A span that is set and makes sense, else the default.
pub(super) fn span(wire: Option<prost_types::Duration>, default: Duration) -> Option<Duration> {
    wire.map_or(Some(default), span_from_wire)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(address: [u8; 4], length: u32) -> Vec<LocalPrefix> {
        vec![LocalPrefix { address: Bytes::copy_from_slice(&address), length }]
    }

    #[test]
    fn neighbors_get_one_key_and_a_hidden_source_none() {
        let observed = Some("203.0.113.7".parse().unwrap());
        let one = subnet_keys(&reported([192, 168, 1, 5], 24), observed);
        assert_eq!(one, subnet_keys(&reported([192, 168, 1, 77], 24), observed));
        assert_eq!(one.len(), 1);
        assert!(subnet_keys(&reported([192, 168, 1, 5], 24), None).is_empty());
    }

    #[test]
    fn a_node_on_the_masters_host_shares_the_key_of_its_neighbors() {
        let seen = |ip: &str| Some(ip.parse().unwrap());
        let local = subnet_keys(&reported([10, 0, 0, 1], 24), seen("127.0.0.1"));
        assert_eq!(local, subnet_keys(&reported([10, 0, 0, 9], 24), seen("10.0.0.9")));
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        assert_eq!(text("äöü".to_owned(), 2), "äö");
        assert_eq!(text("abc".to_owned(), 3), "abc");
    }
}
