//! Whether others reach this LSN. Sessions dialled from outside and others' doubts flow in; out flow the proofs that are
//! asked for: a deputy has to come back, a child has to be dialled before it takes over.

use muster_types::{Contact, Instant, NodeId};

use super::children::ChildTable;
use crate::claim::Claim;
use crate::intent::Intent;
use crate::timing::{HEIR_PAUSE, REACHED_LATELY};
use crate::turn::Turn;

/// Better children that are looked at, and dialled in [`HEIR_PAUSE`].
pub(crate) const HEIRS: usize = 8;

/// What to do about another's word that this LSN is not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// It was reached lately, or is just being tried.
    Unfounded,
    /// Nobody is under it who could tell.
    Alone,
    /// This one is to come back by its own dial; if it cannot, it takes over, as deputies do.
    AskDeputy(NodeId),
}

#[derive(Debug, Default)]
pub(crate) struct Proof {
    asked: Option<Instant>,
    /// Children that were dialled to see whether they could take over, and when.
    heirs: Vec<(NodeId, Instant)>,
}

/// "An LSN must prove that others can reach it before it takes its first child" (specification, section 4). Who goes on
/// with a predecessor's cell takes over its children, and is doubted later if it has to be.
pub(crate) fn is_missing(claim: &Claim, children: &ChildTable, turn: &Turn<'_>) -> bool {
    turn.own.reached.is_none() && children.is_empty() && claim.predecessor.is_none()
}

impl Proof {
    pub(crate) fn doubted(&mut self, children: &ChildTable, turn: &Turn<'_>) -> Doubt {
        let lately = |at: Option<Instant>| at.is_some_and(|at| turn.now.since(at) < REACHED_LATELY);
        if lately(turn.own.reached) || lately(self.asked) {
            return Doubt::Unfounded;
        }
        let Some(deputy) = children.ranking().next() else { return Doubt::Alone };
        self.asked = Some(turn.now);
        Doubt::AskDeputy(deputy)
    }

    /// A better child could take over, if it can be dialled; `false`: it was dialled lately, to no avail.
    pub(crate) fn of_heir(&mut self, contact: Contact, turn: &mut Turn<'_>) -> bool {
        self.heirs.retain(|&(_, at)| turn.now.since(at) < HEIR_PAUSE);
        let known = self.heirs.iter().any(|&(node, _)| node == contact.node);
        if known || self.heirs.len() >= HEIRS {
            return false;
        }
        self.heirs.push((contact.node, turn.now));
        turn.intend(Intent::Probe(contact));
        true
    }
}
