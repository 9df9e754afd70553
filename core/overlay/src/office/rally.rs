//! A new LSN gathers its predecessor's children: those who do not follow the multicast claim are called, one by one,
//! and those who never come are reported as gone.

use std::collections::BTreeMap;

use muster_types::{Contact, Instant, NodeId};

use crate::intent::Intent;
use crate::message::{Neighbor, Part};
use crate::step::Predecessor;
use crate::timer::Timer;
use crate::timing::{RALLY_AFTER, RALLY_INTERVAL, RALLY_PATIENCE};
use crate::turn::Turn;

/// Sessions opened in one round: as many handshakes as a small host's CPU does between two rounds.
const CALLS_A_ROUND: usize = 32;
/// Times that one node is called; it will find its way by its slow lease otherwise.
const CALLS: u32 = 2;

#[derive(Debug)]
struct Missing {
    contact: Option<Contact>,
    calls: u32,
    /// Given up then; who has yet to be called is not.
    gone_at: Option<Instant>,
    part: Option<Part>,
}

#[derive(Debug, Default)]
pub(crate) struct Rally {
    missing: BTreeMap<NodeId, Missing>,
}

impl Rally {
    pub(crate) fn begin(roll: Vec<Neighbor>, predecessor: Option<Predecessor>, turn: &mut Turn<'_>) -> Self {
        let mut missing = BTreeMap::new();
        for Neighbor { contact, .. } in roll {
            let entry = Missing { contact: Some(contact.clone()), calls: 0, gone_at: None, part: None };
            missing.insert(contact.node, entry);
        }
        missing.remove(&turn.own.node);
        if let Some(Predecessor { node, part }) = predecessor {
            let gone_at = Some(turn.now + RALLY_PATIENCE);
            missing.insert(node, Missing { contact: None, calls: CALLS, gone_at, part });
        }
        if !missing.is_empty() {
            turn.set(Timer::Rally, RALLY_AFTER);
        }
        Self { missing }
    }

    pub(crate) fn on_join(&mut self, node: NodeId) {
        self.missing.remove(&node);
    }

    /// Should this node, which has just opened a session, be shown the claim?
    pub(crate) fn is_missing(&self, node: NodeId) -> bool {
        self.missing.contains_key(&node)
    }

    /// Calls the next ones, and gives up those whose time has run out.
    pub(crate) fn on_timer(&mut self, turn: &mut Turn<'_>) -> Vec<(NodeId, Option<Part>)> {
        let now = turn.now;
        let callable = |missing: &&mut Missing| missing.calls < CALLS;
        for missing in self.missing.values_mut().filter(callable).take(CALLS_A_ROUND) {
            missing.calls += 1;
            missing.gone_at.get_or_insert(now + RALLY_PATIENCE);
            turn.intents.extend(missing.contact.clone().map(Intent::Open));
        }
        let over = |missing: &Missing| missing.gone_at.is_some_and(|at| at <= now);
        let gone: Vec<_> = self.missing.extract_if(.., |_, missing| over(missing)).collect();
        if self.missing.values().any(|missing| missing.calls < CALLS) {
            turn.set(Timer::Rally, RALLY_INTERVAL);
        } else if let Some(next) = self.missing.values().filter_map(|missing| missing.gone_at).min() {
            turn.timers.set(Timer::Rally, next);
        }
        gone.into_iter().map(|(node, missing)| (node, missing.part)).collect()
    }
}
