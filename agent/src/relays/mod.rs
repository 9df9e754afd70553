//! The relays of this node: which there are, by the registry; where it sits; and the channels to peers behind them.
//!
//! registry -> [`Relays::list`]; ticket -> [`Relays::open`] -> a seat's stream -> [`Event::Here`] with a path that QUIC dials.
//! Whoever is called only [`attend`](Relays::attend)s: the caller's ticket opens the channel for both.

mod seat;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_kit::connect::{GSN_REGISTRY, Master, RELAY};
use muster_net::{Endpoint, Path};
use muster_proto::gsn::v1::registry_service_client::RegistryServiceClient;
use muster_proto::gsn::v1::{IssueRelayTicketRequest, ListSuperNodesRequest, Relay};
use muster_proto::relay::v1::Open;
use muster_proto::relay::v1::carry_request::Request;
use muster_types::NodeId;
use muster_wire::time::span_from_wire;
use muster_wire::window;
use tokio::net::lookup_host;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use crate::control::Client;
use seat::Seat;

/// Relays that a pair may use: one, and the one that is warm beside it.
pub(crate) const OF_A_PAIR: usize = 2;

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
}

#[derive(Clone)]
struct Listing {
    relays: Vec<Relay>,
    servers: Vec<SocketAddr>,
    until: Instant,
}

impl Relays {
    pub(crate) fn new(client: Client, endpoint: Endpoint) -> (Self, mpsc::Receiver<Event>) {
        let (events, inbox) = mpsc::channel(seat::EVENTS);
        let (listing, seats) = (Mutex::default(), Mutex::default());
        (Self(Arc::new(Shared { client, endpoint, events, listing, seats })), inbox)
    }

    /// Names of the relays that a pair may use, best first.
    ///
    /// # Errors
    /// The registry is not reached, or lists none.
    pub(crate) async fn list(&self) -> Result<Vec<String>, String> {
        let listing = self.listing().await?;
        let open = listing.relays.iter().filter(|relay| !relay.draining);
        let names: Vec<_> = open.map(|relay| relay.name.clone()).take(OF_A_PAIR).collect();
        if names.is_empty() { Err("the registry lists no relay".to_owned()) } else { Ok(names) }
    }

    /// Servers outside that tell how they see this node.
    pub(crate) async fn servers(&self) -> Vec<SocketAddr> {
        match self.listing().await {
            Ok(listing) => listing.servers,
            Err(reason) => {
                tracing::debug!(reason, "bootstrap nodes alone tell how this node is seen");
                self.bootstrap_nodes().await
            }
        }
    }

    pub(crate) async fn standing(&self) -> Vec<Standing> {
        let relays = self.listing().await.map(|listing| listing.relays).unwrap_or_default();
        let seats = self.0.seats.lock().await;
        let standing = relays.into_iter().map(|relay| Standing {
            connected: seats.get(&relay.name).is_some_and(Seat::is_taken),
            addresses: tcp_addresses(&relay),
            name: relay.name,
        });
        standing.collect()
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

    async fn seat(&self, name: &str) -> Result<mpsc::Sender<muster_proto::relay::v1::CarryRequest>, String> {
        let mut seats = self.0.seats.lock().await;
        if let Some(asks) = seats.get(name).and_then(Seat::asks) {
            return Ok(asks);
        }
        let listing = self.listing().await?;
        let relay = listing.relays.iter().find(|relay| relay.name == name);
        let relay = relay.ok_or_else(|| format!("the registry lists no relay {name}"))?;
        let master = Master::new(tcp_addresses(relay), self.0.client.tls.clone()).keep_alive(KEEP_ALIVE);
        let taken = Seat::take(name, master.service(RELAY), &self.0.endpoint, &self.0.events).await;
        let seat = taken.map_err(|error| format!("{name}: {error}"))?;
        let asks = seat.asks().ok_or_else(|| format!("{name} is gone"))?;
        seats.insert(name.to_owned(), seat);
        Ok(asks)
    }

    async fn registry(&self) -> RegistryServiceClient<muster_kit::connect::MasterChannel> {
        let addresses = self.0.client.addresses.current().await;
        let master = Master::new(addresses, self.0.client.tls.clone());
        RegistryServiceClient::new(master.service(GSN_REGISTRY))
    }

    async fn listing(&self) -> Result<Listing, String> {
        let mut known = self.0.listing.lock().await;
        if let Some(listing) = known.as_ref().filter(|listing| Instant::now() < listing.until) {
            return Ok(listing.clone());
        }
        let asked = self.registry().await.list_super_nodes(ListSuperNodesRequest::default()).await;
        let answer = match (asked, known.as_ref()) {
            (Ok(answer), _) => answer.into_inner(),
            // What was good a while ago is better than nothing, while the master is away.
            (Err(_), Some(old)) => return Ok(old.clone()),
            (Err(status), None) => return Err(format!("the registry: {}", status.message())),
        };
        let mut servers = Vec::new();
        for relay in &answer.relays {
            servers.extend(udp_address(relay).await);
        }
        for node in answer.super_nodes.into_iter().filter_map(|node| node.contact) {
            servers.extend(addresses_of(&node));
        }
        if servers.len() < SERVERS {
            servers.extend(self.bootstrap_nodes().await);
        }
        servers.dedup();
        servers.truncate(SERVERS);
        let fresh = answer.fresh_for.and_then(span_from_wire).unwrap_or(FRESH);
        let listing = Listing { relays: answer.relays, servers, until: Instant::now() + fresh };
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

fn tcp_addresses(relay: &Relay) -> Vec<String> {
    let address = |host: &str, port: u32| match host.parse() {
        Ok(std::net::IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
        _ => format!("{host}:{port}"),
    };
    relay.addresses.iter().map(|it| address(&it.host, it.tcp_port)).collect()
}

/// The first that resolves.
async fn udp_address(relay: &Relay) -> Option<SocketAddr> {
    for address in &relay.addresses {
        let port = u16::try_from(address.udp_port).ok().filter(|port| *port != 0)?;
        if let Ok(mut found) = lookup_host((address.host.as_str(), port)).await {
            return found.next();
        }
    }
    None
}

fn addresses_of(contact: &muster_proto::overlay::v1::Contact) -> Vec<SocketAddr> {
    let address = |wire: &muster_proto::overlay::v1::SocketAddress| {
        let ip = match wire.ip.len() {
            4 => <[u8; 4]>::try_from(&wire.ip[..]).ok()?.into(),
            _ => std::net::IpAddr::from(<[u8; 16]>::try_from(&wire.ip[..]).ok()?),
        };
        Some(SocketAddr::new(ip, u16::try_from(wire.udp_port).ok().filter(|port| *port != 0)?))
    };
    contact.addresses.iter().filter_map(address).collect()
}
