//! The LSN's office. Joins, pings and rivals flow in; out flow verdicts, neighbor lists, beats, and the changes of the
//! child table to topology.

pub mod change_log;
pub mod children;

mod apart;
mod beats;
mod contest;
mod lists;
mod proof;
mod rally;

use std::net::SocketAddr;
use std::time::Duration;

use muster_types::{Instant, NodeId};

use self::beats::Beats;
pub(crate) use self::beats::DEPUTIES;
use self::change_log::ChangeLog;
use self::children::{Admission, Child, ChildTable, Reach};
use self::contest::Contest;
use self::lists::Lists;
use self::proof::Proof;
use self::rally::Rally;
use crate::claim::Claim;
use crate::intent::{Change, Intent, Presence, Station, Update};
use crate::membership::Membership;
use crate::message::{Accepted, Beat, Discovery, Join, LsnQuery, Message, Part, PartCode, Ping, Pong, Terms};
use crate::step::{Ascent, Step};
use crate::timer::Timer;
use crate::timing::{
    CLAIM_INTERVAL, CLAIM_REPEATS, HANDOVER_PATIENCE, LEASE, PING_INTERVAL, STABILITY, SWEEP_INTERVAL,
};
use crate::turn::Turn;

/// Answers to LAN queries between two sweeps: a full cell that powers on at once asks three times a node.
const ANSWERS_A_SWEEP: u32 = 3_000;

#[derive(Debug)]
pub(crate) struct Office {
    claim: Claim,
    since: Instant,
    children: ChildTable,
    beats: Beats,
    lists: Lists,
    rally: Rally,
    contest: Contest,
    proof: Proof,
    log: ChangeLog,
    handover: Option<Handover>,
    claims_shown: usize,
    answers: u32,
}

#[derive(Debug, Clone, Copy)]
struct Handover {
    to: NodeId,
    /// For good; else to a clearly better child.
    leaving: bool,
}

impl Office {
    pub(crate) fn open(ascent: Ascent, turn: &mut Turn<'_>) -> Self {
        let Ascent { claim, roll, predecessor } = ascent;
        turn.intend(Intent::AttachMaster(Some(claim.clone())));
        turn.intend(Intent::Multicast(Discovery::Claim(claim.clone())));
        turn.set(Timer::Claim, CLAIM_REPEATS[0]);
        Self {
            claim,
            since: turn.now,
            children: ChildTable::default(),
            beats: Beats::default(),
            lists: Lists::default(),
            rally: Rally::begin(roll, predecessor, turn),
            contest: Contest::default(),
            proof: Proof::default(),
            log: ChangeLog::default(),
            handover: None,
            claims_shown: 0,
            answers: 0,
        }
    }

    pub(crate) fn children(&self) -> &ChildTable {
        &self.children
    }

    pub(crate) fn unsaid_changes(&self) -> usize {
        self.log.pending_len()
    }

    pub(crate) fn station(&self) -> Station {
        Station::IsLsn { lineage: self.claim.lineage, epoch: self.claim.epoch }
    }

    /// What the LSN knows of itself has changed: its claim says so from now on.
    pub(crate) fn renew(&mut self, turn: &mut Turn<'_>) {
        let news = self.claim.subnet_keys != turn.own.subnet_keys;
        let news = news || self.claim.claimant != turn.own.contact();
        let fresh = turn.own.claim(self.claim.lineage, self.claim.epoch, self.claim.predecessor);
        self.claim = Claim { settled: self.claim.settled, successor: self.claim.successor, ..fresh };
        if news {
            turn.intend(Intent::AttachMaster(Some(self.claim.clone())));
        }
    }

    /// The children come back by the sessions that are opened to them, and learn the new addresses with the claim.
    pub(crate) fn readdress(&mut self, turn: &mut Turn<'_>) {
        self.renew(turn);
        for (node, child) in self.children.iter() {
            turn.intents.push_back(Intent::Close(node));
            turn.intents.push_back(Intent::Open(child.contact.clone()));
        }
    }

