//! The first frame of a stream: is it who its certificate says, is it new enough, what does it claim.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bytes::Bytes;
use muster_kit::clock;
use muster_proto::control::v1::{Hello, Part, RivalLsn, Welcome};
use muster_proto::trust::v1::Envelope;
use muster_types::{NodeId, SubnetKey, Version, version};
use muster_wire::EnvelopeError;
use muster_wire::revocation::Reason;
use muster_wire::ticket::{NodeTicket, STALE_TICKET, TicketError};
use muster_wire::time::{span_to_wire, to_wire};
use rand::RngCore;

use super::{presence, sealed, uptime};
use crate::domain::attach::{Attach, Attached};
use crate::domain::attachment::HEARTBEAT;
use crate::domain::cell::CellId;
use crate::domain::clone::Suspicion;
use crate::domain::opaque::Opaque;
use crate::grpc::wire;
use crate::hub::{Hub, Mail};
use crate::trust::Current;

/// Codes of Part, in the manner of HTTP: whose doing it is.
pub(super) mod code {
    pub(in super::super) const MISBEHAVED: u32 = 400;
    pub(in super::super) const NOT_YOU: u32 = 403;
    pub(in super::super) const MISSED: u32 = 410;
    pub(in super::super) const SUPERSEDED: u32 = 409;
    pub(in super::super) const HELD: u32 = 423;
    pub(in super::super) const TOO_OLD: u32 = 426;
    pub(in super::super) const SILENT: u32 = 408;
    pub(in super::super) const UNAVAILABLE: u32 = 503;
}

/// Bytes of a resume token: nobody guesses another LSN's.
const TOKEN_BYTES: usize = 16;

/// Bytes of lists of revocations in one Welcome; the rest follows it.
const WELCOME_LISTS: usize = 1024 * 1024;

/// A node whose stream stands.
pub(super) struct Admitted {
    pub(super) signing_key: [u8; 32],
    pub(super) cell: Option<CellId>,
    /// It claims a cell whose LSN another node is.
    pub(super) overruled: bool,
    /// A lost device: it gets its lock or erase, and nothing else.
    pub(super) lost: bool,
    /// One of several devices of one identity: it gets an operator's word, and nothing else.
    pub(super) held: bool,
    /// It was online in another life.
    pub(super) suspicion: Option<Suspicion>,
    /// The Welcome tells every revocation up to here.
    pub(super) known_revocation: u64,
    pub(super) welcome: Welcome,
    /// That its LSN shows the node, should it only miss the proof.
    pub(super) receipts: Vec<Envelope>,
}

pub(super) fn part(code: u32, description: impl Into<String>) -> Part {
    Part { code, description: description.into(), retry_after: None }
}

/// Admits the node, or says why not.
pub(super) async fn admit(
    hub: &Hub,
    node: NodeId,
    source: IpAddr,
    session: u64,
    mut hello: Hello,
) -> Result<Admitted, Part> {
    check_version(hub, &hello)?;
    let (ticket, lost) = ticket(hub, &hello).await?;
    if lost {
        tracing::warn!(%node, "a lost device has come back");
        hello.claim = None;
    }
    if ticket.node != node {
        let reason = format!("the ticket is of node {}, the certificate of {node}", ticket.node);
        return Err(part(code::NOT_YOU, reason));
    }
    let observed = hub.source_visible.then_some(source);
    let keys = wire::subnet_keys(&hello.prefixes, observed);
    let attach = command(hub, &ticket, session, &hello, observed, &keys)?;
    let claim = attach.claim.as_ref().map(|claim| claim.sealed.clone());
    let attached =
        hub.writer.submit(attach).await.map_err(|error| part(code::UNAVAILABLE, error.to_string()))?;
    muster_kit::crash::point("presence.attached");
    if let Some(claim) = &claim {
        for rival in &attached.rivalled {
            hub.mail(*rival, Mail::Rival(claim.clone()));
        }
    }
    let cell = attached.cell.filter(|_| is_lsn(&attached));
    let receipts = match &attached.shown {
        Some((lsn, shown)) => presence::receipts(hub, *lsn, std::slice::from_ref(shown)).await,
        None => Vec::new(),
    };
    let trust = hub.trust.current();
    let (revocations, known_revocation) =
        trust.store.revocations().page_after(hello.known_revocation, WELCOME_LISTS);
    let welcome = welcome(hub, node, (&trust, revocations), &attached, observed, &keys).await;
    Ok(Admitted {
        signing_key: ticket.signing_key,
        cell,
        overruled: claim.is_some() && cell.is_none(),
        lost,
        held: attached.held,
        suspicion: attached.suspicion,
        known_revocation,
        welcome,
        receipts,
    })
}

