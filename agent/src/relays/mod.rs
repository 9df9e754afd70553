//! The relays of this node, the master's and super nodes: which there are, by the registry; where it sits; and the channels
//! to peers behind them.
//!
//! registry -> [`Relays::list`]; ticket -> [`Relays::open`] -> a seat's stream -> [`Event::Here`] with a path that QUIC dials.
//! Whoever is called only [`attend`](Relays::attend)s: the caller's ticket opens the channel for both.

mod known;
mod node;
mod seat;
mod udp;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_kit::connect::{GSN_REGISTRY, Proxy, RELAY, Tried};
use muster_net::{Endpoint, Path};
use muster_proto::gsn::v1::registry_service_client::RegistryServiceClient;
use muster_proto::gsn::v1::{
    IssueRelayTicketRequest, ListSuperNodesRequest, ReportSuperNodesRequest, SuperNodeReport,
};
use muster_proto::relay::v1::carry_request::Request;
use muster_proto::relay::v1::{CarryRequest, CarryResponse, Open};
use muster_types::NodeId;
use muster_wire::time::span_from_wire;
use muster_wire::window;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use crate::control::Client;
use known::{Known, Place};
use node::Switch;
use seat::{Answers, Seat};

/// Relays that a pair may use: one, and the one that is warm beside it.
pub(crate) const OF_A_PAIR: usize = 2;

/// Super nodes that are looked through for the one that a caller named.
const PAGE: i32 = 100;

/// What the registry said is good for so long, unless it says otherwise.
const FRESH: Duration = Duration::from_secs(300);

/// A dead relay is noticed by its closed connection; a network that swallows everything, by this.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Servers that are asked how they see this node: three tell whether ports are counted.
const SERVERS: usize = 3;

/// Asked of the hash table's bootstrap service, for more servers.
const CONTACTS: i32 = 8;

/// What the relays tell.
#[derive(Debug)]
pub(crate) enum Event {
    /// A peer can be reached behind that relay, by that path.
    Here { peer: NodeId, relay: String, path: Path },
    /// Not any more.
    Gone { peer: NodeId, relay: String, path: Path },
    /// The relay granted no channel.
    Refused { peer: NodeId, reason: String },
}

/// One relay as it is shown.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) name: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) connected: bool,
}

/// A handle; clones are the same.
#[derive(Clone)]
pub(crate) struct Relays(Arc<Shared>);

struct Shared {
    client: Client,
    endpoint: Endpoint,
    events: mpsc::Sender<Event>,
    listing: Mutex<Option<Listing>>,
    /// The lock is held while a seat is taken, so that nobody takes two.
    seats: Mutex<HashMap<String, Seat>>,
    switch: Switch,
}

#[derive(Clone)]
struct Listing {
    relays: Vec<Known>,
    servers: Vec<SocketAddr>,
    until: Instant,
}

impl Relays {
    pub(crate) fn new(client: Client, endpoint: Endpoint) -> (Self, mpsc::Receiver<Event>) {
        let (events, inbox) = mpsc::channel(seat::EVENTS);
        let (listing, seats) = (Mutex::default(), Mutex::default());
        let switch = Switch::default();
        (Self(Arc::new(Shared { client, endpoint, events, listing, seats, switch })), inbox)
    }

    /// A super node answers what this node asked it as a relay.
    pub(crate) fn answered(&self, by: NodeId, answer: CarryResponse) {
        self.0.switch.answered(by, answer);
    }

    /// Names of the relays that a pair may use, best first.
    ///
    /// # Errors
    /// The registry is not reached, or lists none.
    pub(crate) async fn list(&self) -> Result<Vec<String>, String> {
        let listing = self.listing(false).await?;
        let open = listing.relays.iter().filter(|relay| relay.open);
        let names: Vec<_> = open.map(|relay| relay.name.clone()).take(OF_A_PAIR).collect();
        if names.is_empty() { Err("the registry lists no relay".to_owned()) } else { Ok(names) }
    }

    /// Servers outside that tell how they see this node.
    pub(crate) async fn servers(&self) -> Vec<SocketAddr> {
        match self.listing(false).await {
            Ok(listing) => listing.servers,
            Err(reason) => {
                tracing::debug!(reason, "bootstrap nodes alone tell how this node is seen");
                self.bootstrap_nodes().await
            }
        }
    }

    pub(crate) async fn standing(&self) -> Vec<Standing> {
        let relays = self.listing(false).await.map(|listing| listing.relays).unwrap_or_default();
        let seats = self.0.seats.lock().await;
        let standing = relays.into_iter().map(|relay| Standing {
            connected: seats.get(&relay.name).is_some_and(Seat::is_taken),
            addresses: relay.place.addresses(),
            name: relay.name,
        });
        standing.collect()
    }

    /// The proxy that the way to relays and registry goes by, as [`Client::proxy`] has it.
    pub(crate) fn proxy(&self) -> Option<(Proxy, Option<Arc<Tried>>)> {
        self.0.client.proxy()
    }

    /// Asks for a channel to `peer`; [`Event::Here`] says when it is there too. Also renews one.
    ///
    /// # Errors
    /// No ticket, or the relay is not reached.
    pub(crate) async fn open(&self, relay: &str, peer: NodeId) -> Result<(), String> {
        let (asks, ticket) = tokio::join!(self.seat(relay), self.ticket(relay, peer));
        let peer_id = Bytes::copy_from_slice(peer.as_bytes());
        let open = Request::Open(Open { peer_id, ticket: Some(ticket?) });
        asks?.send(seat::request(open)).await.map_err(|_| format!("{relay} is gone"))
    }

