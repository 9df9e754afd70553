//! The child table: who is under this LSN, until when, and who comes first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_types::limits::CELL_NODES;
use muster_types::{Contact, Instant, NodeId, Version};

use crate::intent::Presence;
use crate::message::{Attach, Join, Neighbor};
use crate::standing::{Standing, Uptime, Worth};
use crate::timing::{FOLLOW_PATIENCE, KNOCK_PAUSE, LEASE, SUSPICION};

/// The LSN itself is one of its cell's nodes.
pub const CHILDREN: usize = CELL_NODES - 1;

/// Children found out of reach after which nobody new is knocked at: where so many of the best are, the others will be, and
/// each that steps behind costs the deputies a list.
const OUT_OF_REACH: usize = 16;

#[derive(Debug, Clone)]
pub struct Child {
    pub contact: Contact,
    pub uptime: Uptime,
    pub standing: Standing,
    pub version: Version,
    pub attach: Attach,
    pub since: Instant,
    lease_until: Instant,
    /// Was a deputy and answered no beats: not chosen again before it is heard of.
    silent: bool,
    /// When it was last knocked at, at these addresses.
    knocked: Option<Instant>,
    /// What came of it.
    reach: Reach,
}

/// Whether uninvited packets reach a child, so that it could be LSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Untried,
    Within,
    Out,
}

impl Child {
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// Those who could not take over come last.
    fn place(&self) -> (bool, Worth) {
        (!self.silent && self.reach != Reach::Out, self.worth())
    }

    fn worth(&self) -> Worth {
        Worth { standing: self.standing, uptime: self.uptime, node: self.contact.node }
    }

    /// How topology is told of it.
    pub(crate) fn presence(&self) -> Presence {
        Presence::Attached {
            attach: self.attach.clone(),
            contact: self.contact.clone(),
            version: self.version,
            standing: self.standing,
        }
    }

    fn neighbor(&self) -> Neighbor {
        Neighbor { contact: self.contact.clone(), uptime: self.uptime, standing: self.standing }
    }
}

/// What became of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    New,
    /// It was here; `changed`: with other properties, or by a new attach.
    Known {
        changed: bool,
    },
    Full,
}

#[derive(Debug, Default)]
pub struct ChildTable {
    children: BTreeMap<NodeId, Child>,
    /// Neither silent nor out of reach before those who are, better before worse; read from its end.
    order: BTreeSet<(bool, Worth)>,
    expected: Expected,
}

/// Children of LSNs that gave in, on their way here.
#[derive(Debug, Default)]
struct Expected {
    nodes: usize,
    until: Instant,
}

impl Expected {
    fn add(&mut self, nodes: usize, now: Instant) {
        self.nodes = self.at(now) + nodes;
        self.until = now + FOLLOW_PATIENCE;
    }

    fn at(&self, now: Instant) -> usize {
        if now < self.until { self.nodes } else { 0 }
    }
}

