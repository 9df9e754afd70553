//! The border to gRPC: who calls, with what, and what comes back.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use muster_kit::clock;
use muster_kit::listen::PeerInfo;
use muster_kit::policy::Policy;
use muster_kit::shutdown::Shutdown;
use muster_kit::status::{Fault, fault};
use muster_proto::gsn::v1::registry_service_server::RegistryService;
use muster_proto::gsn::v1::{
    IssueRelayTicketRequest, IssueRelayTicketResponse, ListCandidatesRequest, ListCandidatesResponse,
    ListSuperNodesRequest, ListSuperNodesResponse, OfferRequest, OfferResponse, RegisterRelayRequest,
    RegisterRelayResponse, ReportSuperNodesRequest, ReportSuperNodesResponse,
};
use muster_types::{NodeId, Role};
use muster_wire::gsn;
use muster_wire::time::{span_to_wire, to_wire};
use tonic::{Code, Extensions, Request, Response, Status, Streaming};

use crate::domain::quota::Quota;
use crate::domain::registry::Asker;
use crate::metrics;
use crate::office::{Office, RELAY_LEASE};
use crate::store::StoreError;
use crate::tickets::{Tickets, Wish};
use crate::trust::Trust;

mod page;
mod stream;
pub(crate) mod wire;

/// Super nodes of an answer that does not say how many.
const LISTED: i32 = 10;
const LISTED_MAX: i32 = 100;

/// Candidates of an answer that does not say how many.
const CANDIDATES: i32 = 100;
const CANDIDATES_MAX: i32 = 1_000;

/// When to ask for the list again: a node that it names is gone from it within a minute of failing.
const FRESH_FOR: Duration = Duration::from_secs(300);

/// What the relay service gives one pair: a video call, or a shell and a file.
const RELAY_RATE: u64 = 1_250_000;

/// Offers of one node in a minute: each may have an address probed that is not the node's.
const OFFERS: u32 = 10;

/// Tickets of one node in a minute: one for each of the peers that a busy node meets, and room to try again.
const TICKETS: u32 = 120;

/// Reports in one call.
const REPORTS: usize = 100;

/// One report of one node on one super node counts in this.
const REPORT_SPAN: Duration = Duration::from_secs(600);

const MINUTE: Duration = Duration::from_secs(60);

/// The name in the certificates of relays.
const RELAY_SERVICE: &str = "relay";

const NODES: &[Role] = &[Role::Node];
const NODES_AND_READERS: &[Role] = &[Role::Node, Role::Admin, Role::Operator, Role::Auditor, Role::Cmdb];

/// Who may call what.
pub fn policy() -> Policy {
    Policy::new()
        .roles("/muster.gsn.v1.RegistryService/Offer", NODES)
        .roles("/muster.gsn.v1.RegistryService/IssueRelayTicket", NODES)
        .roles("/muster.gsn.v1.RegistryService/ReportSuperNodes", NODES)
        .roles("/muster.gsn.v1.RegistryService/ListSuperNodes", NODES_AND_READERS)
        .roles("/muster.gsn.v1.RegistryService/ListCandidates", Role::READERS)
        .roles("/muster.gsn.v1.RegistryService/RegisterRelay", &[Role::Service])
}

pub(crate) struct Front {
    office: Arc<Office>,
    trust: Arc<Trust>,
    tickets: Tickets,
    source_visible: bool,
    offers: Arc<Mutex<Quota<NodeId>>>,
    issued: Mutex<Quota<NodeId>>,
    reported: Mutex<Quota<(NodeId, NodeId)>>,
    shutdown: Shutdown,
}

/// Who is at the other end.
struct Caller {
    node: Option<NodeId>,
    service: Option<String>,
    certificate_serial: Bytes,
    ip: Option<IpAddr>,
}

