//! Which room hears of what.

use std::net::SocketAddr;

use muster_types::{Instant, NodeId};
use rand::RngCore;

use super::station::State;
use super::{Node, SESSIONS};
use crate::claim::Claim;
use crate::input::{Input, Network};
use crate::intent::{Intent, LossReason};
use crate::message::{Discovery, Message, Part, PartCode, Pong};
use crate::step::Step;
use crate::timer::Timer;
use crate::turn::Turn;

impl Node {
    pub(super) fn on_input(&mut self, input: Input, now: Instant, rng: &mut dyn RngCore) -> Step {
        if matches!(self.state, State::Parted) {
            return Step::Stay;
        }
        match input {
            Input::Network(network) => return self.on_network(network, now, rng),
            Input::WokeUp => return self.wake_up(LossReason::Slept, now),
            Input::Leave { code, description } => return self.on_leave(code, description, now, rng),
            Input::Heard { from, discovery } => return self.on_heard(from, discovery, now, rng),
            Input::Received { from, message } => return self.on_received(from, message, now, rng),
            Input::Recalled(claims) => return self.on_recalled(claims, now, rng),
            Input::MasterAnswered(claims) => {
                return self.on_master_answered(claims.unwrap_or_default(), now, rng);
            }
            Input::Rival(claim) => return self.on_claim(claim, None, now, rng),
            Input::Opened { peer, observed, .. } => self.on_opened(peer, observed, now, rng),
            Input::OpenFailed { peer } => return self.on_open_failed(peer, now, rng),
            Input::Closed { peer } => return self.on_closed(peer, now, rng),
            Input::Knocked { peer, answered } => self.on_knocked(peer, answered, now, rng),
            Input::Receipt { lsn } => self.on_receipt(lsn, now, rng),
            Input::Vouched => self.on_vouched(now, rng),
            Input::Missed => self.on_missed(now, rng),
            fact => self.on_fact(fact, now, rng),
        }
        Step::Stay
    }

    pub(super) fn on_timer(&mut self, timer: Timer, now: Instant, rng: &mut dyn RngCore) -> Step {
        match timer {
            Timer::Receipt => {
                self.want_receipt(now, rng);
                return Step::Stay;
            }
            Timer::Standing => {
                self.on_old_word(now, rng);
                return Step::Stay;
            }
            _ => {}
        }
        let (state, mut turn) = self.parts(now, rng);
        match state {
            State::Looking(search) => {
                let quest = search.proceed(&mut turn);
                self.pursue(quest, rng)
            }
            State::Joining(joining) if timer == Timer::Follow => {
                joining.open(&mut turn);
                Step::Stay
            }
            State::Joining(joining) => joining.give_up(None, &mut turn),
            State::HasLsn(membership) => membership.on_timer(timer, &mut turn),
            State::IsLsn(office) => office.on_timer(timer, &mut turn),
            State::NoConnection | State::Parted => Step::Stay,
        }
    }

    fn on_network(&mut self, network: Network, now: Instant, rng: &mut dyn RngCore) -> Step {
        let former = std::mem::replace(&mut self.own.network, network);
        let network = &self.own.network;
        if network.addresses.is_empty() {
            return if matches!(self.state, State::NoConnection) { Step::Stay } else { self.disconnect(now) };
        }
        if matches!(self.state, State::NoConnection) {
            return Step::Look(None);
        }
        if (&former.gateway, &former.prefixes) == (&network.gateway, &network.prefixes) {
            if former.addresses.iter().any(|address| !network.addresses.contains(address)) {
                self.readdress(now, rng);
            } else if former != *network {
                self.renew(now, rng);
            }
            return Step::Stay;
        }
        // Keys name the place that was left.
        self.own.subnet_keys.clear();
        let (state, mut turn) = self.parts(now, rng);
        match state {
            State::IsLsn(office) => office.abandon(&mut turn),
            State::HasLsn(membership) => {
                let description = "moved to another network".to_owned();
                membership.leave(Part { code: PartCode::LEAVING, description, better: None }, &mut turn);
            }
            _ => {}
        }
        self.drop_sessions();
        Step::Look(Some(LossReason::NetworkChanged))
    }

    /// Same network, but an address is gone: sessions that lead to it are opened anew from here. Only this end knows.
    fn readdress(&mut self, now: Instant, rng: &mut dyn RngCore) {
        let (state, mut turn) = self.parts(now, rng);
        match state {
            State::HasLsn(membership) => {
                turn.intend(Intent::Close(membership.lsn()));
                membership.on_closed(&mut turn);
            }
            State::IsLsn(office) => office.readdress(&mut turn),
            _ => {}
        }
    }

