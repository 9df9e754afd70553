//! A child under its LSN. Pings, neighbor lists and claims flow in; out flow pings, and one day the step to the next
//! LSN, or into its place.

use std::net::SocketAddr;
use std::time::Duration;

use muster_types::{Instant, NodeId};

use crate::answers::Answers;
use crate::claim::Claim;
use crate::intent::{Intent, LossReason, Station};
use crate::line::Line;
use crate::message::{
    Accepted, Beat, Knock, LsnQuery, Message, NeighborList, Part, PartCode, Ping, Pong, Terms,
};
use crate::office::children::CHILDREN;
use crate::search::Search;
use crate::step::{Ascent, Predecessor, Step};
use crate::timer::Timer;
use crate::timing::{
    BEAT_ANSWER_EVERY, FOLLOW_SPREAD, FOLLOW_SPREAD_MAX, LSN_PATIENCE, PING_REPEAT, RECEIPT_PATIENCE,
    REOPEN_PATIENCE, SUCCESSION_PATIENCE,
};
use crate::turn::Turn;
use crate::watch::{Finding, Rank, Watch};

#[derive(Debug)]
pub(crate) struct Membership {
    claim: Claim,
    terms: Terms,
    neighbors: NeighborList,
    ping: u64,
    /// The last ping was answered.
    answered: bool,
    last_heard: Instant,
    watch: Option<Watch>,
    /// The LSN has named its successor and leaves.
    succession: bool,
    /// The session broke, and another one is being opened.
    reopening: bool,
    answers: Answers,
    /// Whether strangers reach its LSN: it has asked.
    knocking: bool,
}

impl Membership {
    pub(crate) fn new(accepted: Accepted, now: Instant) -> Self {
        Self {
            claim: accepted.claim,
            terms: accepted.terms,
            neighbors: accepted.neighbors,
            ping: 0,
            answered: true,
            last_heard: now,
            watch: None,
            succession: false,
            reopening: false,
            answers: Answers::default(),
            knocking: false,
        }
    }

    pub(crate) fn begin(&mut self, turn: &mut Turn<'_>) {
        turn.intend(Intent::Remember(self.claim.clone()));
        let first = turn.spread(self.terms.ping_interval);
        turn.set(Timer::Ping, first);
        turn.set(Timer::Receipt, RECEIPT_PATIENCE);
        self.heard(turn);
    }

    pub(crate) fn lsn(&self) -> NodeId {
        self.claim.claimant.node
    }

    pub(crate) fn claim(&self) -> &Claim {
        &self.claim
    }

    pub(crate) fn station(&self) -> Station {
        Station::HasLsn { lsn: self.lsn(), lineage: self.claim.lineage, epoch: self.claim.epoch }
    }

    pub(crate) fn neighbors(&self) -> &NeighborList {
        &self.neighbors
    }

    /// When the LSN was last known to live.
    pub(crate) fn last_heard(&self) -> Instant {
        self.watch.as_ref().map_or(self.last_heard, |watch| watch.last_sign().max(self.last_heard))
    }

    /// This host ran late: what it did not hear proves nothing.
    pub(crate) fn forgive(&mut self, turn: &mut Turn<'_>) {
        self.heard(turn);
        if let Some(watch) = &mut self.watch {
            watch.on_sign_of_life(turn);
        }
    }

    pub(crate) fn on_message(&mut self, message: Message, turn: &mut Turn<'_>) -> Step {
        match message {
            Message::Pong(pong) => return self.on_pong(pong, turn),
            Message::NeighborList(list) if list.number > self.neighbors.number => {
                self.heard(turn);
                self.neighbors = list;
                self.take_rank(turn);
            }
            Message::Claim(claim) => return self.on_claim(claim, turn),
            Message::Ping(Ping { sequence, .. }) => {
                self.heard(turn);
                let load_percent = turn.own.load_percent;
                turn.send(
                    self.lsn(),
                    Message::Pong(Pong { sequence, load_percent, lsn: None, without_master: false }),
                );
            }
            Message::Knock(Knock::Please) if !self.knocking => {
                self.knocking = true;
                turn.intend(Intent::Knock(self.claim.claimant.clone()));
            }
            Message::Part(part) | Message::Refused(part) => return self.on_part(part, turn),
            // The child joined again, to tell what has changed of it.
            Message::Accepted(accepted) if accepted.claim.tenure() == self.claim.tenure() => {
                self.heard(turn);
                (self.neighbors, self.terms) = (accepted.neighbors, accepted.terms);
                self.claim = accepted.claim;
                self.take_rank(turn);
            }
            _ => {}
        }
        Step::Stay
    }

    /// A witness's word.
    pub(crate) fn on_knocked(&mut self, answered: bool, turn: &mut Turn<'_>) {
        self.knocking = false;
        let word = if answered { Knock::Answered } else { Knock::Unanswered };
        turn.send(self.lsn(), Message::Knock(word));
    }

