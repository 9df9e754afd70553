//! The neighbor list's way to the children: to the deputies soon and whole, to the others later and cut.

use muster_types::NodeId;

use super::beats::{Beats, DEPUTIES};
use super::children::{CHILDREN, ChildTable};
use crate::intent::Intent;
use crate::message::{Message, NeighborList};
use crate::timer::Timer;
use crate::timing::{LIST_DELAY, LIST_DELAY_CHILDREN};
use crate::turn::Turn;

/// Neighbors told to a child that is no deputy. It needs them when the LSN and deputies have died; a full
/// cell's list to everybody would be 60 MB for each change.
pub(crate) const LISTED: usize = 20;

#[derive(Debug, Default)]
pub(crate) struct Lists {
    number: u64,
    /// What the children who are not deputies know.
    told: Vec<NodeId>,
}

impl Lists {
    pub(crate) fn on_change(&self, turn: &mut Turn<'_>) {
        turn.timers.set_earliest(Timer::DeputyList, turn.now + LIST_DELAY);
        turn.timers.set_earliest(Timer::ChildList, turn.now + LIST_DELAY_CHILDREN);
    }

    /// A cell that lacks a deputy appoints the newcomer at once: an LSN that dies young is missed by somebody.
    pub(crate) fn on_newcomer(&self, beats: &Beats, turn: &mut Turn<'_>) {
        if beats.nodes().count() < DEPUTIES {
            turn.timers.set_earliest(Timer::DeputyList, turn.now);
        }
        self.on_change(turn);
    }

    pub(crate) fn of_newcomer(&self, children: &ChildTable) -> NeighborList {
        NeighborList { number: self.number, neighbors: children.neighbors(LISTED).into() }
    }

    pub(crate) fn send_to_deputies(&mut self, children: &ChildTable, turn: &mut Turn<'_>) {
        self.number += 1;
        let list = NeighborList { number: self.number, neighbors: children.neighbors(CHILDREN).into() };
        for to in children.ranking().take(DEPUTIES) {
            turn.send(to, Message::NeighborList(list.clone()));
        }
    }

    pub(crate) fn send_to_others(&mut self, children: &ChildTable, turn: &mut Turn<'_>) {
        let neighbors = children.neighbors(LISTED);
        let nodes: Vec<_> = neighbors.iter().map(|neighbor| neighbor.contact.node).collect();
        if nodes == self.told {
            return;
        }
        self.told = nodes;
        self.number += 1;
        let list = NeighborList { number: self.number, neighbors: neighbors.into() };
        for to in children.ranking().skip(DEPUTIES) {
            turn.intents.push_back(Intent::Send { to, message: Message::NeighborList(list.clone()) });
        }
    }
}