    fn on_leave(&mut self, code: PartCode, description: String, now: Instant, rng: &mut dyn RngCore) -> Step {
        let part = Part { code, description, better: None };
        self.leaving = Some(part.clone());
        let (state, mut turn) = self.parts(now, rng);
        match state {
            State::HasLsn(membership) => membership.leave(part, &mut turn),
            State::IsLsn(office) => return office.leave(&mut turn),
            _ => {}
        }
        Step::Depart
    }

    fn on_heard(&mut self, from: SocketAddr, heard: Discovery, now: Instant, rng: &mut dyn RngCore) -> Step {
        let query = match heard {
            Discovery::Claim(claim) => return self.on_claim(claim, Some(from), now, rng),
            Discovery::Query(query) if query.node == self.own.node => return Step::Stay,
            Discovery::Query(query) => query,
        };
        let (state, mut turn) = self.parts(now, rng);
        match state {
            State::Looking(search) => search.on_query(&query, &turn),
            State::Joining(joining) => joining.search_mut().on_query(&query, &turn),
            State::HasLsn(membership) => membership.on_query(from, &query, &mut turn),
            State::IsLsn(office) => office.on_query(from, &query, &mut turn),
            State::NoConnection | State::Parted => {}
        }
        Step::Stay
    }

    fn on_claim(
        &mut self,
        claim: Claim,
        heard: Option<SocketAddr>,
        now: Instant,
        rng: &mut dyn RngCore,
    ) -> Step {
        if claim.claimant.node == self.own.node || !claim.fits(&self.own.subnet_keys) {
            return Step::Stay;
        }
        let (state, mut turn) = self.parts(now, rng);
        match state {
            State::Looking(search) => {
                let quest = search.on_answer(vec![claim], false, &mut turn);
                self.pursue(quest, rng)
            }
            State::Joining(joining) => joining.on_claim(claim, &mut turn),
            State::HasLsn(membership) => membership.on_claim(claim, &mut turn),
            State::IsLsn(office) => office.on_claim(claim, heard, &mut turn),
            _ => Step::Stay,
        }
    }

    fn on_recalled(&mut self, claims: Vec<Claim>, now: Instant, rng: &mut dyn RngCore) -> Step {
        let (state, mut turn) = self.parts(now, rng);
        let State::Looking(search) = state else { return Step::Stay };
        let quest = search.on_recalled(claims, &mut turn);
        self.pursue(quest, rng)
    }

    fn on_master_answered(&mut self, claims: Vec<Claim>, now: Instant, rng: &mut dyn RngCore) -> Step {
        let (state, mut turn) = self.parts(now, rng);
        match state {
            State::Looking(search) => {
                let quest = search.on_master_answered(claims, &mut turn);
                self.pursue(quest, rng)
            }
            State::Joining(joining) => {
                let own = turn.own.node;
                claims.into_iter().for_each(|claim| joining.search_mut().add(claim, own));
                Step::Stay
            }
            // The answer took longer than the patience of who asked.
            State::IsLsn(office) => {
                claims.into_iter().for_each(|claim| office.on_rival(claim, &mut turn));
                Step::Stay
            }
            _ => Step::Stay,
        }
    }

    fn on_received(&mut self, from: NodeId, message: Message, now: Instant, rng: &mut dyn RngCore) -> Step {
        if !self.sessions.contains_key(&from) {
            return Step::Stay;
        }
        if let Message::Pong(pong) = &message
            && self.membership().is_some_and(|membership| membership.lsn() == from)
        {
            self.on_lsns_word(pong.without_master, now);
        }
        let (state, mut turn) = self.parts(now, rng);
        match (state, message) {
            (State::Joining(joining), message) if joining.lsn() == from => {
                joining.on_message(message, &mut turn)
            }
            (State::Joining(joining), Message::Claim(claim)) => joining.on_call(claim, &mut turn),
            (State::IsLsn(office), message) => office.on_message(from, message, &mut turn),
            (State::HasLsn(membership), message) if membership.lsn() == from => {
                membership.on_message(message, &mut turn)
            }
            (_, Message::Claim(claim)) => self.on_claim(claim, None, now, rng),
            (State::HasLsn(membership), message) => {
                refer(from, &message, Some(membership.claim()), &mut turn);
                Step::Stay
            }
            (_, message) => {
                refer(from, &message, None, &mut turn);
                Step::Stay
            }
        }
    }

    fn on_opened(&mut self, peer: NodeId, observed: Option<SocketAddr>, now: Instant, rng: &mut dyn RngCore) {
        if self.sessions.len() >= SESSIONS && !self.sessions.contains_key(&peer) {
            self.intents.push_back(Intent::Close(peer));
            return;
        }
        self.sessions.insert(peer, observed);
        let (state, mut turn) = self.parts(now, rng);
        match state {
            State::Joining(joining) => joining.on_opened(peer, &mut turn),
            State::HasLsn(membership) if membership.lsn() == peer => membership.on_opened(&mut turn),
            State::IsLsn(office) => office.on_opened(peer, &mut turn),
            _ => {}
        }
    }