    /// This host ran late: pings and answers may lie unread.
    pub(crate) fn forgive(&mut self, late: Duration, now: Instant) {
        self.children.extend(late);
        self.beats.forgive(now);
    }

    pub(crate) fn on_message(&mut self, from: NodeId, message: Message, turn: &mut Turn<'_>) -> Step {
        match message {
            Message::Join(join) => self.on_join(from, join, turn),
            Message::Ping(ping) => self.on_ping(from, ping, turn),
            Message::Pong(pong) if !self.children.renew(from, turn.now) => {
                return self.on_word_of_another(from, pong.lsn, turn);
            }
            Message::Part(part) if self.children.contains(from) => self.on_child_part(from, part, turn),
            Message::Claim(claim) => return self.on_claim(claim, None, turn),
            Message::Knock(word) => self.on_knock(from, word, turn),
            Message::Accepted(accepted) if self.is_winner(from) => return self.yield_to(accepted, turn),
            Message::Refused(part) | Message::Part(part) if self.is_winner(from) => {
                return self.on_refused(from, part, turn);
            }
            _ => {}
        }
        Step::Stay
    }

    pub(crate) fn on_beat(&mut self, from: NodeId, beat: Beat, now: Instant) {
        if beat.answer && self.children.renew(from, now) {
            self.beats.on_answer(from, now);
        }
    }

    fn on_refused(&mut self, from: NodeId, part: Part, turn: &mut Turn<'_>) -> Step {
        match part.better {
            better if part.code == PartCode::FULL => {
                self.contest.stay_apart(&self.claim, from, turn);
                better.map_or(Step::Stay, |claim| self.on_claim(claim, None, turn))
            }
            Some(claim) if claim.claimant.node == from => {
                self.contest.ask_again(&self.claim, claim, turn);
                Step::Stay
            }
            better => {
                if better.is_some() {
                    self.contest.forget(from);
                }
                self.contest.give_up(&self.claim, Some(from), turn);
                better.map_or(Step::Stay, |claim| self.on_claim(claim, None, turn))
            }
        }
    }

    /// A rival that was shown the claim says whose it is now: its own LSN, or another's child.
    fn on_word_of_another(&mut self, from: NodeId, lsn: Option<Claim>, turn: &mut Turn<'_>) -> Step {
        let Some(claim) = lsn else { return Step::Stay };
        if claim.claimant.node != from {
            self.contest.forget(from);
        }
        self.on_claim(claim, None, turn)
    }

    /// Another claim to this cell, by whatever way it came.
    pub(crate) fn on_claim(&mut self, claim: Claim, heard: Option<SocketAddr>, turn: &mut Turn<'_>) -> Step {
        let successor = self.handover.filter(|_| claim.succeeds(&self.claim));
        if successor.is_some_and(|handover| handover.leaving) {
            return Step::Depart;
        }
        if claim.fits(&self.claim.subnet_keys) {
            self.contest.on_rival(&self.claim, claim, heard, turn);
        }
        Step::Stay
    }

    /// Topology knows another LSN of this place.
    pub(crate) fn on_rival(&mut self, claim: Claim, turn: &mut Turn<'_>) {
        if claim.claimant.node != turn.own.node && claim.fits(&self.claim.subnet_keys) {
            self.contest.on_rival(&self.claim, claim, None, turn);
        }
    }

    /// "Only the LSN answers discovery at once" (design, section 2: Uptime). Who has no room leaves strangers to others.
    pub(crate) fn on_query(&mut self, from: SocketAddr, query: &LsnQuery, turn: &mut Turn<'_>) {
        let no_room = self.children.is_full() && !self.children.contains(query.node);
        if no_room || !self.claim.fits(&query.subnet_keys) || self.answers >= ANSWERS_A_SWEEP {
            return;
        }
        self.answers += 1;
        turn.timers.set_earliest(Timer::Sweep, turn.now + SWEEP_INTERVAL);
        turn.intend(Intent::Answer { to: from, discovery: Discovery::Claim(self.claim.clone()) });
    }

