//! The relays of this node, the master's and super nodes: which there are, by the registry; where it sits; and the channels
//! to peers behind them.
//!
//! registry -> [`Relays::list`]; ticket -> [`Relays::open`] -> a seat's stream -> [`Event::Here`] with a path that QUIC dials.
//! Whoever is called only [`attend`](Relays::attend)s: the caller's ticket opens the channel for both.

mod known;
mod node;
mod registry;
mod seat;
mod seats;
mod udp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_kit::connect::{Proxy, RELAY, Tried};
use muster_net::{Endpoint, Path};
use muster_proto::relay::v1::carry_request::Request;
use muster_proto::relay::v1::{CarryRequest, CarryResponse, Open};
use muster_types::NodeId;
use tokio::sync::mpsc;

use crate::control::Client;
use crate::super_nodes::SuperNodes;
use known::{Known, Place};
use node::Switch;
use registry::Registry;
use seat::{Answers, Seat};
use seats::Seats;

/// Relays that a pair may use: one, and the one that is warm beside it.
pub(crate) const OF_A_PAIR: usize = 2;

/// A dead relay is noticed by its closed connection; a network that swallows everything, by this.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

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
    registry: Arc<Registry>,
    seats: Seats,
    switch: Switch,
}

impl Relays {
    pub(crate) fn new(
        client: Client,
        endpoint: Endpoint,
        super_nodes: SuperNodes,
    ) -> (Self, mpsc::Receiver<Event>) {
        let (events, inbox) = mpsc::channel(seat::EVENTS);
        let registry = Arc::new(Registry::new(client.clone(), super_nodes));
        let (seats, switch) = (Seats::default(), Switch::default());
        (Self(Arc::new(Shared { client, endpoint, events, registry, seats, switch })), inbox)
    }

    /// A super node answers what this node asked it as a relay.
    pub(crate) fn answered(&self, by: NodeId, answer: CarryResponse) {
        self.0.switch.answered(by, answer);
    }

    /// Whether a session with that node carries a seat.
    pub(crate) fn sits_at(&self, node: NodeId) -> bool {
        self.0.switch.sits_at(node)
    }

    /// Names of the relays that a pair may use, best first.
    ///
    /// # Errors
    /// The registry is not reached, or lists none.
    pub(crate) async fn list(&self) -> Result<Vec<String>, String> {
        let listing = self.0.registry.listing().await?;
        let open = listing.relays.iter().filter(|relay| relay.open);
        let names: Vec<_> = open.map(|relay| relay.name.clone()).take(OF_A_PAIR).collect();
        if names.is_empty() { Err("the registry lists no relay".to_owned()) } else { Ok(names) }
    }

    /// Servers outside that tell how they see this node.
    pub(crate) async fn servers(&self) -> Vec<SocketAddr> {
        match self.0.registry.listing().await {
            Ok(listing) => listing.servers,
            Err(reason) => {
                tracing::debug!(reason, "bootstrap nodes alone tell how this node is seen");
                self.0.registry.bootstrap_nodes().await
            }
        }
    }

    pub(crate) async fn standing(&self) -> Vec<Standing> {
        let relays = self.0.registry.listing().await.map(|listing| listing.relays).unwrap_or_default();
        let standing = relays.into_iter().map(|relay| Standing {
            connected: self.0.seats.is_taken(&relay.name),
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
        let (asks, ticket) = tokio::join!(self.seat(relay), self.0.registry.ticket(relay, peer));
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

    async fn seat(&self, name: &str) -> Result<mpsc::Sender<CarryRequest>, String> {
        self.0.seats.at(name, self.sit(name)).await
    }

    async fn sit(&self, name: &str) -> Result<Seat, String> {
        let Known { place, .. } = self.0.registry.relay(name).await?;
        let (asks, outgoing) = mpsc::channel(seat::OUTGOING);
        let opening = self.enter(&place, outgoing);
        let taken = Seat::take(name, asks, opening, &self.0.endpoint, &self.0.events).await;
        if let (Err(reason), Place::Node(contact)) = (&taken, &place) {
            tracing::info!(node = %contact.node.short(), reason, "a super node does not relay");
            self.0.registry.complain(contact.node);
        }
        taken
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
}
