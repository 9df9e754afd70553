//! The machine behind the service: candidates come, are probed, are chosen, serve and go.
//!
//! One input, then [`Registry::tick`] once a second: probes to send, candidates to tell, rows to keep.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use muster_types::{NodeId, SubnetKey, Timestamp};
use muster_wire::probe::Token;
use rand::Rng;
use rand::seq::IteratorRandom;

use super::candidate::{Candidate, Offer, Standing};
use super::choice::{Contender, choose};
use super::demand::{Demand, wanted};
use super::locality::{common_bits, place};
use super::proof::Verdict;
use super::record::{History, Kept, Load, State};
use super::relays::Relays;

/// Streams of one replica.
pub const CANDIDATES: usize = 10_000;

/// Bytes a second that a caller may say a GSN relayed: what is above is a mistake.
const PLAUSIBLE: u64 = 1_000_000_000;

/// Who sends a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The own socket of that number.
    Own(usize),
    /// Another candidate, by its stream.
    Node(NodeId),
}

/// What is to be done after a tick.
#[derive(Debug, Clone, PartialEq)]
pub enum Intent {
    Probe {
        via: Via,
        to: SocketAddr,
        token: Token,
    },
    Tell {
        node: NodeId,
        standing: Standing,
    },
    /// The node has a newer stream at another replica.
    End {
        node: NodeId,
    },
    Keep(Box<Kept>),
}

/// What one caller met at one GSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub node: NodeId,
    pub unreachable: bool,
    pub tried: u32,
    pub served: u32,
    pub relayed: u64,
}

/// Who asks for super nodes, and from where.
#[derive(Debug, Clone, Default)]
pub struct Asker {
    pub node: Option<NodeId>,
    pub ip: Option<IpAddr>,
    pub subnets: Vec<SubnetKey>,
}

/// A GSN that serves, as one caller sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    pub kept: Kept,
    pub common_bits: u8,
    pub same_subnet: bool,
}

/// The registry is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{CANDIDATES} candidates are here already")]
pub struct Full;

/// What this replica knows.
#[derive(Debug)]
pub struct Registry {
    replica: String,
    /// The own sockets' addresses, as far as they are bound to one.
    sources: Vec<SocketAddr>,
    candidates: BTreeMap<NodeId, Candidate>,
    /// Of other replicas.
    elsewhere: BTreeMap<NodeId, Kept>,
    elsewhere_demand: usize,
    pub relays: Relays,
    demand: Demand,
    gone: Vec<Kept>,
}

impl Registry {
    pub fn new(replica: String, sources: Vec<SocketAddr>) -> Self {
        Self {
            replica,
            sources,
            candidates: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            elsewhere_demand: 0,
            relays: Relays::default(),
            demand: Demand::default(),
            gone: Vec::new(),
        }
    }

    /// A stream begins, or its node says something new.
    ///
    /// # Errors
    /// There are too many.
    pub fn offer(
        &mut self,
        session: u64,
        offer: Offer,
        observed: Option<IpAddr>,
        history: History,
        now: Timestamp,
    ) -> Result<(), Full> {
        if let Some(known) = self.candidates.get_mut(&offer.node) {
            if known.session == session {
                known.renew(offer);
                return Ok(());
            }
            // What is known of it here is newer than what was kept.
            let history = known.history;
            *known = Candidate::new(session, offer, observed, history, now);
            return Ok(());
        }
        if self.candidates.len() >= CANDIDATES {
            return Err(Full);
        }
        self.candidates.insert(offer.node, Candidate::new(session, offer, observed, history, now));
        Ok(())
    }

    pub fn heard(
        &mut self,
        node: NodeId,
        token: &Token,
        source: SocketAddr,
        sent_ago: Option<Duration>,
        now: Timestamp,
    ) -> Verdict {
        let candidate = self.candidates.get_mut(&node);
        candidate.map_or(Verdict::Unknown, |candidate| candidate.heard(token, source, sent_ago, now))
    }

    pub fn load(&mut self, node: NodeId, load: Load) {
        if let Some(candidate) = self.candidates.get_mut(&node) {
            candidate.load = load;
        }
    }

    /// A stream has ended. Listed no more, from now on.
    pub fn leave(&mut self, node: NodeId, session: u64, now: Timestamp) {
        if self.candidates.get(&node).is_none_or(|known| known.session != session) {
            return;
        }
        let Some(mut candidate) = self.candidates.remove(&node) else { return };
        candidate.pass(now);
        candidate.decide(State::Gone, now);
        self.gone.push(candidate.kept(&self.replica, now));
    }

