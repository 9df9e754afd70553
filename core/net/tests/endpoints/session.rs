//! Sessions between endpoints on loopback: over every path, with the right peer only, and their ends.

use crate::house::{V4, V6, contact_at, guest, id};
use bytes::Bytes;
use muster_net::{CloseCode, CloseReason, DialError, NetEvent, Path, Side, TrafficClass};
use muster_types::limits;
use muster_wire::revocation::Reason;
use muster_wire::testing::TestNetwork;

#[tokio::test]
async fn two_nodes_talk_over_udp_of_both_families() {
    for ip in [V4, V6] {
        let network = TestNetwork::new();
        let (mut alice, mut bob) = (guest(&network, 1).await, guest(&network, 2).await);
        let session = alice.endpoint.connect(bob.contact(ip)).await.unwrap();
        let accepted = bob.opened().await;
        assert_eq!((session.peer(), accepted.peer()), (id(2), id(1)));
        assert_eq!((session.side(), accepted.side()), (Side::Dialled, Side::Accepted));
        assert_eq!(session.hello().boot_nonce, 2);
        assert!(matches!(accepted.path(), Path::Udp(from) if from.ip() == ip));
        assert_eq!(accepted.remote().unwrap().port(), alice.endpoint.port());

        session.send(Bytes::from_static(b"to bob")).await.unwrap();
        accepted.send(Bytes::from_static(b"to alice")).await.unwrap();
        assert_eq!(bob.message().await.1, "to bob");
        assert_eq!(alice.opened().await.peer(), id(2));
        assert_eq!(alice.message().await.1, "to alice");

        accepted.send_datagram(Bytes::from_static(b"beat")).unwrap();
        assert!(matches!(alice.next().await, NetEvent::Datagram { bytes, .. } if bytes == "beat"));
        assert_eq!(session.observed().unwrap().port(), alice.endpoint.port());
        assert!(session.rtt().is_some());
    }
}

#[tokio::test]
async fn a_message_as_large_as_any_arrives_whole_and_a_larger_one_is_not_sent() {
    let network = TestNetwork::new();
    let (alice, mut bob) = (guest(&network, 1).await, guest(&network, 2).await);
    let session = alice.endpoint.connect(bob.contact(V4)).await.unwrap();
    bob.opened().await;
    let largest = Bytes::from(vec![7; limits::MESSAGE_BYTES]);
    session.send(largest.clone()).await.unwrap();
    assert_eq!(bob.message().await.1, largest);
    let error = session.send(Bytes::from(vec![7; limits::MESSAGE_BYTES + 1])).await.unwrap_err();
    assert!(error.to_string().contains("262144 are the most"), "{error}");
}

#[tokio::test]
async fn connecting_again_gives_the_session_that_stands() {
    let network = TestNetwork::new();
    let (mut alice, bob) = (guest(&network, 1).await, guest(&network, 2).await);
    alice.endpoint.connect(bob.contact(V4)).await.unwrap();
    alice.opened().await;
    alice.endpoint.connect(bob.contact(V4)).await.unwrap();
    assert_eq!(alice.endpoint.sessions().len(), 1);
    assert!(alice.events.try_recv().is_err());
}

#[tokio::test]
async fn what_was_sent_before_a_close_arrives_and_the_reason_with_it() {
    let network = TestNetwork::new();
    let (mut alice, mut bob) = (guest(&network, 1).await, guest(&network, 2).await);
    let session = alice.endpoint.connect(bob.contact(V4)).await.unwrap();
    bob.opened().await;
    for number in 0..50_u8 {
        session.send(Bytes::from(vec![number; 1_000])).await.unwrap();
    }
    session.close(CloseCode::Done, "that was all");
    for number in 0..50_u8 {
        assert_eq!(bob.message().await.1[0], number);
    }
    let reason = "that was all".to_owned();
    assert_eq!(bob.closed().await, CloseReason::Peer { code: CloseCode::Done as u32, reason });
    alice.opened().await;
    assert_eq!(alice.closed().await, CloseReason::Local);
    assert!(alice.endpoint.session(id(2)).is_none());
}

#[tokio::test]
async fn a_valid_certificate_of_another_node_is_refused() {
    let network = TestNetwork::new();
    let (alice, bob) = (guest(&network, 1).await, guest(&network, 2).await);
    let mut contact = bob.contact(V4);
    contact.node = id(3);
    let error = alice.endpoint.connect(contact).await.unwrap_err();
    assert!(
        matches!(&error, DialError::Unreachable { reason, .. } if reason.contains("not valid for name")),
        "{error}"
    );
}