    /// Sits where a caller may find this node.
    ///
    /// # Errors
    /// The relay is unknown to the registry, or not reached.
    pub(crate) async fn attend(&self, relay: &str) -> Result<(), String> {
        self.seat(relay).await.map(|_| ())
    }

    async fn ticket(&self, relay: &str, peer: NodeId) -> Result<muster_proto::trust::v1::Envelope, String> {
        let request = IssueRelayTicketRequest {
            relay: relay.to_owned(),
            peer_id: Bytes::copy_from_slice(peer.as_bytes()),
            bytes_per_second: 0,
        };
        let issued = self.registry().await.issue_relay_ticket(request).await;
        let issued = issued.map_err(|status| format!("no ticket for {relay}: {}", status.message()))?;
        issued.into_inner().ticket.ok_or_else(|| format!("an empty ticket for {relay}"))
    }

    async fn seat(&self, name: &str) -> Result<mpsc::Sender<CarryRequest>, String> {
        let mut seats = self.0.seats.lock().await;
        if let Some(asks) = seats.get(name).and_then(Seat::asks) {
            return Ok(asks);
        }
        let Known { place, .. } = self.known(name).await?;
        let (asks, outgoing) = mpsc::channel(seat::OUTGOING);
        let opening = self.enter(&place, outgoing);
        let taken = Seat::take(name, asks, opening, &self.0.endpoint, &self.0.events).await;
        if let (Err(reason), Place::Node(contact)) = (&taken, &place) {
            tracing::info!(node = %contact.node.short(), reason, "a super node does not relay");
            self.complain(contact.node);
        }
        let seat = taken.map_err(|error| format!("{name}: {error}"))?;
        let asks = seat.asks().ok_or_else(|| format!("{name} is gone"))?;
        seats.insert(name.to_owned(), seat);
        Ok(asks)
    }

    async fn enter(
        &self,
        place: &Place,
        outgoing: mpsc::Receiver<CarryRequest>,
    ) -> Result<(Answers, Option<SocketAddr>), String> {
        match place {
            Place::Service(relay) => {
                let addresses = known::tcp_addresses(relay);
                let client = &self.0.client;
                let master = client.at(addresses, client.tls.clone()).keep_alive(KEEP_ALIVE);
                let (answers, udp) =
                    tokio::join!(seat::by_stream(master.service(RELAY), outgoing), known::udp_address(relay));
                Ok((answers?, udp))
            }
            Place::Node(contact) => {
                let endpoint = &self.0.endpoint;
                let answers = self.0.switch.sit(endpoint, contact.clone(), outgoing).await?;
                let udp = match endpoint.session(contact.node).map(|session| session.path()) {
                    Some(Path::Udp(at)) => Some(at),
                    _ => None,
                };
                Ok((answers, udp))
            }
        }
    }

    /// The registry has a super node probed at once that somebody does not reach.
    fn complain(&self, node: NodeId) {
        let relays = self.clone();
        tokio::spawn(async move {
            let node_id = Bytes::copy_from_slice(node.as_bytes());
            let report = SuperNodeReport { node_id, unreachable: true, ..SuperNodeReport::default() };
            let request = ReportSuperNodesRequest { reports: vec![report] };
            if let Err(status) = relays.registry().await.report_super_nodes(request).await {
                tracing::debug!(error = status.message(), "the registry does not hear of a super node");
            }
        });
    }

    /// Where that relay is; a caller may name one that this node was not told of.
    async fn known(&self, name: &str) -> Result<Known, String> {
        for anew in [false, true] {
            let listing = self.listing(anew).await?;
            if let Some(known) = listing.relays.into_iter().find(|relay| relay.name == name) {
                return Ok(known);
            }
        }
        Err(format!("the registry lists no relay {name}"))
    }

    async fn registry(&self) -> RegistryServiceClient<muster_kit::connect::MasterChannel> {
        RegistryServiceClient::new(self.0.client.master().await.service(GSN_REGISTRY))
    }

    async fn listing(&self, anew: bool) -> Result<Listing, String> {
        let mut known = self.0.listing.lock().await;
        let fresh = |listing: &&Listing| !anew && Instant::now() < listing.until;
        if let Some(listing) = known.as_ref().filter(fresh) {
            return Ok(listing.clone());
        }
        let page_size = if anew { PAGE } else { 0 };
        let request = ListSuperNodesRequest { page_size, ..ListSuperNodesRequest::default() };
        let answer = match (self.registry().await.list_super_nodes(request).await, known.as_ref()) {
            (Ok(answer), _) => answer.into_inner(),
            // What was good a while ago is better than nothing, while the master is away.
            (Err(_), Some(old)) => return Ok(old.clone()),
            (Err(status), None) => return Err(format!("the registry: {}", status.message())),
        };
        let until = Instant::now() + answer.fresh_for.and_then(span_from_wire).unwrap_or(FRESH);
        let relays = known::all(answer.relays, answer.super_nodes);
        let mut servers = Vec::new();
        for relay in &relays {
            servers.extend(relay.place.sees_us().await);
        }
        if servers.len() < SERVERS {
            servers.extend(self.bootstrap_nodes().await);
        }
        let mut asked = std::collections::HashSet::new();
        servers.retain(|server| asked.insert(*server));
        servers.truncate(SERVERS);
        let listing = Listing { relays, servers, until };
        *known = Some(listing.clone());
        Ok(listing)
    }

    /// They stand at public addresses, and answer the same question.
    async fn bootstrap_nodes(&self) -> Vec<SocketAddr> {
        let request = muster_proto::dht::v1::ContactsRequest { max_contacts: CONTACTS };
        let answer = self.0.client.dht_contacts(request).await.unwrap_or_default();
        let contacts = answer.bootstrap.iter().filter_map(|it| window::contact_from_wire(it).ok());
        contacts.map(|contact| contact.at).collect()
    }
}