    pub(crate) fn on_opened(&mut self, peer: NodeId, turn: &mut Turn<'_>) {
        self.contest.on_opened(&self.claim, peer, turn);
        if self.rally.is_missing(peer) {
            turn.send(peer, Message::Claim(self.claim.clone()));
        }
    }

    /// A session could not be opened, or ended. Children keep their lease: they may be on their way to another path.
    pub(crate) fn on_unreachable(&mut self, peer: NodeId, turn: &mut Turn<'_>) {
        self.contest.give_up(&self.claim, Some(peer), turn);
    }

    pub(crate) fn on_timer(&mut self, timer: Timer, turn: &mut Turn<'_>) -> Step {
        match timer {
            Timer::Beat => self.beat(turn),
            Timer::Sweep => self.sweep(turn),
            Timer::Claim => self.show_claim(turn),
            Timer::DeputyList => {
                self.beats.appoint(self.children.ranking(), turn);
                self.lists.send_to_deputies(&self.children, turn);
                let deputies: Vec<_> = self.beats.nodes().collect();
                self.knock_at(&deputies, turn);
            }
            Timer::Witness => {
                let verdict = self.proof.conclude(turn);
                self.on_verdict(verdict, turn);
            }
            Timer::ChildList => self.lists.send_to_others(&self.children, turn),
            Timer::Rally => {
                for (node, part) in self.rally.on_timer(turn) {
                    self.record(node, Presence::Departed(part), turn);
                }
            }
            Timer::Batch => self.flush(turn),
            Timer::Yield => self.contest.give_up(&self.claim, None, turn),
            Timer::Rival => self.contest.on_timer(&self.claim, turn),
            Timer::Handover => return self.on_handover_patience(turn),
            _ => {}
        }
        Step::Stay
    }

    pub(crate) fn on_master_attached(&mut self, known: u64, resync: bool, turn: &mut Turn<'_>) {
        for update in self.log.on_attached(known, resync) {
            turn.intend(Intent::Update(update));
        }
        self.flush(turn);
    }

    pub(crate) fn on_master_detached(&mut self) {
        self.log.on_detached();
    }

    pub(crate) fn on_acknowledged(&mut self, number: u64, turn: &mut Turn<'_>) {
        self.log.on_acknowledged(number);
        self.flush(turn);
    }

    /// Leaves at once if nobody is there to take over, else when the first deputy has.
    pub(crate) fn leave(&mut self, turn: &mut Turn<'_>) -> Step {
        let Some(to) = self.children.ranking().next() else { return Step::Depart };
        self.hand_over(to, true, turn);
        Step::Stay
    }

    /// The LSN's network is going: its children are told, but nothing is waited for.
    pub(crate) fn abandon(&mut self, turn: &mut Turn<'_>) {
        let first = self.children.ranking().next();
        if let Some(to) = first {
            self.hand_over(to, true, turn);
        }
    }

    fn on_join(&mut self, from: NodeId, join: Join, turn: &mut Turn<'_>) {
        if let Some(refusal) = self.refusal(from, &join, turn) {
            turn.send(from, Message::Refused(refusal));
            return;
        }
        let (contact, version) = (join.contact.clone(), join.version);
        let (attach, standing, brings) = (join.attach.clone(), join.standing, join.brings);
        if self.children.admit(join, turn.now) == Admission::Full {
            return self.turn_away(from, brings, turn);
        }
        self.rally.on_join(from);
        self.contest.forget(from);
        let accepted = Accepted {
            neighbors: self.lists.of_newcomer(&self.children),
            claim: self.claim.clone(),
            terms: Terms { lease: LEASE, ping_interval: PING_INTERVAL },
            observed: turn.sessions.get(&from).copied().flatten(),
        };
        turn.send(from, Message::Accepted(accepted));
        self.record(from, Presence::Attached { attach, contact, version, standing }, turn);
        self.lists.on_newcomer(&self.beats, turn);
        turn.timers.set_earliest(Timer::Sweep, turn.now + SWEEP_INTERVAL);
    }

