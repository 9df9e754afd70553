//! The rules of presence and cells, under a clock of their own: who is shown where, who is lost, who went dark.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_topology::domain::attach::{Attach, Attached};
use muster_topology::domain::attachment::{Attachment, DARK_AFTER, MISSED_AFTER, SILENT_AFTER};
use muster_topology::domain::cell::{Cell, CellId, Claim};
use muster_topology::domain::departure::{Detach, Orphan, Settle};
use muster_topology::domain::ledger::{Command, Ledger};
use muster_topology::domain::node::{Attested, Node, Position, Presence, Profile};
use muster_topology::domain::opaque::Opaque;
use muster_topology::domain::table::Stored;
use muster_topology::domain::update::{ChildChange, Sighting, Update, Updated};
use muster_types::{NodeId, SubnetKey, Timestamp, limits};

const LINEAGE: u64 = 0xaa;
const HERE: SubnetKey = SubnetKey([5; 20]);
const ELSEWHERE: SubnetKey = SubnetKey([6; 20]);

/// What a store would hold, and a clock.
struct Fleet {
    now: Timestamp,
    nodes: BTreeMap<NodeId, Node>,
    cells: BTreeMap<CellId, Cell>,
    attachments: BTreeMap<NodeId, Attachment>,
}

fn id(name: u8) -> NodeId {
    NodeId([name; 20])
}

