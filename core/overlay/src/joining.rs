//! Asking one LSN after the other to take this node in. A verdict, a failure or silence flows in; out flows
//! membership, or the search goes on.

use std::time::Duration;

use muster_types::NodeId;

use crate::claim::Claim;
use crate::intent::Intent;
use crate::membership::Membership;
use crate::message::{Message, Part};
use crate::search::Search;
use crate::step::Step;
use crate::timer::Timer;
use crate::timing::{JOIN_PATIENCE, OPEN_PATIENCE};
use crate::turn::Turn;

#[derive(Debug)]
pub(crate) struct Joining {
    claim: Claim,
    asked: bool,
    search: Search,
}

impl Joining {
    /// Asks the claimant, after a moment: who follows a claim together with a whole cell takes turns.
    pub(crate) fn pursue(claim: Claim, search: Search, after: Duration, turn: &mut Turn<'_>) -> Self {
        let joining = Self { claim, asked: false, search };
        if after.is_zero() {
            joining.open(turn);
        } else {
            turn.set(Timer::Follow, after);
        }
        joining
    }

    pub(crate) fn lsn(&self) -> NodeId {
        self.claim.claimant.node
    }

    pub(crate) fn search_mut(&mut self) -> &mut Search {
        &mut self.search
    }

    /// Opens the session, or finds it open.
    pub(crate) fn open(&self, turn: &mut Turn<'_>) {
        turn.set(Timer::Join, OPEN_PATIENCE);
        turn.intend(Intent::Open(self.claim.claimant.clone()));
    }

    pub(crate) fn on_opened(&mut self, peer: NodeId, turn: &mut Turn<'_>) {
        if peer != self.lsn() || self.asked {
            return;
        }
        self.asked = true;
        turn.timers.stop(Timer::Follow);
        turn.set(Timer::Join, JOIN_PATIENCE);
        turn.send(peer, Message::Join(turn.own.join(self.claim.tenure())));
    }

    /// A message of the candidate.
    pub(crate) fn on_message(&mut self, message: Message, turn: &mut Turn<'_>) -> Step {
        match message {
            Message::Accepted(accepted) if self.asked && accepted.claim.claimant.node == self.lsn() => {
                Step::Settle(Box::new(Membership::new(accepted, turn.now)))
            }
            Message::Refused(Part { better, .. }) | Message::Part(Part { better, .. }) => {
                self.give_up(better, turn)
            }
            Message::Claim(claim) => self.on_claim(claim, turn),
            _ => Step::Stay,
        }
    }

    /// The claim of who opened a session to show it: that one can be reached for sure.
    pub(crate) fn on_call(&mut self, claim: Claim, turn: &mut Turn<'_>) -> Step {
        let own = turn.own.node;
        if claim.claimant.node == own || !claim.fits(&turn.own.subnet_keys) {
            return Step::Stay;
        }
        if self.asked {
            return self.on_claim(claim, turn);
        }
        let mut search = std::mem::take(&mut self.search);
        search.add(self.claim.clone(), own);
        Step::Pursue { claim, search, after: Duration::ZERO, reason: None }
    }

    pub(crate) fn on_claim(&mut self, claim: Claim, turn: &mut Turn<'_>) -> Step {
        if claim.tenure() == self.claim.tenure() {
            self.claim = claim;
        } else if claim.succeeds(&self.claim) && claim.claimant.node != turn.own.node {
            // The lineage that this node is about to join has gone on: ask the successor instead.
            let search = std::mem::take(&mut self.search);
            return Step::Pursue { claim, search, after: Duration::ZERO, reason: None };
        } else {
            self.search.add(claim, turn.own.node);
        }
        Step::Stay
    }

    /// This candidate did not take us in.
    pub(crate) fn give_up(&mut self, better: Option<Claim>, turn: &mut Turn<'_>) -> Step {
        self.search.note_tried(self.claim.tenure());
        turn.intend(Intent::Close(self.lsn()));
        if let Some(better) = better {
            self.search.add(better, turn.own.node);
        }
        Step::Resume(std::mem::take(&mut self.search))
    }
}