#[tokio::test]
async fn a_certificate_of_another_root_is_refused_by_either_end() {
    let (ours, theirs) = (TestNetwork::new(), TestNetwork::new());
    let (alice, mallory) = (guest(&ours, 1).await, guest(&theirs, 2).await);
    let error = alice.endpoint.connect(mallory.contact(V4)).await.unwrap_err();
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");

    // Believes Alice's root for once, so that it is she who refuses.
    let node = theirs.node(id(3));
    let mut config = crate::house::config(&theirs, &node, 3);
    config.material.roots = vec![ours.root()];
    config.trust = std::sync::Arc::new(ours.trust());
    let mallory = crate::house::open(config, id(3)).await;
    let error = mallory.endpoint.connect(alice.contact(V4)).await.unwrap_err();
    assert!(matches!(error, DialError::Refused { .. }), "{error}");
    assert!(alice.endpoint.sessions().is_empty());
}

#[tokio::test]
async fn a_ticket_of_another_certificate_is_refused() {
    let network = TestNetwork::new();
    let mut bob = guest(&network, 2).await;
    let (node, earlier) = (network.node(id(1)), network.node(id(1)));
    let mut config = crate::house::config(&network, &node, 1);
    config.hello = crate::house::config(&network, &earlier, 1).hello;
    let alice = crate::house::open(config, id(1)).await;
    let error = alice.endpoint.connect(bob.contact(V4)).await.unwrap_err();
    assert!(error.to_string().contains("another certificate of the same node"), "{error}");
    assert!(bob.events.try_recv().is_err());
}

#[tokio::test]
async fn simultaneous_dials_give_one_session() {
    let network = TestNetwork::new();
    for round in 0..20 {
        let (mut alice, mut bob) = (guest(&network, 1).await, guest(&network, 2).await);
        let dials =
            tokio::join!(alice.endpoint.connect(bob.contact(V4)), bob.endpoint.connect(alice.contact(V4)));
        let (left, right) = (dials.0.unwrap(), dials.1.unwrap());
        assert_ne!(left.side(), right.side(), "round {round}: both ends mean the same connection");
        left.send(Bytes::from_static(b"one")).await.unwrap();
        alice.opened().await;
        bob.opened().await;
        assert_eq!(bob.message().await.1, "one");
        assert_eq!((alice.endpoint.sessions().len(), bob.endpoint.sessions().len()), (1, 1));
        assert!(alice.events.try_recv().is_err(), "round {round}: nothing was closed or opened besides");
    }
}

#[tokio::test]
async fn a_killed_peer_is_noticed_when_its_time_is_over() {
    let network = TestNetwork::new();
    let mut config = crate::house::config(&network, &network.node(id(1)), 1);
    config.idle_timeout = std::time::Duration::from_secs(1);
    let mut alice = crate::house::open(config, id(1)).await;
    // Bob's tasks stop with their runtime, in the middle of whatever they do, and say no good-bye.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let node = network.node(id(2));
    let config = crate::house::config(&network, &node, 2);
    let bob = runtime.spawn(crate::house::open(config, id(2))).await.unwrap();
    alice.endpoint.connect(bob.contact(V4)).await.unwrap();
    alice.opened().await;
    runtime.shutdown_background();
    assert_eq!(alice.closed().await, CloseReason::Lost("timed out".to_owned()));
    assert!(alice.endpoint.session(id(2)).is_none());
}

#[tokio::test]
async fn a_restarted_peer_takes_the_place_of_its_earlier_run() {
    let network = TestNetwork::new();
    let mut alice = guest(&network, 1).await;
    let node = network.node(id(2));
    let first = crate::house::open(crate::house::config(&network, &node, 20), id(2)).await;
    first.endpoint.connect(alice.contact(V4)).await.unwrap();
    assert_eq!(alice.opened().await.hello().boot_nonce, 20);
    // The first run still stands, as a clone would.
    let second = crate::house::open(crate::house::config(&network, &node, 21), id(2)).await;
    second.endpoint.connect(alice.contact(V4)).await.unwrap();
    assert_eq!(alice.closed().await, CloseReason::Replaced);
    assert_eq!(alice.opened().await.hello().boot_nonce, 21);
    assert_eq!(alice.endpoint.sessions().len(), 1);
}

#[tokio::test]
async fn a_session_is_carried_by_tcp_where_udp_is_dropped() {
    for ip in [V4, V6] {
        let network = TestNetwork::new();
        let (alice, mut bob) = (guest(&network, 1).await, guest(&network, 2).await);
        // A socket that never answers stands for a firewall.
        let silent = std::net::UdpSocket::bind((ip, 0)).unwrap();
        let tcp = std::net::SocketAddr::new(ip, bob.endpoint.port());
        let contact = contact_at(id(2), Some(silent.local_addr().unwrap()), Some(tcp));
        let session = alice.endpoint.connect(contact).await.unwrap();
        assert_eq!(session.path(), Path::Tcp(tcp));
        let accepted = bob.opened().await;
        assert!(matches!(accepted.path(), Path::Tcp(from) if from.ip() == ip));
        let large = Bytes::from(vec![3; 200_000]);
        session.send(large.clone()).await.unwrap();
        assert_eq!(bob.message().await.1, large);
    }
}

