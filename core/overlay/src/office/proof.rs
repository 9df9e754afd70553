//! Whether strangers reach this LSN. A rival's doubt flows in; out flow questions to the deputies, and their verdict. Nobody
//! is asked before there is a doubt: whoever became a child by its own dial was proof enough.

use std::collections::BTreeSet;

use muster_types::{Instant, NodeId};

use super::Office;
use super::beats::DEPUTIES;
use super::children::ChildTable;
use crate::intent::Intent;
use crate::message::{Knock, Message};
use crate::timer::Timer;
use crate::timing::{REACHED_LATELY, WITNESS_PATIENCE};
use crate::turn::Turn;

/// What has become of a rival's doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Witnesses have yet to speak.
    Open,
    /// Somebody else reaches this LSN: the doubter may come by the session that there is.
    Unfounded { doubter: NodeId },
    /// Nobody does.
    Founded { doubter: NodeId },
}

#[derive(Debug, Default)]
pub(super) struct Proof {
    doubt: Option<Doubt>,
    /// When a witness last reached this LSN.
    reached: Option<Instant>,
}

#[derive(Debug)]
struct Doubt {
    by: NodeId,
    /// Who have not spoken yet.
    witnesses: BTreeSet<NodeId>,
    /// One has tried, and did not get through.
    confirmed: bool,
}

impl Office {
    /// Who may have to take over has to be reached by strangers.
    pub(super) fn knock_at(&mut self, children: &[NodeId], turn: &mut Turn<'_>) {
        let due = children.iter().filter_map(|&node| self.children.to_knock_at(node, turn.now));
        turn.intents.extend(due.map(Intent::Knock));
    }

    pub(crate) fn on_knocked(&mut self, peer: NodeId, answered: bool, turn: &mut Turn<'_>) {
        if self.children.set_reached(peer, answered) {
            self.lists.on_change(turn);
        }
        if answered && self.children.contains(peer) {
            self.consider_a_better_child(turn);
        }
        self.contest.on_knocked(&self.claim, peer, answered, turn);
    }

    /// A child's word as a witness, or a rival's about this LSN or itself.
    pub(super) fn on_knock(&mut self, from: NodeId, word: Knock, turn: &mut Turn<'_>) {
        let verdict = match word {
            Knock::Please => return,
            Knock::Answered if !self.children.contains(from) => {
                return self.contest.on_vouched(&self.claim, from, turn);
            }
            Knock::Unanswered if !self.children.contains(from) => {
                if !self.contest.knows(from) || self.handover.is_some() {
                    return;
                }
                self.proof.on_doubt(from, &self.children, turn)
            }
            word => self.proof.on_witness(from, word == Knock::Answered, turn),
        };
        self.on_verdict(verdict, turn);
    }

    /// One that others stop reaching gives its office to who can be reached.
    pub(super) fn on_verdict(&mut self, verdict: Verdict, turn: &mut Turn<'_>) {
        match verdict {
            Verdict::Open => {}
            Verdict::Unfounded { doubter } => turn.send(doubter, Message::Knock(Knock::Answered)),
            Verdict::Founded { doubter } => {
                tracing::info!(rival = %doubter, "strangers do not reach this LSN: giving in to one that they reach");
                self.contest.concede(&self.claim, doubter, turn);
            }
        }
    }
}

impl Proof {
    /// A rival that this LSN has dialled says that it does not reach it.
    fn on_doubt(&mut self, by: NodeId, children: &ChildTable, turn: &mut Turn<'_>) -> Verdict {
        if self.reached.is_some_and(|at| turn.now.since(at) < REACHED_LATELY) {
            return Verdict::Unfounded { doubter: by };
        }
        let witnesses: BTreeSet<_> = children.ranking().take(DEPUTIES).collect();
        if witnesses.is_empty() {
            return Verdict::Founded { doubter: by };
        }
        if self.doubt.is_none() {
            for &witness in &witnesses {
                turn.send(witness, Message::Knock(Knock::Please));
            }
            turn.set(Timer::Witness, WITNESS_PATIENCE);
            self.doubt = Some(Doubt { by, witnesses, confirmed: false });
        }
        Verdict::Open
    }

    fn on_witness(&mut self, witness: NodeId, reaches: bool, turn: &mut Turn<'_>) -> Verdict {
        let Some(doubt) = &mut self.doubt else { return Verdict::Open };
        if !doubt.witnesses.remove(&witness) {
            return Verdict::Open;
        }
        if reaches {
            self.reached = Some(turn.now);
            let doubter = doubt.by;
            self.close(turn);
            return Verdict::Unfounded { doubter };
        }
        doubt.confirmed = true;
        if doubt.witnesses.is_empty() { self.conclude(turn) } else { Verdict::Open }
    }

    /// Who has not spoken by now is of an older version, or in trouble: one that did not get through is enough.
    pub(super) fn conclude(&mut self, turn: &mut Turn<'_>) -> Verdict {
        let doubt = self.close(turn).filter(|doubt| doubt.confirmed);
        doubt.map_or(Verdict::Open, |doubt| Verdict::Founded { doubter: doubt.by })
    }

    fn close(&mut self, turn: &mut Turn<'_>) -> Option<Doubt> {
        turn.timers.stop(Timer::Witness);
        self.doubt.take()
    }
}
