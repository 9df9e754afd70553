//! A call is believed from whom its ticket names, by whom it is for, and only at once.

use std::time::Duration;

use muster_overlay::meeting::{Candidate, Kind, Ports, Whereabouts};
use muster_types::NodeId;
use muster_wire::call::{Call, Called};
use muster_wire::testing::{NOW, TestNetwork};
use muster_wire::{Verifier, WireError};

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

#[test]
fn a_call_arrives_as_it_was_said() {
    let network = TestNetwork::new();
    let (node, trust) = (network.node(CALLER), network.trust());
    let sealed = call().seal(&node.signer(1), NOW);
    let called = Called::open(&sealed, CALLED, &Verifier { trust: &trust, now: NOW }).unwrap();
    assert_eq!((called.from, called.call), (CALLER, call()));
}

#[test]
fn a_call_to_another_node_a_forged_one_and_an_old_one_are_refused() {
    let network = TestNetwork::new();
    let (node, trust) = (network.node(CALLER), network.trust());
    let sealed = call().seal(&node.signer(1), NOW);
    let open = |sealed, own, now| Called::open(sealed, own, &Verifier { trust: &trust, now });
    assert!(matches!(open(&sealed, CALLER, NOW), Err(WireError::Stranger { .. })));
    let late = NOW + Duration::from_secs(61);
    assert!(matches!(open(&sealed, CALLED, late), Err(WireError::Invalid { field: "call.call_time", .. })));

    let mut forged = sealed.clone();
    forged.signatures = network.node(CALLED).signer(1).sign("x", sealed.payload.clone()).signatures;
    assert!(matches!(open(&forged, CALLED, NOW), Err(WireError::Envelope { .. })));
    let stranger = TestNetwork::new().node(CALLER);
    let foreign = call().seal(&stranger.signer(1), NOW);
    assert!(open(&foreign, CALLED, NOW).is_err());
}

#[test]
fn nobody_is_called_by_itself() {
    let network = TestNetwork::new();
    let (node, trust) = (network.node(CALLED), network.trust());
    let sealed = call().seal(&node.signer(1), NOW);
    let opened = Called::open(&sealed, CALLED, &Verifier { trust: &trust, now: NOW });
    assert!(matches!(opened, Err(WireError::Invalid { field: "call.from_id", .. })), "{opened:?}");
}