    /// A claim, by whatever way it came.
    pub(crate) fn on_claim(&mut self, claim: Claim, turn: &mut Turn<'_>) -> Step {
        if claim.tenure() == self.claim.tenure() {
            self.heard(turn);
            self.sign_of_life(turn);
            let successor = claim.successor;
            self.claim = claim;
            return successor.map_or(Step::Stay, |next| self.on_succession(next, turn));
        }
        if claim.succeeds(&self.claim) && claim.claimant.node != turn.own.node {
            let reason = if self.succession { LossReason::LsnParted } else { LossReason::LsnLost };
            let neighbors = u32::try_from(self.neighbors.neighbors.len()).unwrap_or(u32::MAX);
            let limit = FOLLOW_SPREAD.saturating_mul(neighbors).min(FOLLOW_SPREAD_MAX);
            let after = turn.spread(limit);
            return self.pursue(claim, after, Some(reason), turn);
        }
        Step::Stay
    }

    pub(crate) fn on_beat(&mut self, beat: Beat, turn: &mut Turn<'_>) {
        let ours = (beat.lineage, beat.epoch) == (self.claim.lineage, self.claim.epoch);
        if !ours || beat.answer {
            return;
        }
        self.heard(turn);
        match (self.rank(turn), &mut self.watch) {
            (_, Some(watch)) => watch.on_sign_of_life(turn),
            (Some(rank), watch @ None) => *watch = Some(Watch::begin(rank, turn)),
            (None, None) => {}
        }
        if beat.sequence.is_multiple_of(BEAT_ANSWER_EVERY) {
            turn.intend(Intent::SendBeat { to: self.lsn(), beat: Beat { answer: true, ..beat } });
        }
    }

    /// The session may have died alone, so another one is opened. Meanwhile this node stays where it is: if the LSN is dead,
    /// a deputy claims and calls, and a cell whose members all looked for themselves would fall apart.
    pub(crate) fn on_closed(&mut self, turn: &mut Turn<'_>) {
        if self.succession {
            return;
        }
        self.reopening = true;
        turn.intend(Intent::Open(self.claim.claimant.clone()));
        turn.timers.set_earliest(Timer::LsnSilence, turn.now + REOPEN_PATIENCE);
        if let Some(watch) = &mut self.watch {
            watch.on_session_lost(turn);
        }
    }

    /// The LSN may be another process than before: what it says to the join tells.
    pub(crate) fn on_opened(&mut self, turn: &mut Turn<'_>) {
        self.sign_of_life(turn);
        if std::mem::take(&mut self.reopening) {
            self.renew(turn);
        }
    }

    pub(crate) fn on_open_failed(&mut self, turn: &mut Turn<'_>) -> Step {
        let watch = self.watch.as_mut().filter(|_| self.reopening);
        match watch.map_or(Finding::Nothing, |watch| watch.on_not_reopened(turn)) {
            Finding::LsnIsDead => self.take_over(turn),
            Finding::Nothing | Finding::Probe => Step::Stay,
        }
    }

    /// Who comes after this LSN.
    pub(crate) fn line(&self, own: NodeId) -> Line {
        Line::of(own, &self.neighbors.neighbors)
    }

    pub(crate) fn on_timer(&mut self, timer: Timer, turn: &mut Turn<'_>) -> Step {
        match timer {
            Timer::Ping => self.on_ping_due(turn),
            Timer::LsnSilence | Timer::Succession => return self.lose_lsn(turn),
            Timer::Watch => return self.on_watch(turn),
            Timer::Answer => self.answers.on_timer(&self.claim, turn),
            _ => {}
        }
        Step::Stay
    }

    /// Deputies answer discovery late, the other children never (design, section 2: Uptime); of a full cell neither does.
    pub(crate) fn on_query(&mut self, from: SocketAddr, query: &LsnQuery, turn: &mut Turn<'_>) {
        let deputy = self.watch.is_some() && self.neighbors.neighbors.len() < CHILDREN;
        if deputy && self.claim.fits(&query.subnet_keys) && query.node != self.lsn() {
            self.answers.owe(from, turn);
        }
    }

    /// Tells the LSN what has changed of this node.
    pub(crate) fn renew(&self, turn: &mut Turn<'_>) {
        turn.send(self.lsn(), Message::Join(turn.own.join(self.claim.tenure())));
    }

    pub(crate) fn leave(&self, part: Part, turn: &mut Turn<'_>) {
        turn.send(self.lsn(), Message::Part(part));
        turn.intend(Intent::Close(self.lsn()));
    }

    fn on_pong(&mut self, pong: Pong, turn: &mut Turn<'_>) -> Step {
        let Some(claim) = pong.lsn else {
            self.heard(turn);
            self.sign_of_life(turn);
            if pong.sequence == self.ping {
                self.answered = true;
                turn.set(Timer::Ping, self.terms.ping_interval);
            }
            return Step::Stay;
        };
        // "I am not your LSN": another is, or this one has struck us off its table (specification: Ping).
        self.pursue(claim, Duration::ZERO, Some(LossReason::LsnParted), turn)
    }

