//! How much a node is worth as an LSN, and the one order that lists, contests and successions share.

use std::cmp::Ordering;

use muster_types::NodeId;

/// Attested share of the last 14 days that topology saw the node connected, in basis points, 0 to 10,000.
/// A node without a ticket has zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uptime(pub u16);

/// What else speaks for or against a node as LSN; its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Standing {
    pub wired: bool,
    pub mains_powered: bool,
}

impl Standing {
    /// Wired and on mains: before all laptops (design, section 2: Uptime).
    pub fn is_steady(self) -> bool {
        self.wired && self.mains_powered
    }
}

/// Uptime that an heir must have above its LSN's, in basis points, to unseat it while it works well.
/// A tenth of the fortnight: uptimes of office computers drift by less than that from day to day, and
/// each change of LSN costs every child a handshake.
pub const CLEARLY_BETTER: u16 = 1_000;

/// A node's rank: steady ones first, then by attested uptime, then by the lower id. Greater is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Worth {
    pub standing: Standing,
    pub uptime: Uptime,
    pub node: NodeId,
}

impl Worth {
    /// Better by so much that a change of LSN pays.
    pub fn is_clearly_better_than(&self, other: &Self) -> bool {
        match self.standing.is_steady().cmp(&other.standing.is_steady()) {
            Ordering::Greater => true,
            Ordering::Less => false,
            Ordering::Equal => self.uptime.0 >= other.uptime.0.saturating_add(CLEARLY_BETTER),
        }
    }
}

impl Ord for Worth {
    fn cmp(&self, other: &Self) -> Ordering {
        self.standing
            .is_steady()
            .cmp(&other.standing.is_steady())
            .then(self.uptime.cmp(&other.uptime))
            .then(other.node.cmp(&self.node))
            // Which of the two virtues an unsteady node has decides nothing; it only keeps `Ord` true to `Eq`.
            .then(self.standing.wired.cmp(&other.standing.wired))
            .then(self.standing.mains_powered.cmp(&other.standing.mains_powered))
    }
}

impl PartialOrd for Worth {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEADY: Standing = Standing { wired: true, mains_powered: true };
    const LAPTOP: Standing = Standing { wired: false, mains_powered: true };

    fn worth(standing: Standing, uptime: u16, id: u8) -> Worth {
        Worth { standing, uptime: Uptime(uptime), node: NodeId([id; 20]) }
    }

    #[test]
    fn steady_nodes_come_before_laptops_then_uptime_then_the_lower_id() {
        let mut nodes =
            [worth(LAPTOP, 9_999, 1), worth(STEADY, 10, 3), worth(STEADY, 10, 2), worth(STEADY, 11, 4)];
        nodes.sort_by(|a, b| b.cmp(a));
        assert_eq!(nodes.map(|w| w.node.0[0]), [4, 2, 3, 1]);
    }

    #[test]
    fn a_little_more_uptime_is_better_but_not_clearly() {
        assert!(worth(STEADY, 5_001, 9) > worth(STEADY, 5_000, 1));
        assert!(!worth(STEADY, 5_001, 9).is_clearly_better_than(&worth(STEADY, 5_000, 1)));
        assert!(worth(STEADY, 6_000, 9).is_clearly_better_than(&worth(STEADY, 5_000, 1)));
        assert!(!worth(LAPTOP, 9_999, 1).is_clearly_better_than(&worth(STEADY, 0, 2)));
    }
}
