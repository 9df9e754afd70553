//! Endpoints on loopback, with real sockets and certificates made here.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_net::{Config, Endpoint, Material, NetEvent, Session};
use muster_types::{Address, Contact, NodeId};
use muster_wire::hello::{self, Host};
use muster_wire::testing::{NOW, TestNetwork, TestNode};
use rustls::pki_types::PrivateKeyDer;
use tokio::sync::mpsc;
use tokio::time::timeout;

pub(crate) const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
pub(crate) const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

/// Longer than anything here takes, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(15);

/// One endpoint and what it tells.
pub(crate) struct Guest {
    pub(crate) id: NodeId,
    pub(crate) endpoint: Endpoint,
    pub(crate) events: mpsc::Receiver<NetEvent>,
}

pub(crate) fn id(number: u8) -> NodeId {
    NodeId([number; 20])
}

pub(crate) fn material(network: &TestNetwork, node: &TestNode) -> Material {
    Material {
        chain: node.chain.clone(),
        key: PrivateKeyDer::try_from(node.tls_key.clone()).unwrap(),
        roots: vec![network.root()],
    }
}

/// What a node of `network` is bound with; tests change what they are about.
pub(crate) fn config(network: &TestNetwork, node: &TestNode, boot_nonce: u64) -> Config {
    let hello = hello::encode(&Host::default(), "0.1.0".parse().unwrap(), &[], &node.signer(boot_nonce));
    let mut config = Config::new(material(network, node), Arc::new(network.trust()), hello, Arc::new(|| NOW));
    config.port = 0;
    config.bind = vec![V4, V6];
    config.discovery = None;
    config
}

pub(crate) async fn open(config: Config, id: NodeId) -> Guest {
    let (endpoint, events) = Endpoint::bind(config).await.unwrap();
    Guest { id, endpoint, events }
}

pub(crate) async fn guest(network: &TestNetwork, number: u8) -> Guest {
    open(config(network, &network.node(id(number)), number.into()), id(number)).await
}

impl Guest {
    pub(crate) fn contact(&self, ip: IpAddr) -> Contact {
        let port = Some(self.endpoint.port());
        Contact { node: self.id, addresses: vec![Address { ip, udp_port: port, tcp_port: port }] }
    }

    pub(crate) async fn next(&mut self) -> NetEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("a living endpoint")
    }

    pub(crate) async fn opened(&mut self) -> Session {
        match self.next().await {
            NetEvent::SessionOpened(session) => session,
            other => panic!("expected an opened session, not {other:?}"),
        }
    }

    pub(crate) async fn message(&mut self) -> (Session, Bytes) {
        match self.next().await {
            NetEvent::Message { from, bytes } => (from, bytes),
            other => panic!("expected a message, not {other:?}"),
        }
    }

    pub(crate) async fn closed(&mut self) -> muster_net::CloseReason {
        match self.next().await {
            NetEvent::SessionClosed { reason, .. } => reason,
            other => panic!("expected a closed session, not {other:?}"),
        }
    }
}

/// A contact whose addresses lead nowhere in particular.
pub(crate) fn contact_at(node: NodeId, udp: Option<SocketAddr>, tcp: Option<SocketAddr>) -> Contact {
    let ip = udp.or(tcp).unwrap().ip();
    let address = Address { ip, udp_port: udp.map(|a| a.port()), tcp_port: tcp.map(|a| a.port()) };
    Contact { node, addresses: vec![address] }
}
