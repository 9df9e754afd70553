//! Where a recipient's super nodes are: its record in the hash table names its subnets, these name their LSN, and that one's
//! record its super nodes while it has no master. Whoever has a session already is preferred.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_net::Endpoint;
use muster_net::dht::{Care, Dht, Kind, Wish};
use muster_types::{Contact, NodeId, SubnetKey};
use muster_wire::record::Value;
use tokio::time::{Instant, timeout};

use crate::volunteer::is_public;

/// What was found is good for so long: LSNs change, and words are repeated.
const FRESH: Duration = Duration::from_secs(30);
/// Recipients whose places are kept; beyond it all are sought anew.
const KEPT: usize = 256;

/// For one lookup in the hash table: one that meets half its contacts dead ends within it (tests/RESULTS.md).
const LOOKUP: Duration = Duration::from_millis(1_500);
/// For a session with a super node: some round trips around the world.
const DIAL: Duration = Duration::from_secs(2);
/// A super node that is not reached is not tried again for so long.
const AVOIDED: Duration = Duration::from_secs(60);

/// Subnets of one node and LSNs of one subnet that are looked at; more are of a cell that is about to split or join.
const SUBNETS: usize = 2;
const LSNS: usize = 2;

/// Where a word goes on: whoever has a session, and the LSN under which the recipient was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) peer: NodeId,
    pub(super) lsn: Option<NodeId>,
    /// The session was opened for this.
    pub(super) opened: bool,
}

/// An LSN as its record has it.
#[derive(Debug, Clone)]
struct Office {
    lsn: Contact,
    via: Vec<Contact>,
}

/// Clones share what they know.
#[derive(Clone)]
pub(super) struct Finder {
    dht: Dht,
    endpoint: Endpoint,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    offices: HashMap<NodeId, (Instant, Vec<Office>)>,
    avoided: HashMap<NodeId, Instant>,
}

impl Finder {
    pub(super) fn new(dht: Dht, endpoint: Endpoint) -> Self {
        Self { dht, endpoint, known: Arc::default() }
    }

    /// The next step to `to`; `gates` are super nodes with which this node holds sessions anyway.
    pub(super) async fn find(&self, to: NodeId, gates: &[NodeId]) -> Option<Step> {
        let offices = self.offices(to).await;
        let has = |node: NodeId| self.endpoint.session(node).is_some();
        for Office { lsn, via } in &offices {
            let near = std::iter::once(lsn.node).chain(via.iter().map(|gate| gate.node));
            if let Some(peer) = near.into_iter().find(|peer| has(*peer)) {
                return Some(Step { peer, lsn: Some(lsn.node), opened: false });
            }
        }
        for Office { lsn, via } in &offices {
            // A private address is somebody else's from here, most of the time.
            let public = lsn.addresses.iter().any(|address| is_public(address.ip));
            let (first, last) = if public { (Some(lsn), None) } else { (None, Some(lsn)) };
            for contact in first.into_iter().chain(via).chain(last) {
                if self.dial(contact).await {
                    return Some(Step { peer: contact.node, lsn: Some(lsn.node), opened: true });
                }
            }
        }
        // What leads nowhere is looked up anew: an LSN that has lost its master is about to name super nodes.
        self.lock().offices.remove(&to);
        let lsn = offices.first().map(|office| office.lsn.node)?;
        gates.iter().copied().find(|gate| has(*gate)).map(|peer| Step { peer, lsn: Some(lsn), opened: false })
    }

    async fn dial(&self, contact: &Contact) -> bool {
        let now = Instant::now();
        if contact.addresses.is_empty()
            || self.lock().avoided.get(&contact.node).is_some_and(|until| *until > now)
        {
            return false;
        }
        let dialled = timeout(DIAL, self.endpoint.connect(contact.clone())).await;
        let reached = matches!(dialled, Ok(Ok(_)));
        if !reached {
            tracing::debug!(node = %contact.node.short(), "a super node is not reached");
            let mut known = self.lock();
            known.avoided.retain(|_, until| *until > now);
            if known.avoided.len() < KEPT {
                known.avoided.insert(contact.node, now + AVOIDED);
            }
        }
        reached
    }

    async fn offices(&self, of: NodeId) -> Vec<Office> {
        let fresh = |at: &Instant| at.elapsed() < FRESH;
        if let Some((_, offices)) = self.lock().offices.get(&of).filter(|(at, _)| fresh(at)) {
            return offices.clone();
        }
        let mut offices = Vec::new();
        for subnet in self.subnets(of).await.into_iter().take(SUBNETS) {
            offices.extend(self.lsns(subnet).await);
        }
        let mut known = self.lock();
        if known.offices.len() >= KEPT {
            known.offices.clear();
        }
        if !offices.is_empty() {
            known.offices.insert(of, (Instant::now(), offices.clone()));
        }
        offices
    }

    async fn subnets(&self, of: NodeId) -> Vec<SubnetKey> {
        let values = self.values(of.into(), Kind::Contact, Wish::First).await;
        let subnets = values.into_iter().filter_map(|value| match value {
            Value::Contact(contact, subnets) if contact.node == of => Some(subnets),
            _ => None,
        });
        subnets.flatten().collect()
    }

    async fn lsns(&self, subnet: SubnetKey) -> Vec<Office> {
        let own = self.endpoint.node();
        let values = self.values(subnet.into(), Kind::Subnet, Wish::Newest).await;
        let offices = values.into_iter().filter_map(|value| match value {
            Value::Subnet { lsn, via, .. } if lsn.node != own => Some(Office { lsn, via }),
            _ => None,
        });
        offices.take(LSNS).collect()
    }

    async fn values(&self, key: muster_types::Key, kind: Kind, wish: Wish) -> Vec<Value> {
        match timeout(LOOKUP, self.dht.get(key, kind, wish, Care::OnMiss)).await {
            Ok(Ok(got)) => got.found.into_iter().map(|opened| opened.value).collect(),
            Ok(Err(error)) => {
                tracing::debug!(%key, %error, "the hash table does not say");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // The maps are consistent after every statement.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
