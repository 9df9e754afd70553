//! Two machines and the bytes between them, no socket.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use muster_types::limits::DATAGRAM_BYTES;
use muster_types::{Instant, NodeId};
use proptest::prelude::*;

use super::*;
use crate::testing::{NOW, TestNetwork, TestNode};
use crate::trust::TrustStore;
use crate::verifier::Verifier;

/// A node with its address; what it sends is taken out by the test.
struct End {
    exchange: Exchange,
    at: SocketAddr,
    trust: TrustStore,
}

/// What one end told its owner.
#[derive(Debug, PartialEq)]
enum Told {
    Request(NodeId, Vec<u8>),
    Answer(RequestId, NodeId, Vec<u8>),
    Stranger(RequestId, Option<NodeId>),
}

const T0: Instant = Instant::ZERO;

fn after(seconds: u64) -> Instant {
    Instant::from_elapsed(Duration::from_secs(seconds))
}

fn end(network: &TestNetwork, node: &TestNode, port: u16) -> End {
    let exchange = Exchange::new(node.own(), Limits::default(), T0);
    End { exchange, at: SocketAddr::from(([127, 0, 0, 1], port)), trust: network.trust() }
}

impl End {
    fn address(&self) -> PeerAddress {
        let own = self.exchange.own();
        PeerAddress { node: own.node(), key: own.public_key(), at: self.at }
    }

    fn ask(&mut self, to: PeerAddress, body: &[u8], now: Instant) -> RequestId {
        self.exchange.request(to, Bytes::copy_from_slice(body), now, NOW + now.elapsed()).unwrap()
    }

    /// Takes datagrams; echoes every request in capitals. Returns what it sends and what it was told.
    fn take(
        &mut self,
        from: SocketAddr,
        datagrams: &[Bytes],
        now: Instant,
    ) -> (Vec<(SocketAddr, Bytes)>, Vec<Told>) {
        for datagram in datagrams {
            let verifier = Verifier { trust: &self.trust, now: NOW + now.elapsed() };
            self.exchange.receive(from, datagram, &verifier, now);
        }
        self.drain(now)
    }

    fn drain(&mut self, now: Instant) -> (Vec<(SocketAddr, Bytes)>, Vec<Told>) {
        let (mut sent, mut told) = (Vec::new(), Vec::new());
        while let Some(event) = self.exchange.poll_event() {
            match event {
                Event::Send { to, datagram } => sent.push((to, datagram)),
                Event::Request { from, body, reply, .. } => {
                    told.push(Told::Request(from.node, body.to_vec()));
                    self.exchange.answer(reply, &body.to_ascii_uppercase(), now);
                }
                Event::Answer { request, from, body, .. } => {
                    told.push(Told::Answer(request, from.node, body.to_vec()));
                }
                Event::Stranger { request, actual } => told.push(Told::Stranger(request, actual)),
            }
        }
        (sent, told)
    }
}

fn bytes(sent: Vec<(SocketAddr, Bytes)>) -> Vec<Bytes> {
    sent.into_iter().map(|(_, datagram)| datagram).collect()
}

/// Lets datagrams fly between two ends until nobody says anything more; returns what each was told, and how many flew.
fn converse(a: &mut End, b: &mut End, now: Instant) -> (Vec<Told>, Vec<Told>, Vec<usize>) {
    let (mut told_a, mut told_b, mut flown) = (Vec::new(), Vec::new(), Vec::new());
    let (mut from_a, told) = a.drain(now);
    told_a.extend(told);
    loop {
        flown.extend(from_a.iter().map(|(_, datagram)| datagram.len()));
        let (from_b, told) = b.take(a.at, &bytes(from_a), now);
        told_b.extend(told);
        flown.extend(from_b.iter().map(|(_, datagram)| datagram.len()));
        let (next, told) = a.take(b.at, &bytes(from_b), now);
        told_a.extend(told);
        if next.is_empty() {
            return (told_a, told_b, flown);
        }
        from_a = next;
    }
}

fn pair() -> (End, End) {
    let network = TestNetwork::new();
    let (alice, bob) = (network.node(NodeId([1; 20])), network.node(NodeId([2; 20])));
    (end(&network, &alice, 1), end(&network, &bob, 2))
}

