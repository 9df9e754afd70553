//! What changed in the child table, on its way to topology: merged for a moment, numbered without gaps, kept until
//! acknowledged, sent again from the last acknowledged. When that cannot be done the whole table goes instead.

use std::collections::{BTreeMap, VecDeque};

use muster_types::limits::CELL_NODES;
use muster_types::{Instant, NodeId};

use crate::intent::{Change, Presence, Update};
use crate::timing::{BATCH_MAX, BATCH_QUIET};

/// Updates sent and not acknowledged. Topology that is slower than this gets merged changes, not more updates.
pub const UNACKNOWLEDGED: usize = 32;
/// Changes of so many nodes wait while topology is away; beyond that the whole table is cheaper.
pub const PENDING: usize = CELL_NODES;

#[derive(Debug, Default)]
pub struct ChangeLog {
    /// Of the last update made.
    number: u64,
    attached: bool,
    /// What topology does not know of each node: its last change, and before a departure the arrival, which proves that it
    /// was here.
    pending: BTreeMap<NodeId, Vec<Presence>>,
    pending_since: Option<Instant>,
    sent: VecDeque<Update>,
    /// Topology is owed the whole table.
    snapshot: bool,
}

impl ChangeLog {
    /// Notes a change, and says when it is due.
    pub fn record(&mut self, node: NodeId, presence: Presence, now: Instant) -> Instant {
        if self.pending.len() < PENDING || self.pending.contains_key(&node) {
            let changes = self.pending.entry(node).or_default();
            let departs = matches!(presence, Presence::Departed(_));
            changes.retain(|earlier| departs && matches!(earlier, Presence::Attached { .. }));
            changes.push(presence);
        } else {
            self.pending.clear();
            self.snapshot = true;
        }
        let since = *self.pending_since.get_or_insert(now);
        // Changes that wait for topology itself are overdue already: the next goes when it comes.
        (since + BATCH_MAX).clamp(now, now + BATCH_QUIET)
    }

    /// Topology is there and knows the updates up to `known`. What it lacks is sent again, or the whole table.
    pub fn on_attached(&mut self, known: u64, resync: bool) -> Vec<Update> {
        self.attached = true;
        let first = self.sent.front().map_or(self.number + 1, |update| update.number);
        if resync || known + 1 < first || known > self.number {
            self.snapshot = true;
            self.number = self.number.max(known);
            self.sent.clear();
            return Vec::new();
        }
        self.on_acknowledged(known);
        self.sent.iter().cloned().collect()
    }

    /// Nodes with changes that wait.
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    pub fn is_attached(&self) -> bool {
        self.attached
    }

    pub fn on_detached(&mut self) {
        self.attached = false;
    }

    pub fn on_acknowledged(&mut self, number: u64) {
        while self.sent.front().is_some_and(|update| update.number <= number) {
            self.sent.pop_front();
        }
    }

