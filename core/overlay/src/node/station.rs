//! The states of the specification, section 4, and the ways between them.

use std::time::Duration;

use muster_types::Instant;
use rand::RngCore;

use super::Node;
use crate::intent::{Intent, LossReason, Station};
use crate::joining::Joining;
use crate::membership::Membership;
use crate::message::{Part, PartCode};
use crate::office::Office;
use crate::search::{Quest, Search};
use crate::step::{Ascent, Step};

#[derive(Debug)]
pub(super) enum State {
    NoConnection,
    Looking(Search),
    Joining(Joining),
    HasLsn(Box<Membership>),
    IsLsn(Box<Office>),
    Parted,
}

impl State {
    pub(super) fn station(&self) -> Station {
        match self {
            Self::NoConnection => Station::NoConnection,
            Self::Looking(_) => Station::LookingForLsn,
            Self::Joining(joining) => Station::Joining { lsn: joining.lsn() },
            Self::HasLsn(membership) => membership.station(),
            Self::IsLsn(office) => office.station(),
            Self::Parted => Station::Parted,
        }
    }
}

impl Node {
    /// Goes where a room's decision leads, until one says to stay.
    pub(super) fn enter(&mut self, mut step: Step, now: Instant, rng: &mut dyn RngCore) {
        loop {
            step = match step {
                Step::Stay => return,
                Step::Look(reason) => self.look(reason, now, rng),
                Step::Resume(search) => self.resume(search, now, rng),
                Step::Pursue { claim, search, after, reason } => {
                    self.lose(reason, now);
                    self.timers.stop_all();
                    let (state, mut turn) = self.parts(now, rng);
                    *state = State::Joining(Joining::pursue(claim, search, after, &mut turn));
                    self.changed()
                }
                Step::Settle(membership) => self.settle(membership, now, rng),
                Step::Ascend(ascent) => self.ascend(*ascent, now, rng),
                Step::Depart => self.depart(),
            };
        }
    }

    /// The network went: nothing to look for until it is back.
    pub(super) fn disconnect(&mut self, now: Instant) -> Step {
        self.lose(Some(LossReason::NetworkLost), now);
        self.drop_sessions();
        self.timers.stop_all();
        self.let_go_of_master();
        self.state = State::NoConnection;
        self.changed()
    }

    /// What a search has come to, as a step.
    pub(super) fn pursue(&mut self, quest: Quest, rng: &mut dyn RngCore) -> Step {
        match quest {
            Quest::Wait => Step::Stay,
            Quest::Candidate(claim) => {
                let State::Looking(search) = &mut self.state else { return Step::Stay };
                let search = std::mem::take(search);
                Step::Pursue { claim: *claim, search, after: Duration::ZERO, reason: None }
            }
            // Nobody there: become LSN (specification, section 4), the first of a lineage.
            Quest::Nobody => {
                let State::Looking(search) = &mut self.state else { return Step::Stay };
                let claim = self.own.claim(rng.next_u64(), 1, None);
                let roll = search.take_line().into_roll();
                Step::Ascend(Box::new(Ascent { claim, roll, predecessor: None }))
            }
        }
    }

    fn look(&mut self, reason: Option<LossReason>, now: Instant, rng: &mut dyn RngCore) -> Step {
        self.lose(reason, now);
        let lost = matches!(reason, Some(LossReason::LsnLost | LossReason::LsnParted));
        let own = self.own.node;
        let line = self.membership().filter(|_| lost).map(|membership| membership.line(own));
        let (_, mut turn) = self.parts(now, rng);
        let search = Search::after(line.unwrap_or_default(), &mut turn);
        self.resume(search, now, rng)
    }

    fn resume(&mut self, mut search: Search, now: Instant, rng: &mut dyn RngCore) -> Step {
        self.timers.stop_all();
        let (_, mut turn) = self.parts(now, rng);
        let quest = search.proceed(&mut turn);
        self.withdraw_claim();
        self.state = State::Looking(search);
        self.changed();
        self.pursue(quest, rng)
    }

    /// Who is LSN no more keeps the channel, without a claim, until topology shows it under another.
    fn withdraw_claim(&mut self) {
        if matches!(self.state, State::IsLsn(_)) {
            self.intents.push_back(Intent::AttachMaster(None));
        }
    }

    fn settle(&mut self, mut membership: Box<Membership>, now: Instant, rng: &mut dyn RngCore) -> Step {
        self.timers.stop_all();
        let lsn = membership.lsn();
        (self.lsn_lacks_master, self.receipt_looks, self.receipt_is_old) = (false, 0, false);
        let (_, mut turn) = self.parts(now, rng);
        membership.begin(&mut turn);
        self.withdraw_claim();
        self.state = State::HasLsn(membership);
        for (peer, _) in self.sessions.extract_if(.., |&peer, _| peer != lsn) {
            self.intents.push_back(Intent::Close(peer));
        }
        self.found(now);
        self.changed()
    }

    fn ascend(&mut self, ascent: Ascent, now: Instant, rng: &mut dyn RngCore) -> Step {
        if matches!(self.state, State::HasLsn(_)) {
            self.lose(Some(LossReason::LsnLost), now);
        }
        self.timers.stop_all();
        self.master = true;
        let (_, mut turn) = self.parts(now, rng);
        let office = Office::open(ascent, &mut turn);
        self.state = State::IsLsn(Box::new(office));
        self.found(now);
        self.changed()
    }

    fn depart(&mut self) -> Step {
        let part = self.leaving.take().unwrap_or(Part {
            code: PartCode::LEAVING,
            description: String::new(),
            better: None,
        });
        // An LSN speaks for its children; who is on the way to one speaks for itself.
        let alone = matches!(self.state, State::Looking(_) | State::Joining(_));
        if self.master || alone {
            self.intents.push_back(Intent::PartMaster(part));
        }
        self.drop_sessions();
        self.timers.stop_all();
        self.state = State::Parted;
        self.changed()
    }

    /// Notes since when the node has no LSN, if it had one.
    fn lose(&mut self, reason: Option<LossReason>, now: Instant) {
        let since = match &self.state {
            State::HasLsn(membership) => membership.last_heard(),
            State::IsLsn(_) => now,
            _ => return,
        };
        if let Some(reason) = reason {
            let began = if reason == LossReason::LsnLost { since } else { now };
            self.losses.begin(reason, began);
        }
    }

    fn found(&mut self, now: Instant) {
        if let Some(disconnection) = self.losses.end(now) {
            self.intents.push_back(Intent::Disconnected(disconnection));
        }
    }

    fn changed(&mut self) -> Step {
        let station = self.state.station();
        tracing::debug!(node = %self.own.node, ?station, "station");
        self.intents.push_back(Intent::Changed(station));
        Step::Stay
    }
}
