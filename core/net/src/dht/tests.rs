//! A small table of real machines on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant as Watch};

use arc_swap::ArcSwap;
use bytes::Bytes;
use muster_overlay::dht::{Answer, Request};
use muster_types::{Address, Contact, Instant, Key, NodeId};
use muster_wire::datagram::PeerAddress;
use muster_wire::record::{self, Value};
use muster_wire::testing::{NOW, TestNetwork};
use rand::Rng;
use tokio::sync::mpsc;

use super::*;
use crate::sealed::SealedSocket;

struct Node {
    dht: Dht,
    address: PeerAddress,
    _events: mpsc::Receiver<DhtEvent>,
}

async fn node(network: &TestNetwork, id: NodeId, trust: &Arc<ArcSwap<TrustStore>>) -> Node {
    let node = network.node(id);
    let socket = SealedSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let address = PeerAddress { node: id, key: node.own().public_key(), at: socket.local_addr().unwrap() };
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
    Node { dht, address, _events: events }
}

/// Nodes that know each other through the first.
async fn table(network: &TestNetwork, count: usize) -> Vec<Node> {
    let trust = Arc::new(ArcSwap::from_pointee(network.trust()));
    let mut nodes: Vec<Node> = Vec::new();
    for _ in 0..count {
        let node = node(network, NodeId(rand::rng().random()), &trust).await;
        if let Some(first) = nodes.first() {
            node.dht.bootstrap(vec![first.address]).await;
        }
        node.dht.standing(Standing { reachable: true, office: true, lsn: None }).await;
        if !nodes.is_empty() {
            node.dht.find(node.address.node.into(), Care::Plain).await.unwrap();
        }
        nodes.push(node);
    }
    nodes
}

fn opaque(text: &str) -> Value {
    Value::Opaque(Bytes::copy_from_slice(text.as_bytes()))
}

#[tokio::test]
async fn what_one_node_puts_every_other_gets_and_twenty_hold_it() {
    let network = TestNetwork::new();
    let nodes = table(&network, 30).await;
    let key = record::named_key("printer");
    let (kept, _) = nodes[3].dht.put(key, opaque("third floor")).await.unwrap();
    assert_eq!(kept.count(), 20, "{kept:?}");
    for node in &nodes {
        let got = node.dht.get(key, Kind::Opaque, Wish::First, Care::Plain).await.unwrap();
        assert_eq!(got.found[0].value, opaque("third floor"));
        assert_eq!(got.found[0].record.publisher, nodes[3].address.node);
    }
}

#[tokio::test]
async fn a_missing_key_is_named_with_how_many_were_asked() {
    let network = TestNetwork::new();
    let nodes = table(&network, 5).await;
    let key = record::named_key("nowhere");
    let error = nodes[1].dht.get(key, Kind::Opaque, Wish::First, Care::Plain).await.unwrap_err();
    let DhtError::NoSuchKey { key: named, answered, .. } = &error else { panic!("{error}") };
    assert!(*named == key && *answered >= 3, "{error}");
}

#[tokio::test]
async fn what_is_too_large_or_anothers_is_refused_before_it_is_sent() {
    let network = TestNetwork::new();
    let nodes = table(&network, 3).await;
    let large = Value::Opaque(vec![0; 1_000].into());
    let error = nodes[0].dht.put(record::named_key("large"), large).await.unwrap_err();
    assert!(error.to_string().contains("1024 are the most"), "{error}");
    let other = Contact { node: nodes[1].address.node, addresses: Vec::new() };
    let error =
        nodes[0].dht.put(other.node.into(), Value::Contact(other.clone(), Vec::new())).await.unwrap_err();
    assert!(matches!(error, DhtError::Record(_)), "{error}");
}

#[tokio::test]
async fn a_clients_contact_is_found_by_a_stranger_and_its_keys_with_it() {
    let network = TestNetwork::new();
    let nodes = table(&network, 8).await;
    let trust = Arc::new(ArcSwap::from_pointee(network.trust()));
    let client = node(&network, NodeId([9; 20]), &trust).await;
    client.dht.standing(Standing { reachable: false, office: false, lsn: Some(nodes[2].address) }).await;
    let address =
        Address { ip: client.address.at.ip(), udp_port: Some(client.address.at.port()), tcp_port: None };
    let contact = Contact { node: client.address.node, addresses: vec![address] };
    let key = Key::from(client.address.node);
    client.dht.publish(key, Value::Contact(contact.clone(), Vec::new())).await.unwrap();
    client.dht.publish(key, Value::NodeKeys).await.unwrap();
    let stranger = &nodes[6].dht;
    let found = stranger.get(key, Kind::Contact, Wish::Newest, Care::Plain).await.unwrap();
    assert_eq!(found.found[0].value, Value::Contact(contact, Vec::new()));
    let keys = stranger.get(key, Kind::NodeKeys, Wish::Newest, Care::Plain).await.unwrap();
    let ticket = keys.found[0].ticket.as_ref().unwrap();
    assert_eq!((ticket.node, ticket.noise_key), (client.address.node, client.address.key));
}

#[tokio::test]
async fn when_a_third_of_the_nodes_is_gone_values_are_still_found() {
    let network = TestNetwork::new();
    let mut nodes = table(&network, 30).await;
    let key = record::named_key("still here");
    nodes[0].dht.put(key, opaque("yes")).await.unwrap();
    nodes.drain(1..11);
    let begin = Watch::now();
    for node in &nodes[1..6] {
        let got = node.dht.get(key, Kind::Opaque, Wish::First, Care::Plain).await.unwrap();
        assert_eq!(got.found[0].value, opaque("yes"));
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_node_is_asked_directly_by_its_address() {
    let network = TestNetwork::new();
    let nodes = table(&network, 3).await;
    let answer = nodes[1].dht.ask_one(nodes[2].address, Request::Ping).await;
    assert!(matches!(answer, Some(Answer::Pong { .. })), "{answer:?}");
    let false_id = PeerAddress { node: NodeId([77; 20]), ..nodes[2].address };
    let trust = Arc::new(ArcSwap::from_pointee(network.trust()));
    let newcomer = node(&network, NodeId([5; 20]), &trust).await;
    assert_eq!(newcomer.dht.ask_one(false_id, Request::Ping).await, None);
}

#[tokio::test]
async fn a_revoked_node_is_cut_and_its_ticket_forgotten() {
    let network = TestNetwork::new();
    let nodes = table(&network, 2).await;
    let (revoked, before) = (nodes[1].address.node, nodes[0].dht.stats().await.unwrap().2);
    assert!(before > 0);
    nodes[0].dht.forget(move |peer| peer.node == revoked).await;
    assert_eq!(nodes[0].dht.stats().await.unwrap().2, 0);
}
