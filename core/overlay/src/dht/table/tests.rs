use std::collections::BTreeSet;

use muster_types::NodeId;
use proptest::prelude::*;

use super::super::distance::ById;
use super::*;

const CAPACITY: usize = 4;
const OWN: Key = Key([0; 20]);

fn node(byte: u8, other: u8) -> NodeId {
    let mut id = NodeId([7; 20]);
    (id.0[0], id.0[1]) = (byte, other);
    id
}

fn at(minutes: u64) -> Instant {
    Instant::from_elapsed(Duration::from_secs(60 * minutes))
}

fn table_of(nodes: impl IntoIterator<Item = NodeId>) -> Table<NodeId> {
    let mut table = Table::new(OWN, CAPACITY);
    for node in nodes {
        table.heard(node, false, at(0), &ById);
    }
    table
}

#[derive(Debug, Clone)]
enum Event {
    Heard(NodeId),
    Failed(NodeId),
    Parted(NodeId),
    Removed(NodeId),
}

fn event() -> impl Strategy<Value = Event> {
    // Few distinct nodes, many of them near the own key, so that buckets fill and split.
    let node = (0_u32..9, any::<u8>(), 0_u8..4)
        .prop_map(|(zeros, byte, other)| node(byte.checked_shr(zeros).unwrap_or(0), other));
    (0..8, node).prop_map(|(what, node)| match what {
        0 | 1 => Event::Failed(node),
        2 => Event::Parted(node),
        3 => Event::Removed(node),
        _ => Event::Heard(node),
    })
}

proptest! {
    #[test]
    fn whatever_happens_buckets_hold_only_their_own_and_no_more_than_they_may(events in prop::collection::vec(event(), 1..400)) {
        let mut table = Table::new(OWN, CAPACITY);
        let mut heard = BTreeSet::new();
        for (minute, event) in events.into_iter().enumerate() {
            match event {
                Event::Heard(node) => { heard.insert(node); table.heard(node, false, at(minute as u64), &ById); }
                Event::Failed(node) => { table.failed(node, &ById); }
                Event::Parted(node) => table.parted(node, &ById),
                Event::Removed(node) => table.remove(node, &ById),
            }
            let sizes: usize = table.sizes.iter().map(|&size| usize::from(size)).sum();
            prop_assert_eq!(sizes, table.entries.len());
            for bucket in 0..table.sizes.len() {
                let entries = &table.entries[table.range(bucket)];
                prop_assert!(entries.len() <= CAPACITY);
                for entry in entries {
                    prop_assert!(heard.contains(&entry.contact), "nobody enters unheard");
                    prop_assert_eq!(table.bucket(entry.contact.into()), bucket);
                }
            }
            let distinct: BTreeSet<_> = table.entries.iter().map(|entry| entry.contact).collect();
            prop_assert_eq!(distinct.len(), table.entries.len());
        }
    }

    #[test]
    fn the_closest_are_those_of_a_sorted_list(
        nodes in prop::collection::btree_set(any::<[u8; 20]>(), 1..200),
        target: [u8; 20],
        count in 1_usize..30,
    ) {
        let mut table = Table::new(OWN, 20);
        for &node in &nodes {
            table.heard(NodeId(node), false, at(0), &ById);
        }
        let mut sorted: Vec<_> = table.entries().iter().map(|entry| {
            (Distance::between(Key(target), entry.contact.into()), entry.contact)
        }).collect();
        sorted.sort();
        sorted.truncate(count);
        prop_assert_eq!(table.closest(Key(target), count, &ById, |_| true), sorted);
    }

    #[test]
    fn the_own_neighborhood_is_known_completely(nodes in prop::collection::btree_set(any::<[u8; 20]>(), 1..300)) {
        let mut table = Table::new(OWN, 20);
        let mut sorted: Vec<_> = nodes.into_iter().map(NodeId).collect();
        for &node in &sorted {
            table.heard(node, false, at(0), &ById);
        }
        sorted.sort_by_key(|&node| Distance::between(OWN, node.into()));
        // A bucket beside home may have been full; within it, all are there.
        let home: Vec<_> = sorted.into_iter().filter(|&node| table.bucket(node.into()) + 1 == table.buckets()).collect();
        prop_assert!(home.iter().all(|&node| table.find(node, node.into()).is_some()));
    }
}

#[test]
fn a_full_bucket_keeps_its_old_contacts_until_one_fails_twice() {
    let old: Vec<_> = (0..CAPACITY as u8).map(|other| node(0x80, other)).collect();
    let mut table = table_of(old.iter().copied().chain([node(0x01, 0)]));
    let newcomer = node(0x80, 99);
    assert_eq!(table.heard(newcomer, false, at(1), &ById), Welcome::Waits { doubtful: None });
    assert_eq!(table.failed(old[1], &ById), Farewell::Doubted);
    assert!(table.find(newcomer, newcomer.into()).is_none());
    assert_eq!(table.failed(old[1], &ById), Farewell::Replaced(newcomer));
    assert!(table.find(old[1], old[1].into()).is_none());
    assert!(
        !table.find(newcomer, newcomer.into()).unwrap().is_good(),
        "a spare is asked before it is handed on"
    );
}

#[test]
fn a_newcomer_makes_a_bucket_doubt_its_longest_unheard_contact() {
    let mut table = table_of((0..CAPACITY as u8).map(|other| node(0x80, other)).chain([node(0x01, 0)]));
    for other in 1..CAPACITY as u8 {
        table.heard(node(0x80, other), false, at(30), &ById);
    }
    let welcome = table.heard(node(0x80, 99), false, at(31), &ById);
    assert_eq!(welcome, Welcome::Waits { doubtful: Some(node(0x80, 0)) });
}

#[test]
fn a_sleeping_contact_stays_until_its_room_is_wanted_and_is_back_with_a_word() {
    let mut table = table_of((0..CAPACITY as u8).map(|other| node(0x80, other)).chain([node(0x01, 0)]));
    let sleeper = node(0x80, 2);
    table.failed(sleeper, &ById);
    assert_eq!(table.failed(sleeper, &ById), Farewell::Away);
    assert!(
        table
            .closest(sleeper.into(), 9, &ById, Entry::is_good)
            .iter()
            .all(|&(_, contact)| contact != sleeper)
    );
    assert_eq!(table.heard(sleeper, false, at(5), &ById), Welcome::Known);
    assert!(table.find(sleeper, sleeper.into()).unwrap().is_good());
    table.parted(sleeper, &ById);
    assert_eq!(table.heard(node(0x80, 99), false, at(6), &ById), Welcome::AddedFor(sleeper));
}

#[test]
fn only_the_bucket_with_the_own_key_splits() {
    let far = (0..50).map(|other| node(0x80, other));
    let near = (0..50).map(|other| node(0x00, other));
    let table = table_of(far.chain(near));
    assert_eq!(usize::from(table.sizes[0]), CAPACITY);
    assert!(table.buckets() > 8);
}
