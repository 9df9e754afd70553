//! The keys of other nodes, verified against the pinned root: of whom this node has met they are known, of the others the
//! hash table has them, and failing that the master. None of these can invent a key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use muster_kit::clock::MasterClock;
use muster_net::Endpoint;
use muster_net::dht::{Care, Dht, Kind, Wish};
use muster_types::NodeId;
use muster_wire::TrustStore;
use muster_wire::ticket::{NodeTicket, TicketError};
use tokio::time::timeout;

use crate::control::Client;

/// Nodes whose keys are kept; beyond it they are sought anew.
const KEPT: usize = 1_024;

/// For the hash table: a lookup that meets half its contacts dead ends within it (tests/RESULTS.md).
const TABLE_PATIENCE: Duration = Duration::from_millis(1_500);

/// For the master: one round trip and a handshake, far away.
const MASTER_PATIENCE: Duration = Duration::from_millis(1_500);

/// Who said which keys a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Kept,
    Session,
    Table,
    Master,
}

impl Source {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Session => "session",
            Self::Table => "table",
            Self::Master => "master",
        }
    }
}

/// Why a node's keys are not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    #[error("nodes/{node}: the hash table has no keys ({table}), and the master names none ({master})")]
    Unknown { node: NodeId, table: String, master: String },
    #[error("nodes/{node} is {reason}")]
    Revoked { node: NodeId, reason: muster_wire::revocation::Reason },
    #[error("the master's word on nodes/{node} is not believed: {source}")]
    Disbelieved { node: NodeId, source: TicketError },
}

/// Clones share what they know.
#[derive(Clone)]
pub(crate) struct Keyring {
    dht: Dht,
    client: Client,
    endpoint: Endpoint,
    trust: Arc<ArcSwap<TrustStore>>,
    clock: MasterClock,
    kept: Arc<Mutex<HashMap<NodeId, NodeTicket>>>,
}

impl Keyring {
    pub(crate) fn new(dht: Dht, client: Client, endpoint: Endpoint, clock: MasterClock) -> Self {
        let trust = Arc::clone(&client.trust);
        Self { dht, client, endpoint, trust, clock, kept: Arc::default() }
    }

    /// The node's keys, and who said so.
    ///
    /// # Errors
    /// Nobody knows them within three seconds, or the node is not admitted any more.
    pub(crate) async fn find(&self, node: NodeId) -> Result<(NodeTicket, Source), KeysError> {
        let met =
            self.endpoint.session(node).map(|session| (session.hello().ticket.clone(), Source::Session));
        let kept = || self.kept(node).map(|ticket| (ticket, Source::Kept));
        let found = match met.or_else(kept) {
            Some(found) => found,
            None => self.seek(node).await?,
        };
        self.admitted(&found.0)?;
        self.keep(&found.0);
        Ok(found)
    }

    async fn seek(&self, node: NodeId) -> Result<(NodeTicket, Source), KeysError> {
        let table = match self.in_table(node).await {
            Ok(ticket) => return Ok((ticket, Source::Table)),
            Err(reason) => reason,
        };
        tracing::debug!(node = %node.short(), reason = table, "asks the master for a node's keys");
        match timeout(MASTER_PATIENCE, self.client.node_ticket(node)).await {
            Ok(Ok(sealed)) => {
                let opened = NodeTicket::open(&sealed, &self.trust.load(), self.clock.now());
                let opened = opened.and_then(|it| of_node(it, node));
                let ticket = opened.map_err(|source| KeysError::Disbelieved { node, source })?;
                Ok((ticket, Source::Master))
            }
            Ok(Err(status)) => Err(KeysError::Unknown { node, table, master: status.message().to_owned() }),
            Err(_) => Err(KeysError::Unknown { node, table, master: "no answer".to_owned() }),
        }
    }

    /// The node's own signed record, with the ticket that says by which key it signs.
    async fn in_table(&self, node: NodeId) -> Result<NodeTicket, String> {
        let search = self.dht.get(node.into(), Kind::NodeKeys, Wish::First, Care::OnMiss);
        let got = timeout(TABLE_PATIENCE, search).await.map_err(|_| "no answer".to_owned())?;
        let found = got.map_err(|error| error.to_string())?.found;
        let tickets = found.into_iter().filter(|opened| opened.record.publisher == node);
        tickets.filter_map(|opened| opened.ticket).next().ok_or_else(|| "a record without keys".to_owned())
    }

    fn kept(&self, node: NodeId) -> Option<NodeTicket> {
        let now = self.clock.now();
        self.lock().get(&node).filter(|ticket| now <= ticket.not_after).cloned()
    }

    fn keep(&self, ticket: &NodeTicket) {
        let mut kept = self.lock();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(ticket.node, ticket.clone());
    }

    fn admitted(&self, ticket: &NodeTicket) -> Result<(), KeysError> {
        let node = ticket.node;
        match self.trust.load().revocations().of_holder(node, &ticket.certificate_serial, None) {
            None => Ok(()),
            Some(revoked) => Err(KeysError::Revoked { node, reason: revoked.reason }),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<NodeId, NodeTicket>> {
        // The map is consistent after every statement.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of_node(ticket: NodeTicket, node: NodeId) -> Result<NodeTicket, TicketError> {
    if ticket.node == node { Ok(ticket) } else { Err(TicketError::Field("node_id")) }
}