    /// The place has more nodes than a cell takes: whoever finds no room goes to the next cell, or founds it.
    fn turn_away(&mut self, from: NodeId, brings: Option<u32>, turn: &mut Turn<'_>) {
        if let Some(children) = brings {
            self.contest.keep_apart(from, children, turn);
        }
        let better = self.contest.with_room(from).cloned();
        turn.send(from, Message::Refused(part(PartCode::FULL, "this cell is full", better)));
    }

    fn refusal(&self, from: NodeId, join: &Join, turn: &Turn<'_>) -> Option<Part> {
        let minimum = turn.own.minimum_version;
        let attach = &join.attach;
        if join.version < minimum {
            let text = format!("version {} is below the minimum, {minimum}", join.version);
            return Some(part(PartCode::TOO_OLD, &text, None));
        }
        if join.contact.node != from || attach.node != from {
            return Some(part(PartCode::REFUSED, "the join speaks for another node", None));
        }
        let tenure = self.claim.tenure();
        if (attach.lsn, attach.lineage, attach.epoch) != (tenure.lsn, tenure.lineage, tenure.epoch) {
            return Some(part(
                PartCode::REFUSED,
                "the attach is to another tenure",
                Some(self.claim.clone()),
            ));
        }
        let winner = self.contest.winner().filter(|_| !self.children.contains(from))?;
        Some(part(PartCode::NOT_LSN, "another LSN of this cell is better", Some(winner.clone())))
    }

    /// Answered to everybody; who is no child is told whom it asked (specification: Ping).
    fn on_ping(&mut self, from: NodeId, ping: Ping, turn: &mut Turn<'_>) {
        let child = self.children.renew(from, turn.now);
        let lsn = (!child).then(|| self.claim.clone());
        let load_percent = turn.own.load_percent;
        let without_master = !self.log.is_attached();
        turn.send(from, Message::Pong(Pong { sequence: ping.sequence, load_percent, lsn, without_master }));
    }

    fn on_child_part(&mut self, from: NodeId, part: Part, turn: &mut Turn<'_>) {
        self.children.remove(from);
        self.record(from, Presence::Departed(Some(part)), turn);
        self.lists.on_change(turn);
    }

    /// Struck off at once: its lease is for those who may come back.
    pub(crate) fn on_barred(&mut self, node: NodeId, turn: &mut Turn<'_>) {
        if self.children.contains(node) {
            self.on_child_part(node, part(PartCode::REFUSED, "revoked", None), turn);
        }
        self.on_unreachable(node, turn);
        self.contest.forget(node);
    }

    /// A child that answers keeps its lease; one that is gone is struck off sooner.
    pub(crate) fn on_suspected(&mut self, node: NodeId, turn: &mut Turn<'_>) {
        if self.children.doubt(node, turn.now) {
            let load_percent = turn.own.load_percent;
            turn.send(node, Message::Ping(Ping { sequence: 0, load_percent }));
            turn.timers.set_earliest(Timer::Sweep, turn.now + SWEEP_INTERVAL);
        }
    }

    fn is_winner(&self, node: NodeId) -> bool {
        self.contest.winner().is_some_and(|winner| winner.claimant.node == node)
    }

    /// The better LSN has this one as its child, so it can be reached: the children follow.
    fn yield_to(&mut self, accepted: Accepted, turn: &mut Turn<'_>) -> Step {
        let better = Some(accepted.claim.clone());
        for child in self.children.nodes().filter(|&child| child != accepted.claim.claimant.node) {
            let part = part(PartCode::BETTER_LSN, "another LSN of this cell is better", better.clone());
            turn.intents.push_back(Intent::Send { to: child, message: Message::Part(part) });
        }
        Step::Settle(Box::new(Membership::new(accepted, turn.now)))
    }

