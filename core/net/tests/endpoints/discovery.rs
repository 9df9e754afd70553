//! The local network, here the loopback interface: agents of one host hear each other.

use bytes::Bytes;
use muster_net::interfaces::Interface;
use muster_net::{NetEvent, discovery};
use muster_types::Prefix;
use muster_wire::testing::TestNetwork;

use crate::house::{self, Guest, V4, V6, id};

/// By Linux's custom the first.
const LOOPBACK: u32 = 1;

fn loopback() -> Interface {
    Interface {
        index: LOOPBACK,
        name: "lo".to_owned(),
        wired: true,
        addresses: vec![(V4, Prefix::of(V4, 8)), (V6, Prefix::of(V6, 128))],
        gateways: Vec::new(),
    }
}

async fn neighbor(network: &TestNetwork, number: u8, port: u16) -> Guest {
    let mut config = house::config(network, &network.node(id(number)), 1);
    config.discovery = Some(discovery::Config { port, interfaces: Some(vec![loopback()]) });
    house::open(config, id(number)).await
}

async fn heard(guest: &mut Guest) -> (std::net::SocketAddr, Bytes, Option<u32>) {
    match guest.next().await {
        NetEvent::Discovery { from, bytes, interface } => (from, bytes, interface),
        other => panic!("expected a discovery datagram, not {other:?}"),
    }
}

/// A port that nobody else of this host listens on.
fn free_port() -> u16 {
    std::net::UdpSocket::bind((V4, 0)).unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_query_is_heard_by_every_agent_of_the_host_and_the_answer_by_the_asking_one_alone() {
    let network = TestNetwork::new();
    let port = free_port();
    let mut alice = neighbor(&network, 1, port).await;
    let mut bob = neighbor(&network, 2, port).await;
    let mut carol = neighbor(&network, 3, port).await;
    alice.endpoint.multicast(&[discovery_mark(), 1, 2, 3]);
    for listener in [&mut bob, &mut carol] {
        let (from, bytes, interface) = heard(listener).await;
        assert_eq!(from.port(), alice.endpoint.port());
        assert_eq!((&bytes[1..], interface), (&[1, 2, 3][..], Some(LOOPBACK)));
        listener.endpoint.answer(from, &[discovery_mark(), listener.id.0[0]]);
    }
    let mut answers = Vec::new();
    while answers.len() < 2 {
        let (from, bytes, _) = heard(&mut alice).await;
        // Its own query comes back to it as well.
        if from.port() != alice.endpoint.port() && !answers.contains(&bytes[1]) {
            answers.push(bytes[1]);
        }
    }
    answers.sort_unstable();
    assert_eq!(answers, [2, 3]);
}

fn discovery_mark() -> u8 {
    muster_wire::discovery::MARK
}