#[tokio::test]
async fn a_broken_tcp_connection_is_noticed_at_once() {
    let network = TestNetwork::new();
    let mut config = crate::house::config(&network, &network.node(id(1)), 1);
    config.udp = false;
    let mut alice = crate::house::open(config, id(1)).await;
    let bob = guest(&network, 2).await;
    let session = alice.endpoint.connect(bob.contact(V4)).await.unwrap();
    assert!(matches!(session.path(), Path::Tcp(_)));
    alice.opened().await;
    drop(bob);
    let reason = alice.closed().await;
    assert!(matches!(reason, CloseReason::Lost(_) | CloseReason::Peer { .. }), "{reason}");
}

#[tokio::test]
async fn a_stream_tells_its_class_and_carries_both_ways() {
    let network = TestNetwork::new();
    let (alice, mut bob) = (guest(&network, 1).await, guest(&network, 2).await);
    let session = alice.endpoint.connect(bob.contact(V4)).await.unwrap();
    let accepted = bob.opened().await;
    let header = muster_net::StreamHeader { class: TrafficClass::Interactive, kind: 9 };
    let mut near = session.open_stream(header).await.unwrap();
    near.send.write_all(b"ls").await.unwrap();
    let mut far = accepted.accept_stream().await.unwrap();
    assert_eq!(far.header, header);
    assert_eq!(far.recv.read(64).await.unwrap().unwrap(), "ls");
    far.send.write_all(b"README.md").await.unwrap();
    far.send.finish();
    assert_eq!(near.recv.read(64).await.unwrap().unwrap(), "README.md");
    assert_eq!(near.recv.read(64).await.unwrap(), None);
    let lines = alice.endpoint.usage().lines();
    assert!(lines.iter().any(|line| line.class == TrafficClass::Interactive && line.sent_bytes == 2));
}

#[tokio::test]
async fn a_revoked_node_is_cut_at_once_and_refused_at_its_next_handshake() {
    let network = TestNetwork::new();
    let revoked = network.node(id(2));
    let mut alice = guest(&network, 1).await;
    let mut mallory = crate::house::open(crate::house::config(&network, &revoked, 2), id(2)).await;
    mallory.endpoint.connect(alice.contact(V4)).await.unwrap();
    alice.opened().await;
    mallory.opened().await;

    let mut trust = network.trust();
    trust.revoke([&network.revocations(0, 1, &[revoked.revocation(1, Reason::Revoked)])]).unwrap();
    assert_eq!(alice.endpoint.set_trust(trust.into()), 1);
    assert_eq!(alice.closed().await, CloseReason::Revoked(Reason::Revoked));
    let CloseReason::Peer { code, .. } = mallory.closed().await else { panic!("the peer closed it") };
    assert_eq!(code, CloseCode::NotAdmitted as u32);

    let error = mallory.endpoint.connect(alice.contact(V4)).await.unwrap_err();
    assert!(error.to_string().contains("revoked"), "{error}");
    let error = alice.endpoint.connect(mallory.contact(V4)).await.unwrap_err();
    assert!(error.to_string().contains("its certificate is revoked"), "{error}");
    assert!(alice.endpoint.sessions().is_empty());
}

#[tokio::test]
async fn a_knock_is_answered_by_a_node_that_listens_on_either_way_and_opens_no_session() {
    let network = TestNetwork::new();
    let (alice, mut bob) = (guest(&network, 1).await, guest(&network, 2).await);
    let at = |port| Some(std::net::SocketAddr::new(V4, port));
    let (port, silent) = (bob.endpoint.port(), std::net::UdpSocket::bind((V4, 0)).unwrap());
    let nowhere = silent.local_addr().unwrap().port();
    for (udp, tcp, answers) in [
        (at(port), None, true),
        (None, at(port), true),
        (at(nowhere), at(port), true),
        (at(nowhere), at(nowhere), false),
        // Its own address is nobody else's.
        (at(alice.endpoint.port()), at(alice.endpoint.port()), false),
    ] {
        let contact = contact_at(id(2), udp, tcp);
        assert_eq!(alice.endpoint.knock(&contact).await, answers, "by {udp:?} and {tcp:?}");
    }
    assert!(alice.endpoint.sessions().is_empty() && bob.events.try_recv().is_err());
}
