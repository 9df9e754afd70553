//! The LSN's heartbeat to its two deputies.

use muster_types::{Instant, NodeId};

use crate::claim::Tenure;
use crate::intent::Intent;
use crate::message::Beat;
use crate::timer::Timer;
use crate::timing::{BEAT_INTERVAL, DEPUTY_SILENCE};
use crate::turn::Turn;

/// Deputies of an LSN (design, section 2: Uptime).
pub(crate) const DEPUTIES: usize = 2;

#[derive(Debug, Clone, Copy)]
struct Deputy {
    node: NodeId,
    last_answer: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct Beats {
    sequence: u64,
    deputies: Vec<Deputy>,
}

impl Beats {
    /// Beats go to these from now on.
    pub(crate) fn appoint(&mut self, nodes: impl Iterator<Item = NodeId>, turn: &mut Turn<'_>) {
        let former = std::mem::take(&mut self.deputies);
        let known = |node| former.iter().find(|deputy| deputy.node == node).copied();
        let new = |node| Deputy { node, last_answer: turn.now };
        self.deputies = nodes.take(DEPUTIES).map(|node| known(node).unwrap_or(new(node))).collect();
        if self.deputies.is_empty() {
            turn.timers.stop(Timer::Beat);
        } else {
            turn.timers.set_earliest(Timer::Beat, turn.now);
        }
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.deputies.iter().map(|deputy| deputy.node)
    }

    /// Sends one beat to each, and names the deputies that answer no more.
    pub(crate) fn beat(&mut self, tenure: Tenure, turn: &mut Turn<'_>) -> Vec<NodeId> {
        turn.set(Timer::Beat, BEAT_INTERVAL);
        self.sequence += 1;
        let Tenure { lineage, epoch, .. } = tenure;
        for to in self.nodes() {
            let beat = Beat { lineage, epoch, sequence: self.sequence, answer: false };
            turn.intents.push_back(Intent::SendBeat { to, beat });
        }
        let silent = |deputy: &&Deputy| turn.now.since(deputy.last_answer) > DEPUTY_SILENCE;
        self.deputies.iter().filter(silent).map(|deputy| deputy.node).collect()
    }

    pub(crate) fn on_answer(&mut self, from: NodeId, now: Instant) {
        self.deputies.iter_mut().filter(|d| d.node == from).for_each(|d| d.last_answer = now);
    }

    /// This host ran late: answers may lie unread.
    pub(crate) fn forgive(&mut self, now: Instant) {
        self.deputies.iter_mut().for_each(|deputy| deputy.last_answer = now);
    }
}
