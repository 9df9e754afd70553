use std::collections::BTreeSet;
use std::sync::Arc;

use muster_types::NodeId;
use proptest::prelude::*;

use super::super::contact::Entry;
use super::*;

fn distance(node: u32) -> Distance {
    let mut key = Key::default();
    key.0[16..].copy_from_slice(&node.to_be_bytes());
    Distance::between(Key::default(), key)
}

fn seeds(nodes: impl IntoIterator<Item = u32>) -> Vec<(Distance, u32, RoundTrip)> {
    nodes.into_iter().map(|node| (distance(node), node, RoundTrip::UNKNOWN)).collect()
}

fn lookup(goal: Goal, care: Care) -> Lookup<u32> {
    Lookup::new(Key::default(), goal, care, Instant::ZERO)
}

fn get(wish: Wish) -> Goal {
    Goal::Get { op: OpId(1), kind: Kind::Opaque, wish }
}

fn record(sequence: u64) -> Record {
    let (publisher, expires) = (NodeId::default(), Instant::from_elapsed(std::time::Duration::MAX));
    Record { key: Key::default(), kind: Kind::Opaque, publisher, sequence, expires, bytes: Arc::from([]) }
}

fn asked(lookup: &mut Lookup<u32>, settings: &Settings) -> Vec<u32> {
    std::iter::from_fn(|| match lookup.next(settings) {
        Move::Ask(contact, _) => Some(contact),
        Move::Wait | Move::Done => None,
    })
    .collect()
}

#[test]
fn three_are_asked_at_once_and_more_when_they_do_not_answer() {
    let settings = Settings::default();
    let mut lookup = lookup(Goal::Own, Care::Plain);
    lookup.seed(&seeds(1..=40), 1, &settings);
    assert_eq!(asked(&mut lookup, &settings), [1, 2, 3]);
    lookup.late(2);
    assert_eq!(asked(&mut lookup, &settings), [4, 5, 6]);
    lookup.answered(2, vec![]);
    assert_eq!(lookup.closest().map(|(_, contact)| contact).collect::<Vec<_>>(), [2], "a late answer counts");
}

#[test]
fn among_equals_the_nearer_in_the_network_is_asked_first() {
    let settings = Settings { alpha: 1, ..Settings::default() };
    let mut lookup = lookup(Goal::Own, Care::Plain);
    let near = Entry::new(0, false, Instant::ZERO);
    let mut near = near;
    near.answered(std::time::Duration::from_millis(1));
    let (far, near) = (RoundTrip::UNKNOWN, near.round_trip);
    lookup.seed(&[(distance(4), 4, far), (distance(5), 5, near), (distance(9), 9, near)], 1, &settings);
    assert_eq!(asked(&mut lookup, &settings), [5]);
}

#[test]
fn the_newest_of_several_holders_wins_and_the_first_will_do_when_told_so() {
    let settings = Settings::default();
    let mut first = lookup(get(Wish::First), Care::Plain);
    let mut newest = lookup(get(Wish::Newest), Care::Plain);
    for lookup in [&mut first, &mut newest] {
        lookup.seed(&seeds(1..=20), 1, &settings);
        assert_eq!(asked(lookup, &settings), [1, 2, 3]);
        lookup.answered(1, vec![record(5)]);
        lookup.answered(2, vec![record(7)]);
    }
    assert_eq!(first.next(&settings), Move::Done);
    assert_eq!(asked(&mut newest, &settings), [4, 5]);
    assert_eq!(newest.records, vec![record(7)]);
}

#[test]
fn a_value_not_found_on_one_path_is_sought_on_several() {
    let settings = Settings::default();
    let mut lookup = lookup(get(Wish::First), Care::OnMiss);
    lookup.seed(&seeds(1..=2), 1, &settings);
    for contact in asked(&mut lookup, &settings) {
        lookup.answered(contact, vec![]);
    }
    assert_eq!(lookup.next(&settings), Move::Done);
    assert!(lookup.try_harder());
    lookup.seed(&seeds(1..=20), 1, &settings);
    assert_eq!(asked(&mut lookup, &settings).len(), settings.paths);
    assert!(!lookup.try_harder(), "once");
}

#[test]
fn the_nearest_that_missed_gets_a_copy() {
    let settings = Settings::default();
    let mut lookup = lookup(get(Wish::First), Care::Plain);
    lookup.seed(&seeds(1..=3), 1, &settings);
    asked(&mut lookup, &settings);
    lookup.answered(3, vec![]);
    lookup.answered(2, vec![]);
    lookup.answered(1, vec![record(1)]);
    assert_eq!(lookup.missed().collect::<Vec<_>>(), [2]);
}

proptest! {
    /// A network of any shape, some of it dead: the lookup ends, asks nobody twice, and nobody on two paths.
    #[test]
    fn every_lookup_ends_and_asks_nobody_twice(
        edges in prop::collection::vec(prop::collection::vec(1_u32..200, 0..20), 200),
        dead in prop::collection::btree_set(1_u32..200, 0..150),
        start in prop::collection::vec(1_u32..200, 1..20),
        disjoint: bool,
    ) {
        let settings = Settings::default();
        let care = if disjoint { Care::Disjoint } else { Care::Plain };
        let mut lookup = lookup(Goal::Own, care);
        lookup.seed(&seeds(start.iter().copied()), 1, &settings);
        let mut ever = BTreeSet::new();
        let mut open = std::collections::VecDeque::new();
        loop {
            for contact in asked(&mut lookup, &settings) {
                prop_assert!(ever.insert(contact), "{} was asked twice", contact);
                open.push_back(contact);
            }
            let Some(contact) = open.pop_front() else { break };
            if dead.contains(&contact) {
                lookup.late(contact);
                lookup.failed(contact);
            } else {
                for &known in &edges[contact as usize] {
                    lookup.learn(contact, distance(known), known, RoundTrip::UNKNOWN);
                }
                lookup.answered(contact, vec![]);
            }
        }
        prop_assert_eq!(lookup.next(&settings), Move::Done);
        // Whoever is nearer than the k-th that answered has been asked.
        let closest: Vec<_> = lookup.closest().collect();
        let border = closest.get(settings.k - 1).map_or(Distance::FARTHEST, |&(distance, _)| distance);
        let passed_over = lookup.candidates.iter().filter(|candidate| candidate.distance < border);
        prop_assert!(passed_over.clone().all(|candidate| candidate.progress != Progress::Fresh));
    }
}