impl ChildTable {
    pub fn len(&self) -> usize {
        self.children.len()
    }

    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.children.len() >= CHILDREN
    }

    pub fn contains(&self, node: NodeId) -> bool {
        self.children.contains_key(&node)
    }

    pub fn child(&self, node: NodeId) -> Option<&Child> {
        self.children.get(&node)
    }

    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.children.keys().copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Child)> + '_ {
        self.children.iter().map(|(&node, child)| (node, child))
    }

    /// Best first: the neighbor list's order, of which the first two are the deputies.
    pub fn ranking(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.order.iter().rev().map(|(_, worth)| worth.node)
    }

    pub fn neighbors(&self, limit: usize) -> Vec<Neighbor> {
        self.ranking().take(limit).filter_map(|node| Some(self.children.get(&node)?.neighbor())).collect()
    }

    pub fn admit(&mut self, join: Join, now: Instant) -> Admission {
        let node = join.contact.node;
        let known = self.children.get(&node);
        let brings = join.brings.map_or(0, |brings| usize::try_from(brings).unwrap_or(CHILDREN));
        let expected = if brings > 0 { self.expected.at(now) } else { 0 };
        if known.is_none() && self.children.len().saturating_add(expected).saturating_add(brings) >= CHILDREN
        {
            return Admission::Full;
        }
        if brings > 0 {
            self.expected.add(brings, now);
        } else if known.is_none() {
            self.expected.nodes = self.expected.nodes.saturating_sub(1);
        }
        let tried = known.filter(|known| known.contact == join.contact);
        let child = Child {
            since: known.map_or(now, |known| known.since),
            knocked: tried.and_then(|known| known.knocked),
            reach: tried.map_or(Reach::Untried, |known| known.reach),
            contact: join.contact,
            uptime: join.uptime,
            standing: join.standing,
            version: join.version,
            attach: join.attach,
            lease_until: now + LEASE,
            silent: false,
        };
        let admission = known.map_or(Admission::New, |known| Admission::Known {
            changed: known.contact != child.contact
                || known.worth() != child.worth()
                || known.version != child.version
                || known.attach.seal != child.attach.seal,
        });
        self.remove(node);
        self.order.insert(child.place());
        self.children.insert(node, child);
        admission
    }

    /// Heard of a node; false if it is no child.
    pub fn renew(&mut self, node: NodeId, now: Instant) -> bool {
        let Some(child) = self.children.get_mut(&node) else { return false };
        child.lease_until = now + LEASE;
        if child.silent {
            self.change(node, |child| child.silent = false);
        }
        true
    }

    /// Changes what its place depends on; true if the order is another one now.
    fn change(&mut self, node: NodeId, change: impl FnOnce(&mut Child)) -> bool {
        let Some(child) = self.children.get_mut(&node) else { return false };
        let before = child.place();
        change(child);
        let after = child.place();
        if before != after {
            self.order.remove(&before);
            self.order.insert(after);
        }
        before != after
    }

    /// Whom to knock at now, if it was never tried, or was out of reach a while ago.
    pub fn to_knock_at(&mut self, node: NodeId, now: Instant) -> Option<Contact> {
        let few = self.out_of_reach().count() < OUT_OF_REACH;
        let child = self.children.get_mut(&node)?;
        let due = match child.reach {
            Reach::Untried => child.knocked.is_none() && few,
            Reach::Within => false,
            Reach::Out => child.knocked.is_none_or(|at| now.since(at) >= KNOCK_PAUSE),
        };
        due.then(|| {
            child.knocked = Some(now);
            child.contact.clone()
        })
    }

    /// What came of the knock; true if the order is another one now.
    pub fn set_reached(&mut self, node: NodeId, answered: bool) -> bool {
        self.change(node, |child| child.reach = if answered { Reach::Within } else { Reach::Out })
    }

    pub fn out_of_reach(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.iter().filter(|(_, child)| child.reach == Reach::Out).map(|(node, _)| node)
    }

    /// Its lease ends soon unless it is heard of; false if it is no child.
    pub fn doubt(&mut self, node: NodeId, now: Instant) -> bool {
        let Some(child) = self.children.get_mut(&node) else { return false };
        child.lease_until = child.lease_until.min(now + SUSPICION);
        true
    }

    /// A deputy that answers no beats steps behind those who may live.
    pub fn set_silent(&mut self, node: NodeId) {
        self.change(node, |child| child.silent = true);
    }

    pub fn remove(&mut self, node: NodeId) -> Option<Child> {
        let child = self.children.remove(&node)?;
        self.order.remove(&child.place());
        Some(child)
    }

    /// Takes out whose lease has run out.
    pub fn expire(&mut self, now: Instant) -> Vec<NodeId> {
        let gone: Vec<_> =
            self.iter().filter(|(_, child)| child.lease_until <= now).map(|(node, _)| node).collect();
        for &node in &gone {
            self.remove(node);
        }
        gone
    }

    /// This host ran late by so much: pings may lie unread.
    pub fn extend(&mut self, late: Duration) {
        self.children.values_mut().for_each(|child| child.lease_until += late);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::tests::claim;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_elapsed(Duration::from_secs(seconds))
    }

    fn join(id: u8, uptime: u16) -> Join {
        let contact = Contact { node: NodeId([id; 20]), addresses: vec![] };
        Join {
            attach: claim(0, 1, 1, 0).tenure().attach(contact.node),
            contact,
            subnet_keys: vec![],
            uptime: Uptime(uptime),
            standing: Standing::default(),
            version: Version::default(),
            brings: None,
        }
    }

    #[test]
    fn children_are_listed_best_first_and_silent_ones_last() {
        let mut table = ChildTable::default();
        for (id, uptime) in [(1, 10), (2, 30), (3, 20)] {
            assert_eq!(table.admit(join(id, uptime), at(0)), Admission::New);
        }
        table.set_silent(NodeId([2; 20]));
        assert_eq!(table.ranking().map(|n| n.0[0]).collect::<Vec<_>>(), [3, 1, 2]);
        assert!(table.renew(NodeId([2; 20]), at(1)));
        assert_eq!(table.ranking().map(|n| n.0[0]).collect::<Vec<_>>(), [2, 3, 1]);
    }

    #[test]
    fn a_full_table_takes_nobody_new_but_keeps_its_own() {
        let mut table = ChildTable::default();
        for number in 0..CHILDREN {
            let mut child = join(0, 0);
            child.contact.node.0[..8].copy_from_slice(&number.to_be_bytes());
            table.admit(child, at(0));
        }
        assert_eq!(table.admit(join(9, 0), at(0)), Admission::Full);
        assert_eq!(table.admit(join(0, 5), at(0)), Admission::Known { changed: true });
    }

    #[test]
    fn an_lsn_and_its_children_are_taken_in_together_or_not_at_all() {
        let mut table = ChildTable::default();
        let with = |id, brings| Join { brings: Some(brings), ..join(id, 0) };
        let half = u32::try_from(CHILDREN / 2).unwrap();
        assert_eq!(table.admit(with(1, half), at(0)), Admission::New);
        assert_eq!(table.admit(with(2, half), at(0)), Admission::Full, "the first one's are on their way");
        assert_eq!(table.admit(join(3, 0), at(0)), Admission::New, "who comes alone may be one of them");
        assert_eq!(table.admit(with(2, half), at(60)), Admission::New, "they never came");
        assert_eq!(table.admit(with(4, 1_000_000), at(60)), Admission::Full);
    }

    proptest! {
        /// Steps: which node, what happens to it, and how many seconds pass.
        #[test]
        fn the_table_holds_exactly_whose_lease_runs_in_the_order_of_worth(
            steps in prop::collection::vec((1u8..8, 0u8..4, 0u64..5), 0..60),
        ) {
            let (mut table, mut model) = (ChildTable::default(), BTreeMap::<u8, (u64, u16, bool)>::new());
            let mut now = 0;
            for (id, act, passed) in steps {
                now += passed;
                let (node, until) = (NodeId([id; 20]), now + LEASE.as_secs());
                match act {
                    0 => {
                        table.admit(join(id, u16::from(id) * 7 % 5), at(now));
                        model.insert(id, (until, u16::from(id) * 7 % 5, false));
                    }
                    1 => {
                        prop_assert_eq!(table.renew(node, at(now)), model.contains_key(&id));
                        model.entry(id).and_modify(|child| (child.0, child.2) = (until, false));
                    }
                    2 => {
                        table.set_silent(node);
                        model.entry(id).and_modify(|child| child.2 = true);
                    }
                    _ => prop_assert_eq!(table.remove(node).is_some(), model.remove(&id).is_some()),
                }
                table.expire(at(now));
                model.retain(|_, child| child.0 > now);
                let mut expected: Vec<_> = model.iter().map(|(&id, child)| (child.2, -i32::from(child.1), id)).collect();
                expected.sort_unstable();
                let expected: Vec<_> = expected.into_iter().map(|(_, _, id)| id).collect();
                prop_assert_eq!(table.ranking().map(|n| n.0[0]).collect::<Vec<_>>(), expected);
                prop_assert_eq!(table.len(), model.len());
            }
        }
    }
}