    fn on_part(&mut self, part: Part, turn: &mut Turn<'_>) -> Step {
        let reason = Some(LossReason::LsnParted);
        match part.better {
            Some(better) => self.pursue(better, Duration::ZERO, reason, turn),
            None if part.code == PartCode::HANDED_OVER => Step::Stay,
            None => Step::Look(reason),
        }
    }

    fn on_succession(&mut self, next: NodeId, turn: &mut Turn<'_>) -> Step {
        if next == turn.own.node {
            let part = Part { code: PartCode::HANDED_OVER, description: String::new(), better: None };
            return self.ascend(Some(part), turn);
        }
        self.succession = true;
        self.watch = None;
        turn.timers.stop(Timer::Watch);
        turn.set(Timer::Succession, SUCCESSION_PATIENCE);
        Step::Stay
    }

    fn on_watch(&mut self, turn: &mut Turn<'_>) -> Step {
        let Some(watch) = &mut self.watch else { return Step::Stay };
        match watch.on_timeout(turn) {
            Finding::Nothing => Step::Stay,
            Finding::Probe => {
                self.probe(turn);
                Step::Stay
            }
            Finding::LsnIsDead => self.take_over(turn),
        }
    }

    fn take_over(&self, turn: &mut Turn<'_>) -> Step {
        tracing::info!(lsn = %self.lsn(), epoch = self.claim.epoch, "the LSN is silent: claiming its place");
        self.ascend(None, turn)
    }

    /// Probes by different ways: the session, a bare datagram to each of the LSN's addresses, and a new session, which takes
    /// over where a firewall has begun to drop the old one's packets.
    fn probe(&mut self, turn: &mut Turn<'_>) {
        self.send_ping(turn);
        turn.intend(Intent::Probe(self.claim.claimant.clone()));
        let query = turn.own.query(0);
        for to in self.claim.claimant.addresses.iter().filter_map(muster_types::Address::udp) {
            turn.intend(Intent::Answer { to, discovery: query.clone() });
        }
    }

    /// "A claim names its predecessor and carries exactly its epoch + 1" (design, section 2: Uptime).
    fn ascend(&self, part: Option<Part>, turn: &mut Turn<'_>) -> Step {
        let predecessor = self.lsn();
        let mut claim =
            turn.own.claim(self.claim.lineage, self.claim.epoch.saturating_add(1), Some(predecessor));
        claim.settled = self.claim.settled;
        let roll = self.neighbors.neighbors.to_vec();
        let predecessor = Some(Predecessor { node: predecessor, part });
        Step::Ascend(Box::new(Ascent { claim, roll, predecessor }))
    }

    fn pursue(&self, claim: Claim, after: Duration, reason: Option<LossReason>, turn: &mut Turn<'_>) -> Step {
        let search = Search::after(self.line(turn.own.node), turn);
        Step::Pursue { claim, search, after, reason }
    }

    fn lose_lsn(&mut self, turn: &mut Turn<'_>) -> Step {
        turn.intend(Intent::Close(self.lsn()));
        let reason = if self.succession { LossReason::LsnParted } else { LossReason::LsnLost };
        Step::Look(Some(reason))
    }

    /// A deputy that hears its beats need not ping, for its answers to them renew its lease; unless it waits for its
    /// receipt, and wants to hear whether its LSN has the master.
    fn on_ping_due(&mut self, turn: &mut Turn<'_>) {
        let beats = self.watch.as_ref().is_some_and(|w| turn.now.since(w.last_sign()) < PING_REPEAT);
        if self.answered && beats && !turn.timers.is_set(Timer::Receipt) {
            turn.set(Timer::Ping, self.terms.ping_interval);
        } else {
            if !self.answered && !self.reopening {
                turn.intend(Intent::Probe(self.claim.claimant.clone()));
            }
            self.send_ping(turn);
        }
    }

    fn send_ping(&mut self, turn: &mut Turn<'_>) {
        self.ping += 1;
        self.answered = false;
        turn.set(Timer::Ping, PING_REPEAT);
        let load_percent = turn.own.load_percent;
        turn.send(self.lsn(), Message::Ping(Ping { sequence: self.ping, load_percent }));
    }

    fn heard(&mut self, turn: &mut Turn<'_>) {
        self.last_heard = turn.now;
        turn.set(Timer::LsnSilence, LSN_PATIENCE);
    }

    fn sign_of_life(&mut self, turn: &mut Turn<'_>) {
        if let Some(watch) = &mut self.watch {
            watch.on_sign_of_life(turn);
        }
    }

    fn rank(&self, turn: &Turn<'_>) -> Option<Rank> {
        let mut neighbors = self.neighbors.neighbors.iter();
        neighbors.position(|neighbor| neighbor.contact.node == turn.own.node).and_then(Rank::of)
    }

    fn take_rank(&mut self, turn: &mut Turn<'_>) {
        match (self.rank(turn), &mut self.watch) {
            (Some(rank), Some(watch)) => watch.set_rank(rank),
            (None, Some(_)) => {
                self.watch = None;
                turn.timers.stop(Timer::Watch);
            }
            (_, None) => {}
        }
    }
}
