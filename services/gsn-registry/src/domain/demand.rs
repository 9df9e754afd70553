//! How many super nodes are needed: by how many nodes ask for them.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_types::{NodeId, Timestamp};

/// A node that asked within one or two of these still counts.
const SPAN: Duration = Duration::from_secs(3_600);

/// Callers that are told apart; beyond them the demand is as large as it gets.
const CALLERS: usize = 100_000;

/// Two may fail at once, and one is left.
const FEWEST: usize = 3;

/// Nodes that one GSN is for: 5 kB/s of signalling, and a few of them at once.
const NODES_EACH: usize = 200;

/// GSNs should be loaded by this on average, in percent of what they give.
const TARGET_LOAD: usize = 60;

/// Who asked lately.
#[derive(Debug, Default)]
pub struct Demand {
    current: BTreeSet<NodeId>,
    before: BTreeSet<NodeId>,
    /// Of both together.
    nodes: usize,
    turned: Timestamp,
}

impl Demand {
    pub fn asked(&mut self, node: NodeId, now: Timestamp) {
        if now.since(self.turned) >= SPAN {
            self.before = std::mem::take(&mut self.current);
            self.nodes = self.before.len();
            self.turned = now;
        }
        if self.current.len() < CALLERS && self.current.insert(node) && !self.before.contains(&node) {
            self.nodes += 1;
        }
    }

    /// Nodes that asked lately.
    pub fn nodes(&self, now: Timestamp) -> usize {
        let quiet = now.since(self.turned);
        if quiet < SPAN {
            self.nodes
        } else if quiet < SPAN * 2 {
            self.current.len()
        } else {
            0
        }
    }
}

/// GSNs that should serve `nodes`, of which those that do are loaded by `load_percent` on average.
pub fn wanted(nodes: usize, serving: usize, load_percent: usize) -> usize {
    let by_load = (serving * load_percent).div_ceil(TARGET_LOAD);
    nodes.div_ceil(NODES_EACH).max(by_load).max(FEWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_nodes_and_more_load_want_more_super_nodes_and_never_fewer_than_three() {
        assert_eq!(wanted(0, 0, 0), 3);
        assert_eq!(wanted(30_000, 10, 10), 150);
        assert_eq!(wanted(10, 6, 90), 9);
    }

    #[test]
    fn who_has_not_asked_for_two_hours_counts_no_more() {
        let (mut demand, start) = (Demand::default(), Timestamp::from_micros(1));
        demand.asked(NodeId([1; 20]), start + SPAN);
        demand.asked(NodeId([2; 20]), start + SPAN * 2);
        assert_eq!(demand.nodes(start + SPAN * 2), 2);
        demand.asked(NodeId([2; 20]), start + SPAN * 3);
        assert_eq!(demand.nodes(start + SPAN * 3), 1);
        assert_eq!(demand.nodes(start + SPAN * 4), 1);
        assert_eq!(demand.nodes(start + SPAN * 5), 0);
    }
}