impl Fleet {
    fn new() -> Self {
        let now = Timestamp::from_micros(1_800_000_000_000_000);
        Self { now, nodes: BTreeMap::new(), cells: BTreeMap::new(), attachments: BTreeMap::new() }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    fn run<C: Command>(&mut self, command: C) -> C::Answer {
        let mut ledger = Ledger::at(self.now);
        for (id, row) in &self.nodes {
            ledger.nodes.load(*id, Stored { row: row.clone(), revision: 1 });
        }
        for (id, row) in &self.cells {
            ledger.cells.load(*id, Stored { row: row.clone(), revision: 1 });
            let members = self.nodes.values().filter(|node| node.cell == Some(*id) && node.is_online());
            ledger.members.insert(*id, members.count());
        }
        for (id, row) in &self.attachments {
            ledger.attachments.load(*id, Stored { row: row.clone(), revision: 1 });
        }
        let answer = command.apply(&mut ledger);
        let (changes, _) = ledger.close();
        self.nodes.extend(changes.nodes.into_iter().filter_map(|it| Some((it.key, it.after?))));
        self.cells.extend(changes.cells.into_iter().filter_map(|it| Some((it.key, it.after?))));
        self.attachments.extend(changes.attachments.into_iter().filter_map(|it| Some((it.key, it.after?))));
        answer
    }

    fn attach(&mut self, node: NodeId, session: u64, claim: Option<Claim>) -> Attached {
        self.attach_from(HERE, node, session, claim)
    }

    fn attach_from(&mut self, key: SubnetKey, node: NodeId, session: u64, claim: Option<Claim>) -> Attached {
        self.run(Attach {
            node,
            attested: Attested::default(),
            profile: Profile::default(),
            observed: None,
            claim,
            keys: BTreeSet::from([key]),
            resume_token: Opaque::default(),
            fresh_token: Opaque(vec![session as u8]),
            replica: "r".to_owned(),
            session,
        })
    }

    fn attach_lsn(&mut self, node: NodeId, session: u64, lineage: u64, epoch: u64) -> Attached {
        self.attach(node, session, Some(claim(node, lineage, epoch)))
    }

    /// The LSN of `cell` shows these nodes, and no other.
    fn show(&mut self, lsn: NodeId, session: u64, epoch: u64, children: &[NodeId]) -> Updated {
        let changes = children.iter().map(|node| self.sighting(*node, epoch, self.now)).collect();
        let known = self.attachments[&lsn].known_update;
        self.run(Update { lsn, session, cell: CellId(LINEAGE), number: known + 1, snapshot: true, changes })
    }

    fn sighting(&self, node: NodeId, epoch: u64, attach_time: Timestamp) -> ChildChange {
        ChildChange::Attached(Box::new(Sighting {
            node,
            attested: Attested::default(),
            profile: Profile::default(),
            lineage: LINEAGE,
            epoch,
            attach_time,
        }))
    }

    fn lose(&mut self, node: NodeId, session: u64) {
        let heard = self.now;
        self.run(Detach { node, session, parted: None, heard, life: 0 });
    }

    fn settle(&mut self, carrier: NodeId) -> bool {
        self.run(Settle { carrier })
    }

    fn presence(&self, node: NodeId) -> Presence {
        self.nodes[&node].presence
    }
}

fn claim(claimant: NodeId, lineage: u64, epoch: u64) -> Claim {
    Claim {
        claimant,
        lineage,
        epoch,
        predecessor: None,
        keys: BTreeSet::from([HERE]),
        prefixes: Vec::new(),
        observed: None,
        sealed: Opaque(vec![claimant.0[0], epoch as u8]),
    }
}

/// An LSN with two children.
fn place() -> Fleet {
    let mut fleet = Fleet::new();
    fleet.attach_lsn(id(1), 1, LINEAGE, 1);
    fleet.show(id(1), 1, 1, &[id(2), id(3)]);
    fleet
}

#[test]
fn a_place_that_goes_dark_is_unreachable_within_ninety_seconds_and_not_offline() {
    let mut fleet = place();
    fleet.lose(id(1), 1);
    fleet.pass(DARK_AFTER - Duration::from_secs(1));
    assert!(!fleet.settle(id(1)));
    assert_eq!(fleet.presence(id(2)), Presence::Online);
    fleet.pass(Duration::from_secs(1));
    assert!(fleet.settle(id(1)));
    for node in 1..=3 {
        assert_eq!(fleet.presence(id(node)), Presence::Unreachable);
    }
    assert_eq!(fleet.nodes[&id(2)].reason, "its place went dark");
    assert!(SILENT_AFTER + DARK_AFTER < Duration::from_secs(90));
}

#[test]
fn an_lsn_that_dies_in_a_living_place_is_offline_and_its_children_move() {
    let mut fleet = place();
    fleet.lose(id(1), 1);
    fleet.pass(Duration::from_secs(1));
    fleet.attach_lsn(id(2), 2, LINEAGE, 2);
    fleet.show(id(2), 2, 2, &[id(3)]);
    assert_eq!((fleet.nodes[&id(2)].position, fleet.nodes[&id(3)].lsn), (Position::Lsn, Some(id(2))));
    assert_eq!(fleet.presence(id(1)), Presence::Online);
    fleet.pass(MISSED_AFTER);
    assert!(fleet.settle(id(1)));
    assert_eq!(fleet.presence(id(1)), Presence::Offline);
    assert_eq!((fleet.presence(id(2)), fleet.presence(id(3))), (Presence::Online, Presence::Online));
    assert_eq!(fleet.cells.len(), 1);
}

#[test]
fn an_lsn_that_comes_back_in_time_was_never_gone() {
    let mut fleet = place();
    fleet.lose(id(1), 1);
    fleet.pass(Duration::from_secs(30));
    let attached = fleet.attach_lsn(id(1), 2, LINEAGE, 1);
    assert!(attached.resync);
    fleet.pass(DARK_AFTER);
    assert!(fleet.settle(id(1)));
    assert_eq!(fleet.presence(id(2)), Presence::Online);
}

#[test]
fn an_announced_part_shows_at_once() {
    let mut fleet = Fleet::new();
    fleet.attach(id(1), 1, None);
    let heard = fleet.now;
    fleet.run(Detach { node: id(1), session: 1, parted: Some("parted (200)".to_owned()), heard, life: 0 });
    assert_eq!(
        (fleet.presence(id(1)), fleet.nodes[&id(1)].reason.as_str()),
        (Presence::Offline, "parted (200)")
    );
}

#[test]
fn the_end_of_an_earlier_stream_does_not_touch_the_later() {
    let mut fleet = Fleet::new();
    fleet.attach(id(1), 1, None);
    fleet.attach(id(1), 2, None);
    let heard = fleet.now;
    fleet.run(Detach { node: id(1), session: 1, parted: Some("parted".to_owned()), heard, life: 0 });
    assert_eq!(fleet.presence(id(1)), Presence::Online);
    assert!(fleet.attachments[&id(1)].is_live());
}

#[test]
fn a_node_that_moved_is_not_taken_back_by_its_old_lsn() {
    let mut fleet = place();
    let first_attach = fleet.now;
    fleet.pass(Duration::from_secs(5));
    fleet.attach_from(ELSEWHERE, id(2), 9, None);
    assert_eq!(fleet.nodes[&id(2)].position, Position::Direct);
    let replay = vec![fleet.sighting(id(2), 1, first_attach)];
    let cell = CellId(LINEAGE);
    let answer =
        fleet.run(Update { lsn: id(1), session: 1, cell, number: 2, snapshot: false, changes: replay });
    assert!(matches!(answer, Updated::Known { refused: 1, .. }));
    assert_eq!(fleet.nodes[&id(2)].position, Position::Direct);
    let departed = vec![ChildChange::Departed { node: id(2), reason: "lost connection".to_owned() }];
    fleet.run(Update { lsn: id(1), session: 1, cell, number: 3, snapshot: false, changes: departed });
    assert_eq!(fleet.presence(id(2)), Presence::Online);
}

#[test]
fn a_child_whose_own_channel_opens_after_its_lsns_word_stays_one_and_gets_the_receipt_it_misses() {
    let mut fleet = place();
    fleet.pass(Duration::from_secs(5));
    let attached = fleet.attach(id(2), 9, None);
    assert_eq!((attached.position, fleet.nodes[&id(2)].lsn), (Position::Child, Some(id(1))));
    assert_eq!(attached.shown.map(|(lsn, shown)| (lsn, shown.node)), Some((id(1), id(2))));
    fleet.lose(id(2), 9);
    fleet.pass(MISSED_AFTER + DARK_AFTER);
    assert!(fleet.settle(id(2)));
    assert_eq!(fleet.presence(id(2)), Presence::Online, "its own channel ended, its LSN's word stands");
}

#[test]
fn a_child_with_a_channel_of_its_own_is_here_when_its_lsn_strikes_it_off() {
    let mut fleet = place();
    fleet.pass(Duration::from_secs(5));
    fleet.attach(id(2), 9, None);
    let departed = vec![ChildChange::Departed { node: id(2), reason: "lost connection".to_owned() }];
    let cell = CellId(LINEAGE);
    fleet.run(Update { lsn: id(1), session: 1, cell, number: 2, snapshot: false, changes: departed });
    let node = &fleet.nodes[&id(2)];
    assert_eq!((node.presence, node.position), (Presence::Online, Position::Direct));
}

#[test]
fn whom_an_lsn_strikes_off_hears_of_it_unless_it_is_known_to_be_elsewhere() {
    let mut fleet = place();
    fleet.pass(Duration::from_secs(5));
    fleet.attach_from(ELSEWHERE, id(2), 9, None);
    let gone = |node| ChildChange::Departed { node, reason: "lost connection".to_owned() };
    let (cell, changes) = (CellId(LINEAGE), vec![gone(id(2)), gone(id(3)), gone(id(9))]);
    let update = Update { lsn: id(1), session: 1, cell, number: 2, snapshot: false, changes };
    let Updated::Known { gone, .. } = fleet.run(update) else { panic!("it is the next one") };
    assert_eq!(gone, [id(3)]);
    // A table without it says the same.
    let mut fleet = place();
    let Updated::Known { gone, .. } = fleet.show(id(1), 1, 1, &[id(3)]) else { panic!("it is the next one") };
    assert_eq!(gone, [id(2)]);
}

#[test]
fn who_comes_without_an_lsn_is_told_of_the_one_of_its_place() {
    let mut fleet = place();
    assert_eq!(fleet.attach(id(7), 7, None).rivals, vec![Opaque(vec![1, 1])]);
    assert!(fleet.attach_from(ELSEWHERE, id(8), 8, None).rivals.is_empty());
}

#[test]
fn an_lsn_whose_place_is_claimed_is_told_of_its_successor() {
    let mut fleet = place();
    assert_eq!(fleet.attach_lsn(id(2), 2, LINEAGE, 2).rivalled, vec![id(1)]);
}

#[test]
fn a_repeated_update_changes_nothing_and_repeats_its_receipts() {
    let mut fleet = place();
    let changes = vec![fleet.sighting(id(2), 1, fleet.now)];
    let again = Update { lsn: id(1), session: 1, cell: CellId(LINEAGE), number: 1, snapshot: false, changes };
    let Updated::Known { number, shown, .. } = fleet.run(again) else { panic!() };
    assert_eq!((number, shown.len()), (1, 1));
}

#[test]
fn a_new_lineage_inherits_the_cell_whose_lsn_is_gone() {
    let mut fleet = place();
    fleet.lose(id(1), 1);
    fleet.pass(DARK_AFTER);
    fleet.settle(id(1));
    let attached = fleet.attach_lsn(id(3), 2, 0xbb, 1);
    assert_eq!((attached.cell, attached.rivals.len()), (Some(CellId(LINEAGE)), 0));
    assert_eq!(fleet.cells[&CellId(LINEAGE)].lineage, 0xbb);
}

#[test]
fn an_lsn_that_lost_the_contest_leaves_its_cell_without_one() {
    let mut fleet = place();
    let other = fleet.attach_lsn(id(8), 8, 0xbb, 1);
    assert_eq!((other.cell, other.rivalled), (Some(CellId(0xbb)), vec![id(1)]));
    let now = fleet.now;
    let changes = vec![fleet.sighting(id(8), 1, now)];
    fleet.run(Update { lsn: id(1), session: 1, cell: CellId(LINEAGE), number: 2, snapshot: false, changes });
    assert_eq!(fleet.nodes[&id(8)].lsn, Some(id(1)));
    assert_eq!(fleet.cells[&CellId(0xbb)].lsn, None);
}

#[test]
fn who_died_with_an_lsn_whose_next_one_went_to_another_cell_was_missed_there() {
    let mut fleet = place();
    fleet.lose(id(1), 1);
    // The LSN and the node 2 are dead. Two of the others claim at once; the first inherits the cell, and gives in.
    assert_eq!(fleet.attach_lsn(id(3), 3, 0xbb, 1).cell, Some(CellId(LINEAGE)));
    let other = fleet.attach_lsn(id(4), 4, 0xcc, 1).cell.unwrap();
    assert_ne!(other, CellId(LINEAGE));
    fleet.attach(id(3), 3, None);
    fleet.pass(Duration::from_secs(1));
    let sighting = Sighting {
        node: id(3),
        attested: Attested::default(),
        profile: Profile::default(),
        lineage: 0xcc,
        epoch: 1,
        attach_time: fleet.now,
    };
    let changes = vec![ChildChange::Attached(Box::new(sighting))];
    fleet.run(Update { lsn: id(4), session: 4, cell: other, number: 1, snapshot: true, changes });
    assert_eq!(fleet.nodes[&id(3)].lsn, Some(id(4)));
    fleet.pass(MISSED_AFTER);
    assert!(fleet.settle(id(1)));
    assert_eq!((fleet.presence(id(1)), fleet.presence(id(2))), (Presence::Offline, Presence::Offline));
    assert_eq!(fleet.nodes[&id(2)].reason, "lost connection");
}

#[test]
fn a_cell_takes_a_thousand_nodes_and_no_more() {
    let mut fleet = Fleet::new();
    fleet.attach_lsn(id(1), 1, LINEAGE, 1);
    let many = |first: usize, count: usize| -> Vec<NodeId> {
        (first..first + count)
            .map(|number| {
                let mut id = NodeId([9; 20]);
                id.0[..8].copy_from_slice(&(number as u64).to_be_bytes());
                id
            })
            .collect()
    };
    fleet.show(id(1), 1, 1, &many(0, limits::CELL_NODES - 1));
    let changes = many(5_000, 1).into_iter().map(|node| fleet.sighting(node, 1, fleet.now)).collect();
    let update =
        Update { lsn: id(1), session: 1, cell: CellId(LINEAGE), number: 2, snapshot: false, changes };
    assert!(matches!(fleet.run(update), Updated::Known { refused: 1, .. }));
    // Who finds no room there founds the next cell, and neither is the other's rival.
    assert!(fleet.attach(id(7), 7, None).rivals.is_empty());
    let next = fleet.attach_lsn(id(8), 8, 0xbb, 1);
    assert_eq!((next.cell, next.rivals, next.rivalled), (Some(CellId(0xbb)), Vec::new(), Vec::new()));
    // With one node less there is room again.
    fleet.show(id(1), 1, 1, &many(0, limits::CELL_NODES - 2));
    assert_eq!(fleet.attach(id(7), 7, None).rivals.len(), 2);
}

#[test]
fn streams_of_a_dead_replica_are_lost_from_the_moment_that_is_found() {
    let mut fleet = place();
    let renewed = fleet.now;
    fleet.pass(Duration::from_secs(3_600));
    fleet.run(Orphan { nodes: vec![id(1)], replica: "r".to_owned(), renewed });
    assert!(!fleet.settle(id(1)), "a master that was away gives its nodes time to come back");
    fleet.pass(DARK_AFTER);
    assert!(fleet.settle(id(1)));
    assert_eq!(fleet.presence(id(1)), Presence::Unreachable);
    assert!(fleet.nodes[&id(1)].uptime.basis_points(fleet.now) < 10, "the hour nobody saw does not count");
}
