//! The network's global super nodes, as the hash table has them: for the time when the registry is not reached.

use muster_net::dht::{Care, Dht, Kind, Wish};
use muster_types::{Contact, NetworkId, NodeId};
use muster_wire::record::{self, Value};
use rand::seq::SliceRandom;
use tokio::time::{Duration, timeout};

/// For the hash table: asked when its bootstrap nodes are dead as well, so for two lookups that meet half their contacts dead.
const PATIENCE: Duration = Duration::from_secs(3);

/// Clones ask the same table.
#[derive(Clone)]
pub(crate) struct SuperNodes {
    dht: Dht,
    network: NetworkId,
    own: NodeId,
}

impl SuperNodes {
    pub(crate) fn new(dht: Dht, network: NetworkId, own: NodeId) -> Self {
        Self { dht, network, own }
    }

    /// Others that say they serve, each by its own signed record, in any order; nobody answers: none. A liar among them costs
    /// who tries it one attempt: what goes by a super node is sealed and acknowledged from end to end.
    pub(crate) async fn find(&self) -> Vec<Contact> {
        let key = record::super_nodes_key(self.network);
        let search = self.dht.get(key, Kind::Gsn, Wish::Newest, Care::OnMiss);
        let found = match timeout(PATIENCE, search).await {
            Ok(Ok(got)) => got.found,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the hash table names no super nodes");
                Vec::new()
            }
            Err(_) => Vec::new(),
        };
        let contacts = found.into_iter().filter_map(|opened| match opened.value {
            Value::Gsn { contact, .. } if contact.node == opened.record.publisher => Some(contact),
            _ => None,
        });
        let mut others: Vec<_> =
            contacts.filter(|it| it.node != self.own && !it.addresses.is_empty()).collect();
        others.shuffle(&mut rand::rng());
        others
    }
}