/// A pair that has talked before.
fn acquainted() -> (End, End) {
    let (mut alice, mut bob) = pair();
    alice.ask(bob.address(), b"first", T0);
    converse(&mut alice, &mut bob, T0);
    alice.ask(bob.address(), b"second", T0);
    converse(&mut alice, &mut bob, T0);
    (alice, bob)
}

#[test]
fn a_stranger_is_answered_in_one_round_trip_that_never_grows() {
    let (mut alice, mut bob) = pair();
    let request = alice.ask(bob.address(), b"who is near?", T0);
    let (told_a, told_b, flown) = converse(&mut alice, &mut bob, T0);
    assert_eq!(told_b, [Told::Request(NodeId([1; 20]), b"who is near?".to_vec())]);
    assert_eq!(told_a, [Told::Answer(request, NodeId([2; 20]), b"WHO IS NEAR?".to_vec())]);
    assert_eq!(flown.len(), 2);
    assert!(flown[0] == DATAGRAM_BYTES && flown[1] <= flown[0], "{flown:?}");
}

#[test]
fn acquainted_nodes_need_no_handshake_in_either_direction() {
    let (mut alice, mut bob) = acquainted();
    let request = bob.ask(alice.address(), b"and you?", after(1));
    let (told_b, _, flown) = converse(&mut bob, &mut alice, after(1));
    assert!(told_b.contains(&Told::Answer(request, NodeId([1; 20]), b"AND YOU?".to_vec())));
    assert!(flown.iter().all(|length| *length < 100) || flown.len() == 4, "{flown:?}");
    assert_eq!(bob.exchange.counts().handshakes_begun, 0);
}

#[test]
fn who_knows_the_answerers_ticket_leaves_it_more_room() {
    let (mut alice, mut bob) = acquainted();
    alice.exchange.network_changed();
    bob.exchange.network_changed();
    alice.ask(bob.address(), b"again", after(1));
    let (_, _, flown) = converse(&mut alice, &mut bob, after(1));
    assert_eq!(flown.len(), 2);
    assert!(flown[1] < 100, "the ticket was sent again: {flown:?}");
}

#[test]
fn a_request_that_does_not_fit_beside_the_ticket_follows_the_handshake() {
    let (mut alice, mut bob) = pair();
    let long = vec![b'x'; 1_100];
    let request = alice.ask(bob.address(), &long, T0);
    let (told_a, told_b, flown) = converse(&mut alice, &mut bob, T0);
    assert_eq!(told_b.len(), 1);
    assert_eq!(told_a, [Told::Answer(request, NodeId([2; 20]), long.to_ascii_uppercase())]);
    assert_eq!(flown.len(), 4);
}

#[test]
fn requests_made_during_a_handshake_follow_it_and_all_are_answered() {
    let (mut alice, mut bob) = pair();
    let asked: Vec<_> = (0..5).map(|n| alice.ask(bob.address(), format!("{n}").as_bytes(), T0)).collect();
    let (told, _, flown) = converse(&mut alice, &mut bob, T0);
    for request in asked {
        assert!(told.iter().any(|told| matches!(told, Told::Answer(answered, ..) if *answered == request)));
    }
    assert_eq!(flown.iter().filter(|length| **length == DATAGRAM_BYTES).count(), 1);
}

#[test]
fn a_node_under_a_false_id_is_told_apart() {
    let (mut alice, mut bob) = pair();
    let claimed = PeerAddress { node: NodeId([9; 20]), ..bob.address() };
    let request = alice.ask(claimed, b"who?", T0);
    let (told, _, _) = converse(&mut alice, &mut bob, T0);
    assert_eq!(told, [Told::Stranger(request, Some(NodeId([2; 20])))]);
}

#[test]
fn a_node_of_another_network_gets_no_answer() {
    let (mut alice, _) = pair();
    let other = TestNetwork::new();
    let mut eve = end(&other, &other.node(NodeId([3; 20])), 3);
    eve.ask(alice.address(), b"let me in", T0);
    let (told_e, told_a, flown) = converse(&mut eve, &mut alice, T0);
    assert!(told_e.is_empty() && told_a.is_empty());
    assert_eq!(flown.len(), 1);
}

