//! Two nodes that may send to each other, and where they sit.

use std::collections::BTreeSet;

use muster_types::{Instant, NodeId};

use super::pace::Pace;
use super::{ByNode, End, Grant, Meeting};

/// A pair's place in [`Pairs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PairId(u32);

#[derive(Debug)]
pub(super) struct Pair {
    nodes: [NodeId; 2],
    ends: [Option<End>; 2],
    pub(super) bytes_per_second: u64,
    pub(super) until: Instant,
    pub(super) pace: Pace,
}

impl Pair {
    fn side(&self, node: NodeId) -> usize {
        usize::from(self.nodes[1] == node)
    }

    pub(super) fn end(&self, node: NodeId) -> Option<End> {
        self.ends[self.side(node)]
    }

    pub(super) fn ends(self) -> impl Iterator<Item = End> {
        self.ends.into_iter().flatten()
    }

    pub(super) fn seat(&mut self, node: NodeId, end: End) {
        self.ends[self.side(node)] = Some(end);
    }

    /// Where a packet from `from` goes.
    pub(super) fn other(&self, from: End) -> Option<End> {
        if self.ends[0] == Some(from) { self.ends[1] } else { self.ends[0] }
    }

    /// What both ends hear, if both are here.
    pub(super) fn meetings(&self) -> Vec<Meeting> {
        match self.ends {
            [Some(first), Some(second)] => {
                let [one, other] = self.nodes;
                vec![Meeting { end: first, peer: other }, Meeting { end: second, peer: one }]
            }
            _ => Vec::new(),
        }
    }

    /// Takes a node's end away; the answer is the other one, if it is here.
    pub(super) fn vacate(&mut self, node: NodeId) -> Option<End> {
        let side = self.side(node);
        self.ends[side] = None;
        self.ends[1 - side]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.iter().all(Option::is_none)
    }
}

/// Every pair, by number and by node.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    slots: Vec<Option<Pair>>,
    free: Vec<PairId>,
    by_node: ByNode<ByNode<PairId>>,
    by_end: BTreeSet<(Instant, PairId)>,
}

impl Pairs {
    pub(super) fn len(&self) -> usize {
        self.by_end.len()
    }

    pub(super) fn has(&self, node: NodeId, peer: NodeId) -> bool {
        self.by_node.get(&node).is_some_and(|peers| peers.contains_key(&peer))
    }

    pub(super) fn count(&self, node: NodeId) -> usize {
        self.by_node.get(&node).map_or(0, ByNode::len)
    }

    pub(super) fn of(&self, node: NodeId) -> Vec<PairId> {
        self.by_node.get(&node).into_iter().flat_map(|peers| peers.values().copied()).collect()
    }

    pub(super) fn get(&self, id: PairId) -> Option<&Pair> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: PairId) -> Option<&mut Pair> {
        self.slots.get_mut(id.0 as usize)?.as_mut()
    }

    /// A new pair, or what the newest ticket says of one that stands: its rate counts, and the later end.
    pub(super) fn grant(&mut self, node: NodeId, peer: NodeId, grant: Grant) -> PairId {
        let known = self.by_node.get(&node).and_then(|peers| peers.get(&peer)).copied();
        let id = known.unwrap_or_else(|| self.insert(node, peer, grant));
        if let Some(pair) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut) {
            self.by_end.remove(&(pair.until, id));
            pair.until = pair.until.max(grant.until);
            pair.bytes_per_second = grant.bytes_per_second;
            self.by_end.insert((pair.until, id));
        }
        id
    }

    fn insert(&mut self, node: NodeId, peer: NodeId, grant: Grant) -> PairId {
        let pair = Pair {
            nodes: [node, peer],
            ends: [None; 2],
            bytes_per_second: grant.bytes_per_second,
            until: grant.until,
            pace: Pace::default(),
        };
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            PairId((self.slots.len() - 1) as u32)
        });
        self.slots[id.0 as usize] = Some(pair);
        self.by_node.entry(node).or_default().insert(peer, id);
        self.by_node.entry(peer).or_default().insert(node, id);
        id
    }

    pub(super) fn remove(&mut self, id: PairId) -> Option<Pair> {
        let pair = self.slots.get_mut(id.0 as usize)?.take()?;
        self.free.push(id);
        self.by_end.remove(&(pair.until, id));
        let [one, other] = pair.nodes;
        for (node, peer) in [(one, other), (other, one)] {
            let Some(peers) = self.by_node.get_mut(&node) else { continue };
            peers.remove(&peer);
            if peers.is_empty() {
                self.by_node.remove(&node);
            }
        }
        Some(pair)
    }

    pub(super) fn run_out(&self, now: Instant) -> Vec<PairId> {
        self.by_end.iter().take_while(|(until, _)| *until <= now).map(|(_, id)| *id).collect()
    }
}
