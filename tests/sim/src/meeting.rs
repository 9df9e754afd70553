//! Two nodes behind translators of every kind, brought together by the real machines: what [`theory`] allows against
//! what comes about, and how long it takes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use muster_overlay::meeting::{Candidate, Input, Intent, Kind, Meeting, Ports, Probe, Way, Whereabouts};
use muster_types::Instant;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::model::{Behaviour, Flow, Nat, Outbound, Protocol, Signal};

pub mod theory;

/// Of every agent.
const PORT: u16 = 27_431;

/// A meeting that has not come about by then does not.
const LIMIT: Duration = Duration::from_secs(10);

/// Servers outside that tell a node how they see it; two suffice to see whether ports change, three whether they count.
const SERVERS: [SocketAddr; 3] = [server(1), server(2), server(3)];

const fn server(number: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, number)), 3_478)
}

/// What lies between the two.
#[derive(Debug, Clone, Copy)]
pub struct Situation {
    /// Each end's translator; `None`: a public address.
    pub translators: [Option<Behaviour>; 2],
    /// Both are in one LAN behind the first translator.
    pub together: bool,
    /// One way between any two hosts; the word through the master takes twice that.
    pub delay: Duration,
    /// Of packets, in percent.
    pub loss_percent: u32,
    /// What gets through by UDP at each end.
    pub udp: [bool; 2],
}

impl Situation {
    pub fn between(translators: [Option<Behaviour>; 2]) -> Self {
        let delay = Duration::from_millis(20);
        Self { translators, together: false, delay, loss_percent: 0, udp: [true; 2] }
    }
}

/// What came about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// When the first end could say something at all.
    pub first: Option<Duration>,
    /// When the caller took the direct way.
    pub direct: Option<Duration>,
    /// Datagrams that both sent, answers included.
    pub datagrams: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    /// On its way to an address outside.
    Outside(Flow, Probe),
    /// At an end, as its own LAN shows it.
    Inside(usize, SocketAddr, Probe),
    Told(usize, Whereabouts, bool),
    Relay,
}

struct World {
    situation: Situation,
    now: Instant,
    nats: Vec<Nat>,
    /// Due, in order.
    events: BTreeMap<(Instant, u64), Event>,
    number: u64,
    rng: ChaCha8Rng,
    datagrams: u32,
}

/// Runs one meeting to its end.
pub fn run(situation: Situation, seed: u64) -> Outcome {
    let mut world = World::new(situation, seed);
    let own = [0, 1].map(|end| world.measure(end));
    let began = world.now;
    let [caller, called] = own;
    let mut meetings = [Meeting::call(caller, began), Meeting::called(called)];
    world.later(3 * situation.delay, Event::Relay);
    let mut outcome = Outcome::default();
    loop {
        for end in [0, 1] {
            while let Some(intent) = meetings[end].poll_intent() {
                world.carry_out(end, intent);
            }
        }
        let since = world.now.since(began);
        if outcome.first.is_none() && meetings[0].way().is_some() {
            outcome.first = Some(since);
        }
        if let Some(Way::Direct(_)) = meetings[0].way() {
            return Outcome { direct: Some(since), datagrams: world.datagrams, ..outcome };
        }
        if !world.advance(&mut meetings, began + LIMIT) {
            return Outcome { datagrams: world.datagrams, ..outcome };
        }
    }
}

impl World {
    fn new(situation: Situation, seed: u64) -> Self {
        let nats = situation.translators.iter().enumerate().filter_map(|(end, behaviour)| {
            behaviour.map(|behaviour| Nat::new(Ipv4Addr::new(203, 0, 113, 1 + end as u8), behaviour))
        });
        Self {
            situation,
            now: Instant::ZERO,
            nats: nats.collect(),
            events: BTreeMap::new(),
            number: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            datagrams: 0,
        }
    }

    fn nat(&self, end: usize) -> Option<usize> {
        let behind = if self.situation.together { 0 } else { end };
        self.situation.translators[behind]?;
        Some(self.situation.translators[..behind].iter().flatten().count())
    }

    /// Where the host is in its own network.
    fn inside(&self, end: usize) -> SocketAddr {
        let ip = match (self.nat(end), self.situation.together) {
            (None, _) => Ipv4Addr::new(192, 0, 2, 1 + end as u8),
            (Some(_), true) => Ipv4Addr::new(192, 168, 1, 1 + end as u8),
            (Some(_), false) => Ipv4Addr::new(192, 168, 1, 1),
        };
        SocketAddr::new(ip.into(), PORT)
    }

    /// What a node knows of itself after it has asked the servers.
    fn measure(&mut self, end: usize) -> Whereabouts {
        let inside = self.inside(end);
        let mut candidates = vec![Candidate { at: inside, kind: Kind::Host }];
        let mut ports = Vec::new();
        for server in SERVERS {
            let Some(seen) = self.seen_by(end, server) else { continue };
            ports.push(seen.port());
            if candidates.iter().all(|candidate| candidate.at != seen) {
                candidates.push(Candidate { at: seen, kind: Kind::Reflexive });
            }
        }
        Whereabouts { candidates, ports: Ports::seen(&ports) }
    }