    /// Somebody met a GSN, or did not reach it: then it is probed at once.
    pub fn report(&mut self, report: Report, now: Timestamp) {
        let Some(candidate) = self.candidates.get_mut(&report.node) else { return };
        let history = &mut candidate.history;
        history.punched(report.tried.into(), report.served.into());
        if report.relayed <= PLAUSIBLE {
            history.measured = history.measured.max(report.relayed);
        }
        if report.unreachable {
            history.unreachable += 1;
            history.punched(1, 0);
            candidate.addresses.iter_mut().for_each(|offered| offered.proof.hurry(now));
        }
    }

    /// What other replicas have.
    pub fn learn(&mut self, kept: Vec<Kept>, demand: usize) {
        self.elsewhere = kept.into_iter().map(|kept| (kept.node, kept)).collect();
        self.elsewhere_demand = demand;
    }

    /// Nodes that asked here lately.
    pub fn demand(&self, now: Timestamp) -> usize {
        self.demand.nodes(now)
    }

    /// Once a second.
    pub fn tick(&mut self, now: Timestamp, rng: &mut impl Rng) -> Vec<Intent> {
        let mut intents = self.superseded();
        let proven: BTreeSet<_> = self
            .candidates
            .iter_mut()
            .filter_map(|(node, candidate)| candidate.pass(now).then_some(*node))
            .collect();
        let chosen = self.chosen(&proven, now);
        for (node, candidate) in &mut self.candidates {
            let state = match (candidate.offer.eligible, proven.contains(node)) {
                (false, _) => State::Unwilling,
                (true, false) => State::Unproven,
                (true, true) if chosen.contains(node) => State::Serving,
                (true, true) => State::Spare,
            };
            if let Some(standing) = candidate.decide(state, now) {
                intents.push(Intent::Tell { node: *node, standing });
            }
            if let Some(kept) = candidate.to_keep(&self.replica, now) {
                intents.push(Intent::Keep(Box::new(kept)));
            }
        }
        intents.extend(self.gone.drain(..).map(|kept| Intent::Keep(Box::new(kept))));
        intents.extend(self.probes(now, rng));
        intents
    }

    fn superseded(&mut self) -> Vec<Intent> {
        let newer = |(node, candidate): (&NodeId, &Candidate)| {
            let there = self.elsewhere.get(node)?;
            (there.state != State::Gone && there.since > candidate.since()).then_some(*node)
        };
        let ended: Vec<_> = self.candidates.iter().filter_map(newer).collect();
        for node in &ended {
            self.candidates.remove(node);
        }
        ended.into_iter().map(|node| Intent::End { node }).collect()
    }

    fn chosen(&self, proven: &BTreeSet<NodeId>, now: Timestamp) -> BTreeSet<NodeId> {
        let own = self.candidates.values().filter(|it| proven.contains(&it.offer.node)).filter_map(|it| {
            let ip = it.addresses.iter().find(|offered| offered.proof.is_proven(now))?.at.ip();
            let serving = it.state == State::Serving;
            let reliability = it.history.reliability();
            Some(Contender { node: it.offer.node, serving, reliability, place: place(ip) })
        });
        let there = self.elsewhere.values().filter(|kept| kept.alive_until > now).filter_map(|kept| {
            let serving = kept.state == State::Serving;
            let ip = kept.proven.first()?.ip;
            let reliability = kept.history.reliability();
            (serving || kept.state == State::Spare).then_some(Contender {
                node: kept.node,
                serving,
                reliability,
                place: place(ip),
            })
        });
        let contenders: Vec<_> = own.chain(there).collect();
        choose(&contenders, self.wanted(now).0)
    }

    /// How many should serve, and how many do.
    pub fn wanted(&self, now: Timestamp) -> (usize, usize) {
        let own = self.candidates.values().filter(|it| it.state == State::Serving).map(|it| it.load.percent);
        let there = self.elsewhere.values().filter(|it| it.serves(now)).map(|it| it.load.percent);
        let loads: Vec<_> = own.chain(there).map(usize::from).collect();
        let mean = loads.iter().sum::<usize>() / loads.len().max(1);
        (wanted(self.demand.nodes(now) + self.elsewhere_demand, loads.len(), mean), loads.len())
    }