impl Front {
    pub(crate) fn new(
        office: Arc<Office>,
        trust: Arc<Trust>,
        tickets: Tickets,
        source_visible: bool,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            office,
            trust,
            tickets,
            source_visible,
            offers: Arc::new(Mutex::new(Quota::new(OFFERS, MINUTE))),
            issued: Mutex::new(Quota::new(TICKETS, MINUTE)),
            reported: Mutex::new(Quota::new(1, REPORT_SPAN)),
            shutdown,
        }
    }

    fn caller(&self, extensions: &Extensions) -> Caller {
        let peer = extensions.get::<PeerInfo>();
        let identity = peer.and_then(|peer| peer.identity.as_ref());
        let ip = peer.filter(|_| self.source_visible).map(|peer| peer.remote_addr.ip().to_canonical());
        Caller {
            node: identity.and_then(muster_types::Identity::node_id),
            service: identity.filter(|it| it.role == Role::Service).map(|it| it.name.clone()),
            certificate_serial: peer.map(|peer| peer.serial.clone()).unwrap_or_default().into(),
            ip,
        }
    }

    fn node(&self, extensions: &Extensions) -> Result<(NodeId, Caller), Fault> {
        let caller = self.caller(extensions);
        let node =
            caller.node.ok_or_else(|| fault(Code::PermissionDenied, "NOT_A_NODE", "nodes call this"))?;
        Ok((node, caller))
    }

    /// How much a relay gives at most. A GSN is a relay by its id.
    fn rate_of(&self, relay: &str) -> Result<u64, Fault> {
        let now = clock::wall();
        let found = self.office.registry(|registry| {
            if registry.relays.has(relay, now) {
                return Some(RELAY_RATE);
            }
            let node = relay.parse().ok()?;
            registry.serving(node, now).map(|kept| kept.caps.relaying)
        });
        found.filter(|rate| *rate > 0).ok_or_else(|| {
            fault(Code::NotFound, "NO_SUCH_RELAY", format!("nobody relays as {relay:?} now"))
                .with("relay", relay)
        })
    }
}

fn invalid(reason: &'static str, error: impl std::fmt::Display) -> Fault {
    fault(Code::InvalidArgument, reason, error.to_string())
}

fn store_failed(error: &StoreError) -> Fault {
    tracing::warn!(%error, "the registry's store does not answer");
    fault(Code::Unavailable, "STORE_UNAVAILABLE", "the store does not answer; try again")
}

#[tonic::async_trait]
impl RegistryService for Front {
    type OfferStream = Pin<Box<dyn Stream<Item = Result<OfferResponse, Status>> + Send>>;

    async fn offer(
        &self,
        request: Request<Streaming<OfferRequest>>,
    ) -> Result<Response<Self::OfferStream>, Status> {
        let (node, caller) = self.node(request.extensions())?;
        let session = self.office.session();
        let stream = stream::Stream {
            office: self.office.clone(),
            trust: self.trust.clone(),
            node,
            ip: caller.ip,
            session,
            offers: self.offers.clone(),
        };
        Ok(Response::new(stream.begin(request.into_inner(), &self.shutdown).await?))
    }

    async fn list_super_nodes(
        &self,
        request: Request<ListSuperNodesRequest>,
    ) -> Result<Response<ListSuperNodesResponse>, Status> {
        let caller = self.caller(request.extensions());
        let ListSuperNodesRequest { subnet_keys, page_size, page_token } = request.into_inner();
        let subnets = gsn::keys_from_wire("subnet_keys", &subnet_keys)
            .map_err(|error| invalid("SUBNET_KEYS_INVALID", error))?;
        let size = page::size(page_size, LISTED, LISTED_MAX)?;
        let start: usize = page::start(&page_token)?;
        let (asker, now) = (Asker { node: caller.node, ip: caller.ip, subnets }, clock::wall());
        let (listed, relays) = self.office.registry(|registry| {
            let relays = registry.relays.list(now).into_iter().map(wire::relay).collect();
            (registry.list(&asker, now), relays)
        });
        let end = listed.len().min(start.saturating_add(size));
        let page = listed.get(start..end).unwrap_or_default();
        Ok(Response::new(ListSuperNodesResponse {
            super_nodes: page.iter().map(wire::super_node).collect(),
            relays: if start == 0 { relays } else { Vec::new() },
            next_page_token: if end < listed.len() { end.to_string() } else { String::new() },
            fresh_for: Some(span_to_wire(FRESH_FOR)),
        }))
    }