#[test]
fn nothing_is_taken_twice_neither_openings_nor_requests() {
    let (mut alice, mut bob) = pair();
    alice.ask(bob.address(), b"once", T0);
    let (opening, _) = alice.drain(T0);
    let opening = bytes(opening);
    let (_, first) = bob.take(alice.at, &opening, T0);
    let (_, second) = bob.take(alice.at, &opening, T0);
    assert_eq!((first.len(), second.len()), (1, 0));

    let (mut alice, mut bob) = acquainted();
    alice.ask(bob.address(), b"once", T0);
    let (sealed, _) = alice.drain(T0);
    let sealed = bytes(sealed);
    let (_, first) = bob.take(alice.at, &sealed, T0);
    let (_, second) = bob.take(alice.at, &sealed, T0);
    assert_eq!((first.len(), second.len()), (1, 0));
}

#[test]
fn a_new_source_gets_no_more_than_it_sent_until_it_has_proved_itself() {
    let (mut alice, mut bob) = acquainted();
    alice.at.set_port(77);
    let request = alice.ask(bob.address(), b"I have moved", after(1));
    let (told, _, flown) = converse(&mut alice, &mut bob, after(1));
    assert_eq!(told, [Told::Answer(request, NodeId([2; 20]), b"I HAVE MOVED".to_vec())]);
    assert_eq!(flown.len(), 4);
    assert!(flown[1] <= flown[0] && flown[2] == DATAGRAM_BYTES, "{flown:?}");
    assert_eq!(bob.exchange.counts().proofs_asked, 1);
}

#[test]
fn a_peer_that_lost_its_sessions_is_met_anew_without_a_time_out() {
    let (mut alice, mut bob) = acquainted();
    bob.exchange.network_changed();
    let request = alice.ask(bob.address(), b"still there?", after(1));
    let (told, _, flown) = converse(&mut alice, &mut bob, after(1));
    assert_eq!(told, [Told::Answer(request, NodeId([2; 20]), b"STILL THERE?".to_vec())]);
    assert!(flown[1] < flown[0], "{flown:?}");
}

#[test]
fn an_unanswered_request_puts_the_session_in_doubt() {
    let (mut alice, bob) = acquainted();
    let lost = alice.ask(bob.address(), b"hello?", after(1));
    alice.drain(after(1));
    alice.exchange.give_up(lost);
    alice.ask(bob.address(), b"hello?", after(2));
    let (sent, _) = alice.drain(after(2));
    assert_eq!(sent[0].1.len(), DATAGRAM_BYTES);
}

#[test]
fn sessions_are_renewed_hourly_and_end_with_the_ticket() {
    let (mut alice, mut bob) = acquainted();
    let hour = after(3_601);
    alice.ask(bob.address(), b"an hour later", hour);
    let (told, _, flown) = converse(&mut alice, &mut bob, hour);
    assert_eq!((told.len(), flown[0]), (1, DATAGRAM_BYTES));

    let expired = after(15 * 24 * 3_600);
    alice.ask(bob.address(), b"a fortnight later", expired);
    let (told, told_b, _) = converse(&mut alice, &mut bob, expired);
    assert!(told.is_empty() && told_b.is_empty());
}

#[test]
fn a_revoked_peer_is_cut_at_once() {
    let (mut alice, mut bob) = acquainted();
    bob.exchange.forget(|peer| peer.node == NodeId([1; 20]));
    assert!(!bob.exchange.has_session(&alice.address().key, T0));
    assert_eq!(bob.exchange.sessions(), 0);
    alice.exchange.expire(T0);
}