    fn beat(&mut self, turn: &mut Turn<'_>) {
        let silent = self.beats.beat(self.claim.tenure(), turn);
        if !silent.is_empty() {
            silent.into_iter().for_each(|node| self.children.set_silent(node));
            self.lists.on_change(turn);
        }
    }

    fn sweep(&mut self, turn: &mut Turn<'_>) {
        self.answers = 0;
        for node in self.children.expire(turn.now) {
            turn.intend(Intent::Close(node));
            self.record(node, Presence::Departed(None), turn);
            self.lists.on_change(turn);
        }
        if !self.children.is_empty() {
            turn.set(Timer::Sweep, SWEEP_INTERVAL);
        }
    }

    fn show_claim(&mut self, turn: &mut Turn<'_>) {
        self.claims_shown += 1;
        let next = CLAIM_REPEATS.get(self.claims_shown).copied().unwrap_or(CLAIM_INTERVAL);
        turn.set(Timer::Claim, next);
        self.claim.settled |= turn.now.since(self.since) >= STABILITY;
        turn.intend(Intent::Multicast(Discovery::Claim(self.claim.clone())));
        let first = self.children.ranking().take(DEPUTIES);
        let due: Vec<_> = first.chain(self.children.out_of_reach()).collect();
        self.knock_at(&due, turn);
        self.consider_a_better_child(turn);
    }

    /// A clearly better child takes over once both have been in place for a while (design, section 2: Uptime), and strangers
    /// reach it.
    fn consider_a_better_child(&mut self, turn: &mut Turn<'_>) {
        let stable = |since: Instant| turn.now.since(since) >= STABILITY;
        let Some(first) = self.children.neighbors(1).pop() else { return };
        let heir = crate::standing::Worth {
            standing: first.standing,
            uptime: first.uptime,
            node: first.contact.node,
        };
        let able = |child: &Child| stable(child.since) && child.reach() == Reach::Within;
        let settled_in = self.children.child(heir.node).is_some_and(able);
        let busy = self.handover.is_some() || self.contest.winner().is_some();
        if !busy && stable(self.since) && settled_in && heir.is_clearly_better_than(&self.claim.worth()) {
            self.hand_over(heir.node, false, turn);
        }
    }

    fn hand_over(&mut self, to: NodeId, leaving: bool, turn: &mut Turn<'_>) {
        tracing::info!(successor = %to, leaving, "handing the cell over");
        self.handover = Some(Handover { to, leaving });
        self.tell_successor(Some(to), turn);
        turn.set(Timer::Handover, HANDOVER_PATIENCE);
    }

    fn tell_successor(&mut self, successor: Option<NodeId>, turn: &mut Turn<'_>) {
        self.claim.successor = successor;
        let first = successor.into_iter();
        for to in first.chain(self.children.nodes().filter(|&node| Some(node) != successor)) {
            turn.intents.push_back(Intent::Send { to, message: Message::Claim(self.claim.clone()) });
        }
    }

    fn on_handover_patience(&mut self, turn: &mut Turn<'_>) -> Step {
        match self.handover.take() {
            Some(Handover { leaving: true, .. }) => Step::Depart,
            Some(Handover { to, .. }) => {
                tracing::warn!(heir = %to, "the heir did not take over");
                self.tell_successor(None, turn);
                Step::Stay
            }
            None => Step::Stay,
        }
    }

    fn record(&mut self, node: NodeId, presence: Presence, turn: &mut Turn<'_>) {
        let due = self.log.record(node, presence, turn.now);
        turn.timers.set(Timer::Batch, due);
    }

    fn flush(&mut self, turn: &mut Turn<'_>) {
        let table = || self.children.iter().map(|(node, child)| Change { node, presence: child.presence() });
        let update: Option<Update> = self.log.flush(|| table().collect());
        turn.intents.extend(update.map(Intent::Update));
    }
}

fn part(code: PartCode, description: &str, better: Option<Claim>) -> Part {
    Part { code, description: description.to_owned(), better }
}
