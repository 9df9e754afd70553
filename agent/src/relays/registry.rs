//! What the registry of super nodes says: which relays there are, who tells how this node is seen, and tickets.
//!
//! An answer is good for a while, a failure for a moment; one connection serves what is asked in a row, and none stands
//! while nothing is.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex as Lock, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use muster_kit::connect::{GSN_REGISTRY, MasterChannel};
use muster_proto::gsn::v1::registry_service_client::RegistryServiceClient;
use muster_proto::gsn::v1::{
    IssueRelayTicketRequest, ListSuperNodesRequest, ListSuperNodesResponse, ReportSuperNodesRequest,
    SuperNodeReport,
};
use muster_proto::trust::v1::Envelope;
use muster_types::NodeId;
use muster_wire::time::span_from_wire;
use muster_wire::window;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::known::{self, Known};
use crate::control::Client;
use crate::super_nodes::SuperNodes;

/// What the registry said is good for so long, unless it says otherwise.
const FRESH: Duration = Duration::from_secs(300);

/// A registry that was not reached is not asked again within this: all who wait get the same answer.
const PAUSE: Duration = Duration::from_secs(5);

/// For the registry's answer: a handshake far away. Meetings go on without it.
const PATIENCE: Duration = Duration::from_secs(3);

/// An unused connection is closed after this: of ten thousand agents few meet anybody.
const UNUSED: Duration = Duration::from_secs(30);

/// As many as the registry likes.
const FEW: i32 = 0;

/// Super nodes that are looked through for the one that a caller named.
const PAGE: i32 = 100;

/// Servers that are asked how they see this node: three tell whether ports are counted.
const SERVERS: usize = 3;

/// Asked of the hash table's bootstrap service, for more servers.
const CONTACTS: i32 = 8;

type RegistryClient = RegistryServiceClient<MasterChannel>;

pub(super) struct Registry {
    client: Client,
    super_nodes: SuperNodes,
    said: Mutex<Option<Said>>,
    connection: Arc<Lock<Option<Connection>>>,
}

/// What it said last, or why it said nothing.
struct Said {
    listing: Result<Listing, String>,
    /// Nothing more would come of asking for more.
    wide: bool,
    at: Instant,
    until: Instant,
}

#[derive(Clone)]
pub(super) struct Listing {
    pub(super) relays: Vec<Known>,
    pub(super) servers: Vec<SocketAddr>,
}

struct Connection {
    registry: RegistryClient,
    /// Closes it.
    _unused: AbortOnDropHandle<()>,
}

impl Registry {
    pub(super) fn new(client: Client, super_nodes: SuperNodes) -> Self {
        Self { client, super_nodes, said: Mutex::default(), connection: Arc::default() }
    }

    /// # Errors
    /// The registry is not reached, and said nothing before.
    pub(super) async fn listing(&self) -> Result<Listing, String> {
        self.ask(FEW).await
    }

    /// Where that relay is; a caller may name one that this node was not told of.
    ///
    /// # Errors
    /// The registry is not reached, or lists no such relay.
    pub(super) async fn relay(&self, name: &str) -> Result<Known, String> {
        for page in [FEW, PAGE] {
            let listing = self.ask(page).await?;
            if let Some(known) = listing.relays.into_iter().find(|relay| relay.name == name) {
                return Ok(known);
            }
        }
        Err(format!("the registry lists no relay {name}"))
    }

    /// Asks for more than a few even while what was said is good, but for more never twice within [`PAUSE`], whatever callers
    /// name.
    async fn ask(&self, page_size: i32) -> Result<Listing, String> {
        let mut said = self.said.lock().await;
        let now = Instant::now();
        let wide = |said: &Said| said.wide && now < said.at + PAUSE;
        let good = |said: &&Said| now < said.until && (page_size == FEW || wide(said));
        if let Some(said) = said.as_ref().filter(good) {
            return said.listing.clone();
        }
        let request = ListSuperNodesRequest { page_size, ..ListSuperNodesRequest::default() };
        let asked = self.say(request).await;
        let wide = page_size != FEW || asked.is_err();
        let (listing, good_for) = match asked {
            Ok(answer) => self.read(answer).await,
            Err(reason) => (self.without_master(said.take(), reason).await, PAUSE),
        };
        let at = Instant::now();
        *said = Some(Said { listing: listing.clone(), wide, at, until: at + good_for });
        listing
    }

    async fn say(&self, request: ListSuperNodesRequest) -> Result<ListSuperNodesResponse, String> {
        let mut registry = self.connection().await;
        let answer = match timeout(PATIENCE, registry.list_super_nodes(request)).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        self.close();
        Err(answer)
    }