/// The node's ticket, and whether the node is lost. Nobody is admitted before it is known who must not be.
async fn ticket(hub: &Hub, hello: &Hello) -> Result<(NodeTicket, bool), Part> {
    if !crate::revocations::are_known(hub).await {
        return Err(part(code::UNAVAILABLE, "topology does not know yet who is revoked"));
    }
    let sealed = hello.ticket.as_ref().ok_or_else(|| part(code::MISBEHAVED, "the ticket is missing"))?;
    let refused = |error: TicketError| {
        let stale = matches!(&error, TicketError::Envelope(EnvelopeError::Withdrawn(_)));
        part(if stale { STALE_TICKET } else { code::NOT_YOU }, format!("the node's ticket: {error}"))
    };
    match hub.trust.ticket(sealed, &*hub.authority).await {
        Err(TicketError::Revoked { reason: Reason::Lost, .. }) => {
            let ticket = NodeTicket::open_even_revoked(sealed, &hub.trust.current().store, clock::wall());
            Ok((ticket.map_err(refused)?, true))
        }
        ticket => Ok((ticket.map_err(refused)?, false)),
    }
}

fn is_lsn(attached: &Attached) -> bool {
    attached.position == crate::domain::node::Position::Lsn
}

fn check_version(hub: &Hub, hello: &Hello) -> Result<(), Part> {
    let software: Version =
        hello.software_version.parse().map_err(|error| part(code::MISBEHAVED, format!("{error}")))?;
    if software < hub.minimum_version {
        let reason = format!("version {software} is too old: {} is the oldest admitted", hub.minimum_version);
        return Err(part(code::TOO_OLD, reason));
    }
    // N speaks with N-1 (design, section 2).
    if hello.protocol_version + 1 < version::PROTOCOL {
        let reason = format!("protocol {} is too old for {}", hello.protocol_version, version::PROTOCOL);
        return Err(part(code::TOO_OLD, reason));
    }
    Ok(())
}

fn command(
    hub: &Hub,
    ticket: &NodeTicket,
    session: u64,
    hello: &Hello,
    observed: Option<IpAddr>,
    keys: &BTreeSet<SubnetKey>,
) -> Result<Attach, Part> {
    let prefixes = wire::prefixes(&hello.prefixes);
    let claim = hello
        .claim
        .as_ref()
        .map(|sealed| wire::claim(sealed, hub.trust.network(), ticket, keys, observed, prefixes))
        .transpose()
        .map_err(|error| part(code::MISBEHAVED, error.to_string()))?;
    let mut profile = wire::profile(hello.presence.clone().unwrap_or_default());
    profile.boot_nonce = hello.boot_nonce;
    if profile.software_version.is_empty() {
        profile.software_version.clone_from(&hello.software_version);
    }
    let mut token = vec![0; TOKEN_BYTES];
    rand::rng().fill_bytes(&mut token);
    Ok(Attach {
        node: ticket.node,
        attested: wire::attested(ticket, hello.ticket.as_ref()),
        profile,
        observed,
        claim,
        keys: keys.clone(),
        resume_token: Opaque(hello.resume_token.to_vec()),
        fresh_token: Opaque(token),
        replica: hub.replica.clone(),
        session,
    })
}

async fn welcome(
    hub: &Hub,
    node: NodeId,
    (trust, revocations): (&Current, Vec<Envelope>),
    attached: &Attached,
    observed: Option<IpAddr>,
    keys: &BTreeSet<SubnetKey>,
) -> Welcome {
    let observed_ip = match observed.map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(ip)) => Bytes::copy_from_slice(&ip.octets()),
        Some(IpAddr::V6(ip)) => Bytes::copy_from_slice(&ip.octets()),
        None => Bytes::new(),
    };
    Welcome {
        master_time: Some(to_wire(clock::wall())),
        resume_token: attached.token.0.clone().into(),
        known_update: attached.known_update,
        resync: attached.resync,
        held: attached.held,
        operator_policy: crate::sealed::operator_policy(&hub.operator_policy_file),
        trust_bundle: Some(trust.bundle.clone()),
        revocations,
        uptime: uptime::ticket_of(hub, node).await,
        observed_ip,
        heartbeat_interval: Some(span_to_wire(HEARTBEAT)),
        minimum_software_version: hub.minimum_version.to_string(),
        rivals: sealed(&attached.rivals).into_iter().map(|claim| RivalLsn { claim: Some(claim) }).collect(),
        subnet_keys: keys.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect(),
    }
}