    fn on_open_failed(&mut self, peer: NodeId, now: Instant, rng: &mut dyn RngCore) -> Step {
        let (state, mut turn) = self.parts(now, rng);
        match state {
            State::Joining(joining) if joining.lsn() == peer => joining.give_up(None, &mut turn),
            State::HasLsn(membership) if membership.lsn() == peer => membership.on_open_failed(&mut turn),
            State::IsLsn(office) => {
                office.on_unreachable(peer, &mut turn);
                Step::Stay
            }
            _ => Step::Stay,
        }
    }

    fn on_closed(&mut self, peer: NodeId, now: Instant, rng: &mut dyn RngCore) -> Step {
        self.sessions.remove(&peer);
        let (state, mut turn) = self.parts(now, rng);
        match state {
            State::HasLsn(membership) if membership.lsn() == peer => {
                membership.on_closed(&mut turn);
                Step::Stay
            }
            _ => self.on_open_failed(peer, now, rng),
        }
    }

    /// A child knocks because its LSN asks for it, an LSN on its own account.
    fn on_knocked(&mut self, peer: NodeId, answered: bool, now: Instant, rng: &mut dyn RngCore) {
        let (state, mut turn) = self.parts(now, rng);
        match state {
            State::HasLsn(membership) if membership.lsn() == peer => {
                membership.on_knocked(answered, &mut turn);
            }
            State::IsLsn(office) => office.on_knocked(peer, answered, &mut turn),
            _ => {}
        }
    }

    /// What changes no state by itself.
    fn on_fact(&mut self, fact: Input, now: Instant, rng: &mut dyn RngCore) {
        match fact {
            Input::SubnetKeys(keys) if keys != self.own.subnet_keys => self.own.subnet_keys = keys,
            Input::Uptime(uptime) if uptime != self.own.uptime => self.own.uptime = uptime,
            Input::MinimumVersion(version) => {
                self.own.minimum_version = version;
                return;
            }
            Input::Load(percent) => {
                self.own.load_percent = percent;
                return;
            }
            fact => return self.on_office_input(fact, now, rng),
        }
        self.renew(now, rng);
    }

    fn on_office_input(&mut self, input: Input, now: Instant, rng: &mut dyn RngCore) {
        match input {
            Input::MasterAttached { .. } => self.attached = true,
            Input::MasterDetached { .. } => self.attached = false,
            _ => {}
        }
        let (state, mut turn) = self.parts(now, rng);
        match (state, input) {
            (State::IsLsn(office), Input::BeatReceived { from, beat }) => office.on_beat(from, beat, now),
            (State::HasLsn(membership), Input::BeatReceived { from, beat }) if membership.lsn() == from => {
                membership.on_beat(beat, &mut turn);
            }
            (State::IsLsn(office), Input::MasterAttached { known_update, resync }) => {
                office.on_master_attached(known_update, resync, &mut turn);
            }
            (State::IsLsn(office), Input::MasterDetached { .. }) => office.on_master_detached(),
            (State::IsLsn(office), Input::Barred(node)) => office.on_barred(node, &mut turn),
            (State::IsLsn(office), Input::Suspected(node)) => office.on_suspected(node, &mut turn),
            (State::IsLsn(office), Input::UpdateAcknowledged { number }) => {
                office.on_acknowledged(number, &mut turn);
            }
            _ => {}
        }
    }

    /// This node's properties have changed: its LSN, or its children, learn of it.
    pub(super) fn renew(&mut self, now: Instant, rng: &mut dyn RngCore) {
        let (state, mut turn) = self.parts(now, rng);
        match state {
            State::HasLsn(membership) => membership.renew(&mut turn),
            State::IsLsn(office) => office.renew(&mut turn),
            _ => {}
        }
    }
}

/// Who takes this node for an LSN is told who is one.
fn refer(from: NodeId, message: &Message, lsn: Option<&Claim>, turn: &mut Turn<'_>) {
    match message {
        Message::Join(_) => {
            let description = "this node is not an LSN".to_owned();
            let refusal = Part { code: PartCode::NOT_LSN, description, better: lsn.cloned() };
            turn.send(from, Message::Refused(refusal));
        }
        Message::Ping(ping) => {
            let (sequence, load_percent) = (ping.sequence, turn.own.load_percent);
            turn.send(
                from,
                Message::Pong(Pong { sequence, load_percent, lsn: lsn.cloned(), without_master: false }),
            );
        }
        _ => {}
    }
}