    fn seen_by(&mut self, end: usize, server: SocketAddr) -> Option<SocketAddr> {
        if !self.situation.udp[end] {
            return None;
        }
        let flow = Flow { protocol: Protocol::Udp, source: self.inside(end), destination: server };
        let Some(nat) = self.nat(end) else { return Some(flow.source) };
        match self.nats[nat].outbound(self.now, flow, Signal::Carries, &mut self.rng).ok()? {
            Outbound::Forward(flow) => Some(flow.source),
            Outbound::Hairpin(_) => None,
        }
    }

    fn later(&mut self, after: Duration, event: Event) {
        self.number += 1;
        self.events.insert((self.now + after, self.number), event);
    }

    fn carry_out(&mut self, end: usize, intent: Intent) {
        match intent {
            Intent::Tell { own, answer } => {
                self.later(2 * self.situation.delay, Event::Told(1 - end, own, answer));
            }
            Intent::Probe { to, probe } => self.send(end, to, probe),
            Intent::Use(_) => {}
        }
    }

    fn send(&mut self, end: usize, to: SocketAddr, probe: Probe) {
        self.datagrams += 1;
        if !self.situation.udp[end] || self.rng.random_range(0..100) < self.situation.loss_percent {
            return;
        }
        let source = self.inside(end);
        if self.situation.together && to == self.inside(1 - end) {
            return self.later(Duration::from_millis(1), Event::Inside(1 - end, source, probe));
        }
        let flow = Flow { protocol: Protocol::Udp, source, destination: to };
        let Some(nat) = self.nat(end) else {
            return self.later(self.situation.delay, Event::Outside(flow, probe));
        };
        match self.nats[nat].outbound(self.now, flow, Signal::Carries, &mut self.rng) {
            Ok(Outbound::Forward(flow)) => self.later(self.situation.delay, Event::Outside(flow, probe)),
            Ok(Outbound::Hairpin(flow)) => self.arrive_inside(flow, probe),
            Err(_) => {}
        }
    }

    fn arrive_inside(&mut self, flow: Flow, probe: Probe) {
        if let Some(end) = [0, 1].into_iter().find(|end| self.inside(*end) == flow.destination) {
            self.later(Duration::ZERO, Event::Inside(end, flow.source, probe));
        }
    }

    /// At the address that it was sent to: a host's own, or a translator's.
    fn arrive_outside(&mut self, flow: Flow, probe: Probe) {
        for end in [0, 1] {
            let arrived = match self.nat(end) {
                None => (self.inside(end) == flow.destination).then_some(flow),
                Some(nat) if IpAddr::V4(self.nats[nat].public()) == flow.destination.ip() => {
                    self.nats[nat].inbound(self.now, flow, Signal::Carries).ok()
                }
                Some(_) => None,
            };
            // Two hosts behind two routers may have the same address.
            let own = arrived.filter(|flow| flow.destination == self.inside(end) && self.situation.udp[end]);
            if let Some(flow) = own {
                return self.later(Duration::ZERO, Event::Inside(end, flow.source, probe));
            }
        }
    }

    /// The next thing that happens; `false`: nothing does before `limit`.
    fn advance(&mut self, meetings: &mut [Meeting; 2], limit: Instant) -> bool {
        let timers = [0, 1].into_iter().filter_map(|end| Some((meetings[end].poll_timeout()?, end)));
        let timer = timers.min_by_key(|timer| Reverse(Reverse(timer.0)));
        let event = self.events.keys().next().copied();
        let due = [timer.map(|timer| timer.0), event.map(|event| event.0)].into_iter().flatten().min();
        let Some(due) = due.filter(|due| *due <= limit) else { return false };
        self.now = self.now.max(due);
        match event.filter(|event| event.0 == due) {
            Some(key) => {
                if let Some(event) = self.events.remove(&key) {
                    self.happen(event, meetings);
                }
            }
            None => {
                if let Some((_, end)) = timer {
                    meetings[end].handle_timeout(self.now);
                }
            }
        }
        true
    }

    fn happen(&mut self, event: Event, meetings: &mut [Meeting; 2]) {
        let now = self.now;
        match event {
            Event::Outside(flow, probe) => self.arrive_outside(flow, probe),
            Event::Inside(end, from, probe) => meetings[end].handle(Input::Probed { from, probe }, now),
            Event::Told(end, peer, answer) => meetings[end].handle(Input::Told { peer, answer }, now),
            Event::Relay => {
                for meeting in meetings {
                    meeting.handle(Input::Relay(true), now);
                }
            }
        }
    }
}

/// What became of many meetings of one kind.
#[derive(Debug, Default)]
pub struct Tally {
    pub runs: usize,
    pub direct: Vec<Duration>,
    pub datagrams: VecDeque<u32>,
}

/// Meets `runs` times.
pub fn repeat(situation: Situation, runs: u64) -> Tally {
    let mut tally = Tally::default();
    for seed in 0..runs {
        let outcome = run(situation, seed);
        tally.runs += 1;
        tally.direct.extend(outcome.direct);
        tally.datagrams.push_back(outcome.datagrams);
    }
    tally.direct.sort_unstable();
    tally
}