    async fn issue_relay_ticket(
        &self,
        request: Request<IssueRelayTicketRequest>,
    ) -> Result<Response<IssueRelayTicketResponse>, Status> {
        let (node, caller) = self.node(request.extensions())?;
        let IssueRelayTicketRequest { relay, peer_id, bytes_per_second } = request.into_inner();
        let peer = match &peer_id[..] {
            [] => None,
            bytes => Some(NodeId::try_from(bytes).map_err(|error| invalid("PEER_INVALID", error))?),
        };
        let most = self.rate_of(&relay)?;
        if !self.issued.lock().unwrap_or_else(PoisonError::into_inner).take(node, clock::wall()) {
            let message = format!("{TICKETS} tickets in a minute are the most for one node");
            return Err(fault(Code::ResourceExhausted, "TOO_MANY_TICKETS", message)
                .retry_after(MINUTE)
                .into());
        }
        let bytes_per_second = if bytes_per_second == 0 { most } else { bytes_per_second.min(most) };
        let certificate_serial = caller.certificate_serial;
        let wish = Wish { node, certificate_serial, peer, relay, bytes_per_second };
        let signed = self.tickets.issue(wish).await?;
        Ok(Response::new(IssueRelayTicketResponse {
            ticket: Some(signed.envelope),
            expire_time: Some(to_wire(signed.expires)),
            bytes_per_second: signed.bytes_per_second,
        }))
    }

    async fn report_super_nodes(
        &self,
        request: Request<ReportSuperNodesRequest>,
    ) -> Result<Response<ReportSuperNodesResponse>, Status> {
        let (caller, _) = self.node(request.extensions())?;
        let reports = request.into_inner().reports;
        if reports.len() > REPORTS {
            return Err(invalid("TOO_MANY_REPORTS", format!("{REPORTS} are the most in one call")).into());
        }
        let now = clock::wall();
        for report in &reports {
            let report = wire::report(report).map_err(|error| invalid("REPORT_INVALID", error))?;
            let fresh =
                self.reported.lock().unwrap_or_else(PoisonError::into_inner).take((caller, report.node), now);
            if !fresh || report.node == caller {
                continue;
            }
            if report.unreachable {
                metrics::unreachable();
            }
            self.office.registry(|registry| registry.report(report, now));
        }
        Ok(Response::new(ReportSuperNodesResponse {}))
    }

    async fn list_candidates(
        &self,
        request: Request<ListCandidatesRequest>,
    ) -> Result<Response<ListCandidatesResponse>, Status> {
        let request = request.into_inner();
        let state = wire::state(request.state());
        let size = page::size(request.page_size, CANDIDATES, CANDIDATES_MAX)?;
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(token.parse().map_err(|_| page::invalid())?),
        };
        let limit = i64::try_from(size).unwrap_or(i64::MAX);
        let found = self.office.store.candidates_after(after, state, limit).await;
        let found = found.map_err(|error| store_failed(&error))?;
        let last = found.last().filter(|_| found.len() == size);
        let (wanted, serving) = self.office.registry(|registry| registry.wanted(clock::wall()));
        Ok(Response::new(ListCandidatesResponse {
            next_page_token: last.map(|kept| kept.node.to_string()).unwrap_or_default(),
            candidates: found.iter().map(|kept| wire::candidate(kept, clock::wall())).collect(),
            wanted: u32::try_from(wanted).unwrap_or(u32::MAX),
            serving: u32::try_from(serving).unwrap_or(u32::MAX),
        }))
    }

    async fn register_relay(
        &self,
        request: Request<RegisterRelayRequest>,
    ) -> Result<Response<RegisterRelayResponse>, Status> {
        if self.caller(request.extensions()).service.as_deref() != Some(RELAY_SERVICE) {
            return Err(fault(Code::PermissionDenied, "NOT_A_RELAY", "relays register themselves").into());
        }
        let until = clock::wall() + RELAY_LEASE;
        let relay = request.into_inner().relay.unwrap_or_default();
        let relay = wire::registration(relay, until).map_err(|error| invalid("RELAY_INVALID", error))?;
        let taken = self.office.register(relay).await.map_err(|error| store_failed(&error))?;
        if !taken {
            return Err(fault(Code::ResourceExhausted, "TOO_MANY_RELAYS", "no more relays are listed").into());
        }
        Ok(Response::new(RegisterRelayResponse { lease: Some(span_to_wire(RELAY_LEASE)) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generated code names the methods; the table must name the same.
    #[test]
    fn every_method_of_the_contract_has_its_line_in_the_policy() {
        let path = format!("{}/../../proto/muster/gsn/v1/registry.proto", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let policy = policy();
        for line in text.lines().filter_map(|line| line.trim().strip_prefix("rpc ")) {
            let method = format!("/muster.gsn.v1.RegistryService/{}", line.split('(').next().unwrap());
            assert!(policy.knows(&method).is_some(), "{method}");
        }
    }
}
