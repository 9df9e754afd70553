//! A call is believed from whom its ticket names, by whom it is for, and only at once.

use std::time::Duration;

use muster_overlay::meeting::{Candidate, Kind, Ports, Whereabouts};
use muster_proto::overlay::v1;
use muster_proto::payload_type::CALL;
use muster_types::NodeId;
use muster_wire::call::{Call, Called};
use muster_wire::revocation::Reason;
use muster_wire::sealing::SealingKey;
use muster_wire::testing::{NOW, TestNetwork};
use muster_wire::{Verifier, WireError};
use prost::Message;

const CALLER: NodeId = NodeId([1; 20]);
const CALLED: NodeId = NodeId([2; 20]);

fn call() -> Call {
    let candidate = |at: &str, kind| Candidate { at: at.parse().expect("an address and a port"), kind };
    let candidates = vec![
        candidate("192.168.1.7:27431", Kind::Host),
        candidate("[2001:db8::7]:27431", Kind::Host),
        candidate("203.0.113.7:40001", Kind::Reflexive),
    ];
    let whereabouts = Whereabouts { candidates, ports: Ports::Counted(2) };
    Call { to: CALLED, meeting: 77, answer: true, whereabouts, relays: vec!["relay-0".to_owned()] }
}

fn key() -> SealingKey {
    SealingKey::new([9; 32])
}

#[test]
fn a_call_to_whose_key_is_known_tells_those_who_pass_it_on_nothing() {
    let network = TestNetwork::new();
    let (node, trust) = (network.node(CALLER), network.trust());
    let sealed = call().seal(&node.signer(1), Some(key().public()), NOW);
    let verifier = Verifier { trust: &trust, now: NOW };
    assert_eq!(Called::open(&sealed, CALLED, &key(), &verifier).unwrap().call, call());

    let wire = v1::Call::decode(sealed.payload.clone()).unwrap();
    assert!(wire.candidates.is_empty() && wire.relays.is_empty(), "{wire:?}");
    let other = Called::open(&sealed, CALLED, &SealingKey::new([8; 32]), &verifier);
    assert!(matches!(other, Err(WireError::Invalid { field: "call.sealed", .. })));
    // What was sealed for one meeting is not taken for another, even signed by the same node.
    let moved = v1::Call { meeting: 78, ..wire };
    let moved = node.signer(1).sign(CALL, moved.encode_to_vec().into());
    let moved = Called::open(&moved, CALLED, &key(), &verifier);
    assert!(matches!(moved, Err(WireError::Invalid { field: "call.sealed", .. })));
}

#[test]
fn a_call_arrives_as_it_was_said() {
    let network = TestNetwork::new();
    let (node, trust) = (network.node(CALLER), network.trust());
    let sealed = call().seal(&node.signer(1), None, NOW);
    let called = Called::open(&sealed, CALLED, &key(), &Verifier { trust: &trust, now: NOW }).unwrap();
    assert_eq!((called.from, called.call), (CALLER, call()));
}

#[test]
fn revoked_node_calls_nobody() {
    let network = TestNetwork::new();
    let (node, mut trust) = (network.node(CALLER), network.trust());
    let sealed = call().seal(&node.signer(1), None, NOW);
    trust.revoke([&network.revocations(0, 1, &[node.revocation(1, Reason::Revoked)])]).unwrap();
    let refused = Called::open(&sealed, CALLED, &key(), &Verifier { trust: &trust, now: NOW });
    assert!(matches!(refused, Err(WireError::Ticket { .. })), "{refused:?}");
}

#[test]
fn a_call_to_another_node_a_forged_one_and_an_old_one_are_refused() {
    let network = TestNetwork::new();
    let (node, trust) = (network.node(CALLER), network.trust());
    let sealed = call().seal(&node.signer(1), None, NOW);
    let open = |sealed, own, now| Called::open(sealed, own, &key(), &Verifier { trust: &trust, now });
    assert!(matches!(open(&sealed, CALLER, NOW), Err(WireError::Stranger { .. })));
    let late = NOW + Duration::from_secs(61);
    assert!(matches!(open(&sealed, CALLED, late), Err(WireError::Invalid { field: "call.call_time", .. })));

    let mut forged = sealed.clone();
    forged.signatures = network.node(CALLED).signer(1).sign("x", sealed.payload.clone()).signatures;
    assert!(matches!(open(&forged, CALLED, NOW), Err(WireError::Envelope { .. })));
    let stranger = TestNetwork::new().node(CALLER);
    let foreign = call().seal(&stranger.signer(1), None, NOW);
    assert!(open(&foreign, CALLED, NOW).is_err());
}

#[test]
fn nobody_is_called_by_itself() {
    let network = TestNetwork::new();
    let (node, trust) = (network.node(CALLED), network.trust());
    let sealed = call().seal(&node.signer(1), None, NOW);
    let opened = Called::open(&sealed, CALLED, &key(), &Verifier { trust: &trust, now: NOW });
    assert!(matches!(opened, Err(WireError::Invalid { field: "call.from_id", .. })), "{opened:?}");
}