    /// The next update, if topology is there, keeps up, and there is something to say. `table` makes a snapshot.
    pub fn flush(&mut self, table: impl FnOnce() -> Vec<Change>) -> Option<Update> {
        let idle = self.pending.is_empty() && !self.snapshot;
        if !self.attached || idle || self.sent.len() >= UNACKNOWLEDGED {
            return None;
        }
        let snapshot = std::mem::take(&mut self.snapshot);
        let pending = std::mem::take(&mut self.pending);
        self.pending_since = None;
        let mut changes = if snapshot { table() } else { Vec::new() };
        for (node, presences) in pending {
            // Who is still here stands in the snapshot.
            let told = snapshot && !matches!(presences.last(), Some(Presence::Departed(_)));
            let presences = presences.into_iter().filter(|_| !told);
            changes.extend(presences.map(|presence| Change { node, presence }));
        }
        self.number += 1;
        let update = Update { number: self.number, snapshot, changes };
        self.sent.push_back(update.clone());
        Some(update)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const NOW: Instant = Instant::ZERO;

    fn node(id: u8) -> NodeId {
        NodeId([id; 20])
    }

    fn arrived() -> Presence {
        Presence::Attached {
            attach: crate::claim::tests::claim(0, 1, 1, 0).tenure().attach(node(0)),
            contact: muster_types::Contact { node: node(0), addresses: vec![] },
            version: muster_types::Version::default(),
            standing: crate::standing::Standing::default(),
        }
    }

    fn is_arrival(presence: &Presence) -> bool {
        matches!(presence, Presence::Attached { .. })
    }

    #[test]
    fn a_departure_takes_the_untold_arrival_along_as_its_proof() {
        let mut log = ChangeLog::default();
        log.record(node(1), arrived(), NOW);
        log.record(node(1), Presence::Departed(None), NOW);
        log.on_attached(0, true);
        let update = log.flush(Vec::new).expect("there is something to say");
        let arrivals: Vec<_> = update.changes.iter().map(|change| is_arrival(&change.presence)).collect();
        assert_eq!(arrivals, [true, false]);
    }

    #[test]
    fn a_change_waits_for_company_but_never_beyond_the_limit() {
        let mut log = ChangeLog::default();
        let mut now = NOW;
        let mut due = log.record(node(1), arrived(), now);
        assert_eq!(due, NOW + BATCH_QUIET);
        while due > now {
            now = due - std::time::Duration::from_millis(1);
            due = log.record(node(2), arrived(), now);
            assert!(due <= NOW + BATCH_MAX);
            if due == NOW + BATCH_MAX {
                return;
            }
        }
        panic!("the limit was never reached");
    }

    #[test]
    fn what_was_not_acknowledged_is_sent_again_under_its_number() {
        let mut log = ChangeLog::default();
        log.on_attached(0, false);
        for id in 1..4 {
            log.record(node(id), arrived(), NOW);
            log.flush(Vec::new);
        }
        log.on_acknowledged(1);
        log.on_detached();
        let again: Vec<_> = log.on_attached(2, false).into_iter().map(|update| update.number).collect();
        assert_eq!(again, [3]);
    }

    #[test]
    fn topology_that_knows_less_than_is_kept_gets_the_whole_table() {
        let mut log = ChangeLog::default();
        log.on_attached(0, false);
        log.record(node(1), arrived(), NOW);
        log.flush(Vec::new);
        log.on_acknowledged(1);
        log.on_detached();
        assert!(log.on_attached(0, false).is_empty());
        assert!(log.flush(Vec::new).is_some_and(|update| update.snapshot && update.number == 2));
    }

    proptest! {
        /// Against a topology that applies what arrives, over a channel that breaks and loses what is on the way.
        #[test]
        fn topology_ends_with_the_very_table_whatever_the_channel_does(
            steps in prop::collection::vec((0u8..6, 1u8..10), 0..200),
        ) {
            let (mut log, mut table) = (ChangeLog::default(), BTreeSet::new());
            let (mut shown, mut known, mut attached) = (BTreeSet::new(), 0u64, false);
            let apply = |update: Update, known: &mut u64, shown: &mut BTreeSet<NodeId>| {
                if update.number != *known + 1 && !update.snapshot {
                    return;
                }
                *known = update.number;
                if update.snapshot {
                    shown.clear();
                }
                for change in update.changes {
                    if is_arrival(&change.presence) { shown.insert(change.node) } else { shown.remove(&change.node) };
                }
            };
            let snapshot = |table: &BTreeSet<NodeId>| -> Vec<Change> {
                table.iter().map(|&node| Change { node, presence: arrived() }).collect()
            };
            for (act, id) in steps.into_iter().chain([(3, 1), (4, 1), (4, 1)]) {
                match act {
                    0 => { table.insert(node(id)); log.record(node(id), arrived(), NOW); }
                    1 => { table.remove(&node(id)); log.record(node(id), Presence::Departed(None), NOW); }
                    2 => { attached = false; log.on_detached(); }
                    3 => {
                        attached = true;
                        for update in log.on_attached(known, id == 9) { apply(update, &mut known, &mut shown); }
                    }
                    4 => {
                        if let Some(update) = log.flush(|| snapshot(&table)) { apply(update, &mut known, &mut shown); }
                        if attached { log.on_acknowledged(known); }
                    }
                    // Lost on the way: the channel breaks, and topology never saw it.
                    _ => { log.flush(|| snapshot(&table)); attached = false; log.on_detached(); }
                }
            }
            prop_assert_eq!(shown, table);
        }
    }
}
