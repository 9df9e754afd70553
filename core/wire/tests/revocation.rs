//! The list of revocations: whom it believes, how it grows, whom it names.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::time::Duration;

use muster_proto::payload_type::REVOCATION_LIST;
use muster_proto::trust::v1::RevocationList;
use muster_types::NodeId;
use muster_wire::revocation::{self, LEAP, Reason, Revocation, RevocationError};
use muster_wire::testing::{NOW, TestNetwork, TestNode};
use muster_wire::ticket::TicketError;
use muster_wire::{NodeTicket, Revocations};
use prost::Message;

fn two(network: &TestNetwork) -> (TestNode, TestNode) {
    (network.node(NodeId([1; 20])), network.node(NodeId([2; 20])))
}

#[test]
fn increments_add_up_in_their_order_and_a_gap_is_refused() {
    let network = TestNetwork::new();
    let (mut trust, (one, two)) = (network.trust(), two(&network));
    let first = network.revocations(0, 3, &[one.revocation(3, Reason::Revoked)]);
    let second = network.revocations(3, 7, &[two.revocation(7, Reason::Lost)]);
    assert_eq!(trust.revoke([&second]), Err(RevocationError::Gap { known: 0, base: 3 }));
    assert_eq!(trust.revoke([&first, &second]), Ok(true));
    assert_eq!(trust.revocations().number(), 7);
    assert_eq!(trust.revoke([&first, &second]), Ok(false));
    let passed_on: Vec<_> = trust.revocations().after(3).collect();
    assert_eq!(passed_on, [&second]);
}

#[test]
fn an_old_whole_list_takes_nothing_back() {
    let network = TestNetwork::new();
    let (mut trust, (one, _)) = (network.trust(), two(&network));
    trust.revoke([&network.revocations(0, 5, &[one.revocation(5, Reason::Revoked)])]).unwrap();
    assert_eq!(trust.revoke([&network.revocations(0, 4, &[])]), Ok(false));
    assert!(trust.revocations().of_certificate(&one.serial, None).is_some());
}

#[test]
fn what_a_restored_master_lost_its_nodes_keep_and_tell_until_it_has_it_again() {
    let network = TestNetwork::new();
    let (mut trust, (one, two)) = (network.trust(), two(&network));
    let kept = network.revocations(0, 3, &[one.revocation(3, Reason::Revoked)]);
    let lost = network.revocations(3, 7, &[two.revocation(7, Reason::Lost)]);
    trust.revoke([&kept, &lost]).unwrap();
    let list = |base, number, revoked: &[Revocation]| {
        let payload = revocation::encode(base, number, NOW, revoked);
        let mut list = RevocationList::decode(payload).unwrap();
        list.restored_number = Some(3);
        network.sign(REVOCATION_LIST, list.encode_to_vec().into())
    };
    let whole = list(0, 3 + LEAP, &[one.revocation(3, Reason::Revoked)]);
    assert_eq!(trust.revoke([&whole]), Ok(true));
    assert_eq!((trust.revocations().number(), trust.revocations().len()), (3 + LEAP, 2));
    assert!(trust.revocations().of_node(two.id).is_some());
    assert_eq!(trust.revocations().lost_by_master(), std::slice::from_ref(&lost));
    // A restart of the node changes nothing.
    let restarted = Revocations::restored([&kept, &lost, &whole]);
    assert_eq!((restarted.len(), restarted.lost_by_master()), (2, &[lost][..]));

    let again = list(3 + LEAP, 4 + LEAP, &[two.revocation(4 + LEAP, Reason::Lost)]);
    assert_eq!(trust.revoke([&again]), Ok(true));
    assert!(trust.revocations().lost_by_master().is_empty());
    assert_eq!(trust.revocations().len(), 2);
}

#[test]
fn a_list_that_no_signer_of_this_network_made_is_refused_whoever_brings_it() {
    let (network, other) = (TestNetwork::new(), TestNetwork::new());
    let one = network.node(NodeId([1; 20]));
    let forged = other.revocations(0, 9, &[one.revocation(9, Reason::Revoked)]);
    assert!(matches!(network.trust().revoke([&forged]), Err(RevocationError::Envelope(_))));
    let mut changed = network.revocations(0, 9, &[one.revocation(9, Reason::Revoked)]);
    changed.payload = network.revocations(0, 10, &[]).payload;
    assert!(matches!(network.trust().revoke([&changed]), Err(RevocationError::Envelope(_))));
}

#[test]
fn an_entry_outside_the_lists_span_makes_it_malformed() {
    let network = TestNetwork::new();
    let one = network.node(NodeId([1; 20]));
    for (base, number) in [(0, 2), (3, 9), (9, 3)] {
        let stray = network.revocations(base, number, &[one.revocation(3, Reason::Revoked)]);
        let mut trust = network.trust();
        trust.revoke([&network.revocations(0, 3, &[])]).unwrap();
        let refused = trust.revoke([&stray]);
        assert!(!matches!(refused, Ok(true)), "{base} {number} {refused:?}");
    }
}

#[test]
fn a_revoked_nodes_ticket_is_not_believed_and_a_lost_ones_next_certificate_is_lost_too() {
    let network = TestNetwork::new();
    let (mut trust, (one, two)) = (network.trust(), two(&network));
    let list = [one.revocation(1, Reason::Revoked), two.revocation(2, Reason::Lost)];
    trust.revoke([&network.revocations(0, 2, &list)]).unwrap();
    let open = |node: &TestNode| NodeTicket::open(&node.ticket, &trust, NOW);
    assert!(matches!(open(&one), Err(TicketError::Revoked { reason: Reason::Revoked, .. })));
    let renewed = network.node(two.id);
    assert_ne!(renewed.serial, two.serial);
    assert!(matches!(open(&renewed), Err(TicketError::Revoked { reason: Reason::Lost, .. })));
    assert!(NodeTicket::open_even_revoked(&renewed.ticket, &trust, NOW).is_ok());
}

