//! So many nodes of one table in this process, each with its own socket, keys and task.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant as Watch;

use anyhow::Result;
use arc_swap::ArcSwap;
use muster_net::dht::{Care, Dht, DhtConfig, DhtEvent, Standing};
use muster_net::sealed::SealedSocket;
use muster_overlay::dht::Settings;
use muster_types::{Instant, NodeId};
use muster_wire::TrustStore;
use muster_wire::datagram::{Limits, PeerAddress};
use muster_wire::record::Value;
use muster_wire::testing::{NOW, TestNetwork};
use rand::Rng;
use rand::seq::IndexedRandom;
use tokio::sync::mpsc;

/// The length of what is stored: a contact's.
const VALUE: usize = 100;

struct Node {
    dht: Dht,
    address: PeerAddress,
    _events: mpsc::Receiver<DhtEvent>,
}

pub(super) struct Crowd {
    nodes: Vec<Node>,
}

pub(super) fn opaque() -> Value {
    Value::Opaque(vec![7; VALUE].into())
}

impl Crowd {
    /// One after another joins through the first, as an office holder does.
    pub(super) async fn gather(count: usize) -> Result<Self> {
        let network = TestNetwork::new();
        let trust = Arc::new(ArcSwap::from_pointee(network.trust()));
        let mut crowd = Self { nodes: Vec::new() };
        for _ in 0..count {
            let node = node(&network, &trust).await?;
            if let Some(first) = crowd.nodes.first() {
                node.dht.bootstrap(vec![first.address]).await;
            }
            node.dht.standing(Standing { reachable: true, office: true, lsn: None }).await;
            if !crowd.nodes.is_empty() {
                node.dht.find(node.address.node.into(), Care::Plain).await?;
            }
            crowd.nodes.push(node);
        }
        Ok(crowd)
    }

    pub(super) fn anyone(&self) -> Dht {
        // A crowd of nobody would have failed to gather.
        let node = self.nodes.choose(&mut rand::rng());
        node.map(|node| node.dht.clone()).unwrap_or_else(|| unreachable!("a crowd has nodes"))
    }

    /// Every session is gone, as after a change of network.
    pub(super) async fn forget_sessions(&self) {
        for node in &self.nodes {
            node.dht.network_changed().await;
        }
    }

    /// So many vanish without a word.
    pub(super) fn kill(&mut self, count: usize) {
        for _ in 0..count.min(self.nodes.len().saturating_sub(1)) {
            let victim = rand::rng().random_range(0..self.nodes.len());
            self.nodes.swap_remove(victim);
        }
    }
}

async fn node(network: &TestNetwork, trust: &Arc<ArcSwap<TrustStore>>) -> Result<Node> {
    let node = network.node(NodeId(rand::rng().random()));
    let socket = SealedSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let address = PeerAddress { node: node.id, key: node.own().public_key(), at: socket.local_addr()? };
    let begin = Watch::now();
    let config = DhtConfig {
        own: node.own(),
        signer: node.signer(1),
        trust: Arc::clone(trust),
        clock: Arc::new(move || Instant::from_elapsed(begin.elapsed())),
        dates: Arc::new(move || NOW + begin.elapsed()),
        settings: Settings::default(),
        limits: Limits::default(),
    };
    let (carrier, datagrams) = socket.split();
    let (dht, events) = Dht::start(config, carrier, datagrams);
    Ok(Node { dht, address, _events: events })
}
