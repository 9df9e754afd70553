//! LSNs of one place whose cells do not fit into one. Refusals flow in; for a while neither is a rival of the other, and a
//! full one names one that has room.

use std::collections::BTreeMap;

use muster_types::{Instant, NodeId};

use super::children::CHILDREN;
use crate::claim::Claim;
use crate::timing::APART_PAUSE;

/// LSNs beside this one that are remembered: a place of 32,000 nodes. When more appear, whose pause ends first is forgotten.
const OTHERS: usize = 32;

#[derive(Debug)]
struct Other {
    until: Instant,
    /// Of its cell, when it was last heard of.
    children: usize,
    claim: Option<Claim>,
    /// This LSN asked, and asks again.
    asks: bool,
}

#[derive(Debug, Default)]
pub(super) struct Apart {
    others: BTreeMap<NodeId, Other>,
}

impl Apart {
    /// The better LSN has no room for this one and its children.
    pub(super) fn refused_by(&mut self, node: NodeId, claim: Option<Claim>, now: Instant) {
        let until = now + APART_PAUSE;
        self.keep(node, Other { until, children: CHILDREN, claim, asks: true });
    }

    /// There is no room here for an LSN with so many children. It asks again before this one shows itself.
    pub(super) fn refuse(&mut self, node: NodeId, children: usize, claim: Option<Claim>, now: Instant) {
        let known = self.others.get(&node).and_then(|other| other.claim.clone());
        let until = now + 2 * APART_PAUSE;
        self.keep(node, Other { until, children, claim: claim.or(known), asks: false });
    }

    /// Is this one no rival now?
    pub(super) fn holds(&mut self, claim: &Claim, now: Instant) -> bool {
        let Some(other) = self.others.get_mut(&claim.claimant.node) else { return false };
        other.claim = Some(claim.clone());
        now < other.until
    }

    /// Where a node may go that finds no room here: the fullest that has some.
    pub(super) fn with_room(&self, but: NodeId) -> Option<&Claim> {
        let able = self.others.iter().filter(|(node, other)| **node != but && other.children < CHILDREN);
        able.filter_map(|(_, other)| Some((other.children, other.claim.as_ref()?)))
            .max_by_key(|(children, _)| *children)
            .map(|(_, claim)| claim)
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.others.remove(&node);
    }

    /// When the next one is asked again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.others.values().filter(|other| other.asks).map(|other| other.until).min()
    }

    /// Whom to ask again.
    pub(super) fn take_due(&mut self, now: Instant) -> impl Iterator<Item = Claim> {
        let due = self.others.extract_if(.., move |_, other| other.until <= now);
        due.filter(|(_, other)| other.asks)
            .filter_map(|(_, other)| other.claim)
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn keep(&mut self, node: NodeId, other: Other) {
        if self.others.len() >= OTHERS && !self.others.contains_key(&node) {
            let first = self.others.iter().min_by_key(|(_, other)| other.until).map(|(&node, _)| node);
            first.map(|node| self.others.remove(&node));
        }
        self.others.insert(node, other);
    }
}
