//! Our own table: the machine of `core/overlay` with the sockets of `core/net`, as agents run it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant as Watch;

use anyhow::{Context, Result, bail, ensure};
use arc_swap::ArcSwap;
use muster_net::dht::{Care, Dht, DhtConfig, DhtEvent, Kind, Standing, Wish};
use muster_net::sealed::SealedSocket;
use muster_overlay::dht::Settings;
use muster_types::{Instant, Key, NodeId};
use muster_wire::TrustStore;
use muster_wire::datagram::{Limits, PeerAddress};
use muster_wire::record::Value;
use muster_wire::testing::{NOW, TestNetwork};
use rand::Rng;
use tokio::sync::mpsc;

use crate::load::{Table, VALUE};

/// Fewer copies than this are no success: three quarters of k.
const COPIES: usize = 15;

struct Node {
    dht: Dht,
    address: PeerAddress,
    _events: mpsc::Receiver<DhtEvent>,
}

pub(crate) struct Muster {
    network: TestNetwork,
    trust: Arc<ArcSwap<TrustStore>>,
    nodes: Vec<Node>,
}

impl Muster {
    pub(crate) fn new() -> Self {
        let network = TestNetwork::new();
        let trust = Arc::new(ArcSwap::from_pointee(network.trust()));
        Self { network, trust, nodes: Vec::new() }
    }

    async fn node(&self) -> Result<Node> {
        let node = self.network.node(NodeId(rand::rng().random()));
        let socket = SealedSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let address = PeerAddress { node: node.id, key: node.own().public_key(), at: socket.local_addr()? };
        let begin = Watch::now();
        let config = DhtConfig {
            own: node.own(),
            signer: node.signer(1),
            trust: Arc::clone(&self.trust),
            clock: Arc::new(move || Instant::from_elapsed(begin.elapsed())),
            dates: Arc::new(move || NOW + begin.elapsed()),
            settings: Settings::default(),
            limits: Limits::default(),
        };
        let (carrier, datagrams) = socket.split();
        let (dht, events) = Dht::start(config, carrier, datagrams);
        Ok(Node { dht, address, _events: events })
    }
}

impl Table for Muster {
    type Key = Key;

    const SETTINGS: &'static str = "as agents run it (k 20); every node serves; datagrams encrypted, nodes and records \
        authenticated by certificates; a put is acknowledged by at least 15 of 20";

    async fn join(&mut self) -> Result<()> {
        let node = self.node().await?;
        if let Some(first) = self.nodes.first() {
            node.dht.bootstrap(vec![first.address]).await;
        }
        node.dht.standing(Standing { reachable: true, office: true, lsn: None }).await;
        if !self.nodes.is_empty() {
            node.dht.find(node.address.node.into(), Care::Plain).await?;
        }
        self.nodes.push(node);
        Ok(())
    }

    fn count(&self) -> usize {
        self.nodes.len()
    }

    async fn put(&self, node: usize, value: [u8; VALUE]) -> Result<Key> {
        let key = Key(rand::rng().random());
        let (kept, _) = self.nodes[node].dht.put(key, Value::Opaque(value.to_vec().into())).await?;
        ensure!(kept.count() >= COPIES, "kept by {} only", kept.count());
        Ok(key)
    }

    async fn get(&self, node: usize, key: &Key) -> Result<Vec<u8>> {
        let got = self.nodes[node].dht.get(*key, Kind::Opaque, Wish::First, Care::OnMiss).await?;
        match &got.found.first().context("a record")?.value {
            Value::Opaque(bytes) => Ok(bytes.to_vec()),
            other => bail!("{other:?}"),
        }
    }

    async fn find(&self, node: usize) -> Result<usize> {
        Ok(self.nodes[node].dht.find(Key(rand::rng().random()), Care::Plain).await?.0.len())
    }

    fn port(&self, node: usize) -> u16 {
        self.nodes[node].address.at.port()
    }

    fn drop_node(&mut self, node: usize) {
        self.nodes.swap_remove(node);
    }
}