#[test]
fn under_load_strangers_return_a_cookie_first() {
    let (mut alice, mut bob) = pair();
    alice.ask(bob.address(), b"one of many", T0);
    let (opening, _) = alice.drain(T0);
    // A flood of forged openings with a fitting mac1: what anybody can make who knows the key.
    let (mut mallory, _) = pair();
    mallory.ask(bob.address(), b"flood", T0);
    let (flood, _) = mallory.drain(T0);
    let forged: Vec<_> = (0..300).map(|_| flood[0].1.clone()).collect();
    bob.take(SocketAddr::from(([192, 0, 2, 9], 9)), &forged, T0);
    let request = alice.ask(bob.address(), b"honest", after(0));
    let (told, _, flown) = {
        let (cookie, _) = bob.take(alice.at, &bytes(opening), T0);
        assert!(cookie[0].1.len() < 100);
        let (again, _) = alice.take(bob.at, &bytes(cookie), T0);
        let (reply, _) = bob.take(alice.at, &bytes(again), T0);
        let (more, told) = alice.take(bob.at, &bytes(reply), T0);
        let (answers, _) = bob.take(alice.at, &bytes(more), T0);
        let (_, rest) = alice.take(bob.at, &bytes(answers), T0);
        (told.into_iter().chain(rest).collect::<Vec<_>>(), (), Vec::<usize>::new())
    };
    assert!(flown.is_empty());
    assert!(
        told.iter().any(|told| matches!(told, Told::Answer(answered, ..) if *answered == request)),
        "{told:?}"
    );
    assert!(bob.exchange.counts().cookies_asked >= 1);
}

#[test]
fn sessions_are_bounded_and_the_least_used_go() {
    let network = TestNetwork::new();
    let mut hub = end(&network, &network.node(NodeId([255; 20])), 255);
    hub.exchange = Exchange::new(network.node(NodeId([255; 20])).own(), Limits { sessions: 8 }, T0);
    for number in 1..=20 {
        let mut node = end(&network, &network.node(NodeId([number; 20])), number.into());
        node.ask(hub.address(), b"hello", after(number.into()));
        converse(&mut node, &mut hub, after(number.into()));
        assert!(hub.exchange.sessions() <= 8);
    }
}

#[test]
fn what_is_too_long_or_empty_is_refused_by_name() {
    let (mut alice, bob) = pair();
    let too_long = alice.exchange.request(bob.address(), vec![0; 1_200].into(), T0, NOW);
    assert_eq!(too_long.unwrap_err().to_string(), "a request has 1200 bytes; 1 to 1156 are possible");
    assert!(alice.exchange.request(bob.address(), Bytes::new(), T0, NOW).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is flipped, cut, repeated or reordered on the way: no panic, no false answer, nothing longer than asked.
    #[test]
    fn a_hostile_network_can_only_lose_datagrams(
        damage in prop::collection::vec((0usize..4, any::<u16>(), any::<u8>()), 1..24),
    ) {
        let (mut alice, mut bob) = acquainted();
        let mut asked = std::collections::BTreeMap::new();
        for (turn, (kind, place, value)) in damage.into_iter().enumerate() {
            let body = format!("request {turn}");
            asked.insert(alice.ask(bob.address(), body.as_bytes(), after(turn as u64)), body.to_ascii_uppercase());
            let (mut flight, _) = alice.drain(after(turn as u64));
            for (_, datagram) in &mut flight {
                let mut bytes = datagram.to_vec();
                let at = usize::from(place) % bytes.len();
                match kind {
                    0 => bytes[at] ^= value,
                    1 => bytes.truncate(at),
                    2 => bytes.extend([value; 9]),
                    _ => {}
                }
                *datagram = bytes.into();
            }
            let (answers, told_b) = bob.take(alice.at, &bytes(flight.clone()), after(turn as u64));
            for told in told_b {
                let Told::Request(_, body) = told else { continue };
                prop_assert!(body.starts_with(b"request "));
            }
            let sent: usize = flight.iter().map(|(_, datagram)| datagram.len()).sum();
            let returned: usize = answers.iter().map(|(_, datagram)| datagram.len()).sum();
            prop_assert!(returned <= sent.max(DATAGRAM_BYTES));
            let (_, told_a) = alice.take(bob.at, &bytes(answers), after(turn as u64));
            for told in told_a {
                if let Told::Answer(request, _, body) = told {
                    prop_assert_eq!(asked[&request].as_bytes(), &body[..]);
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_taken_without_harm(first in 0x90u8..0x95, rest in prop::collection::vec(any::<u8>(), 0..1300)) {
        let (mut alice, bob) = acquainted();
        let datagram = Bytes::from([&[first][..], &rest].concat());
        let (_, told) = alice.take(bob.at, &[datagram], after(1));
        prop_assert!(told.is_empty());
    }
}