    fn probes(&mut self, now: Timestamp, rng: &mut impl Rng) -> Vec<Intent> {
        let mut due = Vec::new();
        for (node, candidate) in &mut self.candidates {
            if !candidate.offer.eligible {
                continue;
            }
            for offered in &mut candidate.addresses {
                if offered.proof.begin_round(now) {
                    due.push((*node, offered.at, offered.proof.wants_others(now)));
                }
            }
        }
        due.into_iter().flat_map(|(node, to, others)| self.round(node, to, others, now, rng)).collect()
    }

    /// One round to one address: from every own socket of its family, and from a candidate elsewhere.
    fn round(
        &mut self,
        node: NodeId,
        to: SocketAddr,
        others: bool,
        now: Timestamp,
        rng: &mut impl Rng,
    ) -> Vec<Intent> {
        let own = (0..self.sources.len()).filter(|at| self.sources[*at].is_ipv4() == to.is_ipv4());
        let mut senders: Vec<_> = own.map(|at| (Via::Own(at), None)).collect();
        if others && let Some((helper, from)) = self.helper(node, to, rng) {
            senders.push((Via::Node(helper), Some(from)));
        }
        let Some(candidate) = self.candidates.get_mut(&node) else { return Vec::new() };
        let Some(offered) = candidate.addresses.iter_mut().find(|offered| offered.at == to) else {
            return Vec::new();
        };
        let mut intents = Vec::new();
        for (via, from) in senders {
            let token: Token = rng.random();
            if offered.proof.sent(token, from, now) {
                candidate.history.probes_sent += 1;
                intents.push(Intent::Probe { via, to, token });
            }
        }
        intents
    }

    /// Somebody in another place than the address, who is seen from an address of its family.
    fn helper(&self, node: NodeId, to: SocketAddr, rng: &mut impl Rng) -> Option<(NodeId, IpAddr)> {
        let target = self.candidates.get(&node)?.observed;
        let fits = |it: &&Candidate| {
            let Some(ip) = it.observed else { return false };
            it.offer.node != node && ip.is_ipv4() == to.is_ipv4() && ip != to.ip() && Some(ip) != target
        };
        let helper = self.candidates.values().filter(fits).choose(rng)?;
        Some((helper.offer.node, helper.observed?))
    }

    /// GSNs that serve, the best for `asker` first.
    pub fn list(&mut self, asker: &Asker, now: Timestamp) -> Vec<Listed> {
        if let Some(node) = asker.node {
            self.demand.asked(node, now);
        }
        let own = self.candidates.values().filter(|it| it.state == State::Serving);
        let own = own.map(|it| it.kept(&self.replica, now));
        let there = self.elsewhere.values().filter(|kept| !self.candidates.contains_key(&kept.node)).cloned();
        let mut listed: Vec<_> = own
            .chain(there)
            .filter(|kept| kept.serves(now) && Some(kept.node) != asker.node)
            .map(|kept| {
                let bits = |ip: IpAddr| asker.ip.map_or(0, |own| common_bits(own, ip));
                let common_bits = kept.proven.iter().map(|address| bits(address.ip)).max().unwrap_or(0);
                let same_subnet = kept.subnets.iter().any(|key| asker.subnets.contains(key));
                Listed { kept, common_bits, same_subnet }
            })
            .collect();
        // Bytes of a prefix rather than bits: who shares one bit more is hardly nearer, and reliability counts.
        listed.sort_by_key(|it| {
            let near = it.common_bits / 8;
            (!it.same_subnet, std::cmp::Reverse((near, it.kept.history.reliability())), it.kept.node)
        });
        listed
    }

    /// One candidate that serves, here or elsewhere.
    pub fn serving(&self, node: NodeId, now: Timestamp) -> Option<Kept> {
        let own = self.candidates.get(&node).map(|it| it.kept(&self.replica, now));
        own.or_else(|| self.elsewhere.get(&node).cloned()).filter(|kept| kept.serves(now))
    }

    /// How many are in each state here, for metrics.
    pub fn states(&self) -> BTreeMap<State, usize> {
        let mut states: BTreeMap<_, _> = State::ALL.into_iter().map(|state| (state, 0)).collect();
        for candidate in self.candidates.values() {
            *states.entry(candidate.state).or_default() += 1;
        }
        states
    }
}