#[test]
fn a_key_is_revoked_whatever_certificate_it_shows() {
    let network = TestNetwork::new();
    let (mut trust, (one, _)) = (network.trust(), two(&network));
    let entry = Revocation { key: Some([5; 32]), ..one.revocation(1, Reason::Revoked) };
    trust.revoke([&network.revocations(0, 1, &[entry])]).unwrap();
    assert!(trust.revocations().of_certificate(b"another", Some(&[5; 32])).is_some());
    assert!(trust.revocations().of_certificate(b"another", Some(&[6; 32])).is_none());
}

#[test]
fn entries_are_forgotten_once_their_certificates_are_of_no_use_anyway() {
    let network = TestNetwork::new();
    let (mut trust, (one, two)) = (network.trust(), two(&network));
    let expired =
        Revocation { expires: NOW - Duration::from_secs(90_000), ..one.revocation(1, Reason::Revoked) };
    trust.revoke([&network.revocations(0, 2, &[expired, two.revocation(2, Reason::Revoked)])]).unwrap();
    assert_eq!(trust.revocations().len(), 1);
}

#[test]
fn a_restored_list_is_the_one_that_was_kept() {
    let network = TestNetwork::new();
    let (one, two) = two(&network);
    let kept = [
        network.revocations(0, 1, &[one.revocation(1, Reason::Revoked)]),
        network.revocations(1, 2, &[two.revocation(2, Reason::Revoked)]),
    ];
    let list = Revocations::restored(&kept);
    assert_eq!((list.number(), list.len()), (2, 2));
    assert!(list.of_node(one.id).is_some() && list.of_node(two.id).is_some());
}

#[test]
fn a_list_by_a_leaked_key_goes_when_the_key_is_withdrawn_however_high_its_number() {
    let mut network = TestNetwork::new();
    let (mut trust, (one, two)) = (network.trust(), two(&network));
    trust.revoke([&network.revocations(0, 3, &[one.revocation(3, Reason::Revoked)])]).unwrap();
    // Whoever has the key revokes a good node, and makes the network deaf to its master.
    let forged = network.revocations(3, u64::MAX, &[two.revocation(4, Reason::Revoked)]);
    trust.revoke([&forged]).unwrap();
    let bundle = network.withdraw_signer();
    trust.load(&bundle, NOW).unwrap();
    // Until the master's own list is here nobody is admitted who was not before, and nothing of it goes on to others.
    assert_eq!((trust.revocations().number(), trust.revocations().after(0).count()), (0, 0));
    assert!(trust.revocations().of_node(one.id).is_some() && trust.revocations().of_node(two.id).is_some());
    assert!(trust.revoke([&forged]).is_err());
    let whole = network.revocations(0, 3, &[one.revocation(3, Reason::Revoked)]);
    assert_eq!(trust.revoke([&whole]), Ok(true));
    assert!(trust.revocations().of_node(one.id).is_some() && trust.revocations().of_node(two.id).is_none());
}

#[test]
fn a_restored_masters_list_may_come_in_pages() {
    let network = TestNetwork::new();
    let (mut trust, (one, two)) = (network.trust(), two(&network));
    trust.revoke([&network.revocations(0, 3, &[one.revocation(3, Reason::Revoked)])]).unwrap();
    let lost = network.revocations(3, 7, &[two.revocation(7, Reason::Lost)]);
    trust.revoke([&lost]).unwrap();
    let page = |base, number, revoked: &[Revocation]| {
        let payload = revocation::encode(base, number, NOW, revoked);
        let mut list = RevocationList::decode(payload).unwrap();
        list.restored_number = Some(3);
        network.sign(REVOCATION_LIST, list.encode_to_vec().into())
    };
    let first = page(0, 3, &[one.revocation(3, Reason::Revoked)]);
    assert_eq!(trust.revoke([&first]), Ok(false));
    assert_eq!(trust.revoke([&page(3, 3 + LEAP, &[])]), Ok(true));
    assert_eq!(trust.revocations().lost_by_master(), std::slice::from_ref(&lost));
    assert!(trust.revocations().of_node(two.id).is_some());
}

#[test]
fn a_long_list_goes_in_pages_and_one_of_many_increments_is_read_anew_before_its_beginning_is_forgotten() {
    let network = TestNetwork::new();
    let (mut trust, (one, _)) = (network.trust(), two(&network));
    for number in 0..768 {
        assert!(!trust.revocations().is_crowded());
        let next = network.revocations(number, number + 1, &[one.revocation(number + 1, Reason::Revoked)]);
        trust.revoke([&next]).unwrap();
    }
    assert!(trust.revocations().is_crowded());
    let (mut told, mut reached, mut pages) = (0, 0, 0);
    while reached < trust.revocations().number() {
        let (page, up_to) = trust.revocations().page_after(reached, 16 * 1024);
        assert!(page.iter().map(|it| it.payload.len()).sum::<usize>() <= 16 * 1024);
        (told, reached, pages) = (told + page.len(), up_to, pages + 1);
    }
    assert_eq!((told, pages > 2), (768, true));
    assert_eq!(trust.revocations().page_after(reached, 1), (Vec::new(), 768));
}
