//! What a node that has lost its LSN remembers of its cell: whom it could call together, and how many come before it.

use std::time::Duration;

use muster_types::NodeId;

use crate::message::Neighbor;
use crate::office::DEPUTIES;
use crate::timing::PRECEDENCE;

/// The line of succession, as one of it sees it. Without an LSN before it is empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line {
    roll: Vec<Neighbor>,
    before: u32,
}

impl Line {
    /// Of the neighbor list. Deputies have had their turn: whose LSN is gone and whose deputies are silent lost all three.
    pub(crate) fn of(own: NodeId, neighbors: &[Neighbor]) -> Self {
        let place = neighbors.iter().position(|neighbor| neighbor.contact.node == own);
        let before = place.unwrap_or(neighbors.len()).saturating_sub(DEPUTIES);
        let roll = neighbors.iter().filter(|neighbor| neighbor.contact.node != own).cloned().collect();
        Self { roll, before: u32::try_from(before).unwrap_or(u32::MAX) }
    }

    pub(crate) fn into_roll(self) -> Vec<Neighbor> {
        self.roll
    }

    /// How long to let the others go first.
    pub(crate) fn wait(&self) -> Duration {
        PRECEDENCE.saturating_mul(self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::standing::{Standing, Uptime};
    use muster_types::Contact;

    #[test]
    fn the_first_after_the_deputies_waits_for_nobody_and_the_others_take_turns() {
        let node = |id| NodeId([id; 20]);
        let neighbor = |id| Neighbor {
            contact: Contact { node: node(id), addresses: vec![] },
            uptime: Uptime(0),
            standing: Standing::default(),
        };
        let list: Vec<_> = (1..6).map(neighbor).collect();
        let waits: Vec<_> = [1, 3, 4, 5, 9].map(|id| Line::of(node(id), &list).wait()).to_vec();
        assert_eq!(waits, [0, 0, 1, 2, 3].map(|turns| PRECEDENCE * turns));
        assert_eq!(Line::of(node(3), &list).into_roll().len(), 4);
    }
}