    /// What was good a while ago is better than nothing, while the master is away, and super nodes also stand in the hash
    /// table: these tell how they see this node, and relay for whoever has a ticket.
    async fn without_master(&self, said: Option<Said>, reason: String) -> Result<Listing, String> {
        let old = said.and_then(|said| said.listing.ok());
        let mut listing = old.unwrap_or_else(|| Listing { relays: Vec::new(), servers: Vec::new() });
        let found = known::nodes(self.super_nodes.find().await);
        let servers = [seen_by(&found).await, listing.servers].concat();
        listing.servers = first_of_each(servers);
        listing.relays.extend(found);
        let mut names = BTreeSet::new();
        listing.relays.retain(|relay| names.insert(relay.name.clone()));
        if listing.relays.is_empty() { Err(format!("the registry: {reason}")) } else { Ok(listing) }
    }

    /// Has a super node probed at once that this node does not reach. Whoever sought a relay there does not wait for that.
    pub(super) fn complain(self: &Arc<Self>, node: NodeId) {
        let registry = self.clone();
        tokio::spawn(async move { registry.report(node).await });
    }

    async fn report(&self, node: NodeId) {
        let node_id = Bytes::copy_from_slice(node.as_bytes());
        let report = SuperNodeReport { node_id, unreachable: true, ..SuperNodeReport::default() };
        let request = ReportSuperNodesRequest { reports: vec![report] };
        if let Err(status) = self.connection().await.report_super_nodes(request).await {
            tracing::debug!(error = status.message(), "the registry does not hear of a super node");
        }
    }

    /// # Errors
    /// The registry grants none, or is not reached.
    pub(super) async fn ticket(&self, relay: &str, peer: NodeId) -> Result<Envelope, String> {
        let request = IssueRelayTicketRequest {
            relay: relay.to_owned(),
            peer_id: Bytes::copy_from_slice(peer.as_bytes()),
            bytes_per_second: 0,
        };
        let mut registry = self.connection().await;
        let issued = registry.issue_relay_ticket(request).await;
        let issued = issued.map_err(|status| {
            self.close();
            format!("no ticket for {relay}: {}", status.message())
        })?;
        issued.into_inner().ticket.ok_or_else(|| format!("an empty ticket for {relay}"))
    }

    /// They stand at public addresses, and tell how they see this node as well.
    pub(super) async fn bootstrap_nodes(&self) -> Vec<SocketAddr> {
        let request = muster_proto::dht::v1::ContactsRequest { max_contacts: CONTACTS };
        let answer = self.client.dht_contacts(request).await.unwrap_or_default();
        let contacts = answer.bootstrap.iter().filter_map(|it| window::contact_from_wire(it).ok());
        contacts.map(|contact| contact.at).collect()
    }

    async fn read(&self, answer: ListSuperNodesResponse) -> (Result<Listing, String>, Duration) {
        let relays = known::all(answer.relays, answer.super_nodes);
        let mut found = seen_by(&relays).await;
        if found.len() < SERVERS {
            found.extend(self.bootstrap_nodes().await);
        }
        let fresh = answer.fresh_for.and_then(span_from_wire).unwrap_or(FRESH);
        (Ok(Listing { relays, servers: first_of_each(found) }), fresh)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        // Nothing panics while it is held.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that stands, or a new one; closed when it has not been asked for in a while.
    async fn connection(&self) -> RegistryClient {
        let standing = self.lock().as_ref().map(|connection| connection.registry.clone());
        let registry = match standing {
            Some(registry) => registry,
            None => RegistryServiceClient::new(self.client.master().await.service(GSN_REGISTRY)),
        };
        let unused = AbortOnDropHandle::new(tokio::spawn(close_unused(Arc::downgrade(&self.connection))));
        *self.lock() = Some(Connection { registry: registry.clone(), _unused: unused });
        registry
    }

    /// The next one is made by the addresses of then.
    fn close(&self) {
        self.lock().take();
    }
}

async fn close_unused(connection: Weak<Lock<Option<Connection>>>) {
    tokio::time::sleep(UNUSED).await;
    if let Some(connection) = connection.upgrade() {
        connection.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Where these tell how they see this node.
async fn seen_by(relays: &[Known]) -> Vec<SocketAddr> {
    join_all(relays.iter().map(|relay| relay.place.sees_us())).await.concat()
}

/// As many as are asked, in their order, none twice: the same server asked twice tells nothing about ports.
fn first_of_each(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut servers = Vec::with_capacity(SERVERS);
    for server in found {
        if servers.len() < SERVERS && !servers.contains(&server) {
            servers.push(server);
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_server_is_asked_twice() {
        let at = |port| SocketAddr::from(([203, 0, 113, 1], port));
        assert_eq!(first_of_each(vec![at(1), at(2), at(1), at(3), at(4)]), [at(1), at(2), at(3)]);
    }
}
