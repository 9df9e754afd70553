//! The machines and what lies between them. Intents become messages that arrive after their time, or not at all; the machines'
//! clocks are one.

use std::collections::HashMap;
use std::time::Duration;

use muster_overlay::dht::{
    Answer, CallId, Dht, Input, Intent, Names, Request, Sender, Service, Settings, Standing, Ticket, Turn,
};
use muster_types::Instant;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::cost;
use super::latency::{Position, one_way};
use super::names::{Handle, Ids};
use crate::measure::Traffic;
use crate::world::Clock;

#[derive(Debug, Clone)]
pub struct Setup {
    pub nodes: usize,
    /// Nodes of one place: they are near each other, and lose power together.
    pub per_place: usize,
    /// Of a thousand packets so many are lost.
    pub loss_per_mille: u32,
    pub settings: Settings,
}

impl Setup {
    pub fn of(nodes: usize) -> Self {
        Self { nodes, per_place: 100, loss_per_mille: 1, settings: Settings::default() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Up,
    /// Gone, or asleep: it hears and says nothing.
    Down,
    /// Certified, and false: it knows only its like, and keeps nothing.
    False,
}

#[derive(Debug)]
struct Message {
    from: Sender<Handle>,
    to: Handle,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Request(CallId, Request),
    Answer(CallId, Answer<Handle>),
}

/// Kept small: the clock moves them about.
#[derive(Debug)]
enum Event {
    Arrive(Box<Message>),
    Wake(Handle),
}

pub struct Network {
    pub(super) ids: Ids,
    pub(super) machines: Vec<Dht<Handle>>,
    life: Vec<Life>,
    service: Vec<Service>,
    places: Vec<Position>,
    per_place: usize,
    /// Nodes of different sides do not hear each other.
    side: Vec<bool>,
    partitioned: bool,
    clock: Clock<Event>,
    /// When each node is due to wake.
    wakes: Vec<Instant>,
    pub(super) rng: ChaCha8Rng,
    pub(super) settings: Settings,
    loss_per_mille: u32,
    intents: Vec<Intent<Handle>>,
    /// What machines told their owners.
    pub(super) told: Vec<(Handle, Intent<Handle>)>,
    /// Who uses the table; everybody if empty.
    pub(super) users: Vec<Handle>,
    traffic: Traffic,
    /// Pairs that have a session, and since when; only where it is counted.
    sessions: Option<HashMap<(Handle, Handle), u32>>,
    events: u64,
    trace: u64,
}

/// A session's key is renewed after this.
const SESSION: Duration = Duration::from_secs(3_600);
const NEVER: Instant = Instant::from_elapsed(Duration::MAX);
/// As in FNV-1a: enough to tell two runs apart.
const TRACE_PRIME: u64 = 0x0000_0100_0000_01b3;

impl Network {
    pub fn new(setup: &Setup, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let ids = Ids::random(setup.nodes, &mut rng);
        let count = ids.len();
        let places = (0..count.div_ceil(setup.per_place)).map(|_| Position::random(&mut rng)).collect();
        Self {
            machines: ids.all().map(|node| Dht::new(ids.key(node), &setup.settings)).collect(),
            ids,
            life: vec![Life::Up; count],
            service: vec![Service::Client; count],
            places,
            per_place: setup.per_place,
            side: vec![false; count],
            partitioned: false,
            clock: Clock::default(),
            wakes: vec![NEVER; count],
            rng,
            settings: setup.settings.clone(),
            loss_per_mille: setup.loss_per_mille,
            intents: Vec::new(),
            told: Vec::new(),
            users: Vec::new(),
            traffic: Traffic::default(),
            sessions: None,
            events: 0,
            trace: 0,
        }
    }

    /// All serve, and have known each other for long.
    pub fn settled(setup: &Setup, seed: u64) -> Self {
        let mut network = Self::new(setup, seed);
        for node in network.ids.all() {
            network.input(node, Input::Standing(Standing { reachable: true, office: true, lsn: None }));
        }
        for node in network.ids.all() {
            network.introduce(node, setup.settings.office_bucket);
        }
        network
    }

    /// Fills a node's table with servers as a long life would.
    pub fn introduce(&mut self, node: Handle, bucket: usize) {
        let now = self.now();
        for contact in self.ids.table_of(node, bucket, &mut self.rng) {
            let from = Sender { contact, service: self.service[contact as usize] };
            if from.service != Service::Client {
                let mut turn = Turn {
                    now,
                    settings: &self.settings,
                    names: &self.ids,
                    rng: &mut self.rng,
                    intents: &mut self.intents,
                };
                self.machines[node as usize].handle(Input::Heard { from, round_trip: None }, &mut turn);
            }
        }
        self.act(node);
    }

    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    /// Stands for everything that happened, in order: equal for equal runs.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// From now on first flights cost what they cost.
    pub fn count_sessions(&mut self) {
        self.sessions = Some(HashMap::new());
    }

    pub fn life(&self, node: Handle) -> Life {
        self.life[node as usize]
    }

    pub fn serves(&self, node: Handle) -> bool {
        self.service[node as usize] != Service::Client
    }

    pub fn place(&self, node: Handle) -> usize {
        // Ranks are neighbors in key space; places are not.
        node as usize % self.places.len()
    }

    pub fn place_count(&self) -> usize {
        self.places.len()
    }

    pub fn nodes_per_place(&self) -> usize {
        self.per_place
    }

    pub fn set_life(&mut self, node: Handle, life: Life) {
        self.life[node as usize] = life;
    }

    /// Makes so many of a hundred false, or dead, at once.
    pub fn strike(&mut self, percent: u32, life: Life) {
        for node in self.ids.all() {
            if self.rng.random_range(0..100) < percent {
                self.set_life(node, life);
            }
        }
    }

    /// Half of the places no longer hears the other half.
    pub fn part(&mut self) {
        for node in self.ids.all() {
            self.side[node as usize] = self.place(node).is_multiple_of(2);
        }
        self.partitioned = true;
    }

    pub fn heal(&mut self) {
        self.partitioned = false;
    }

    pub fn side(&self, node: Handle) -> bool {
        self.side[node as usize]
    }

    /// Somebody at random who is up.
    pub fn anybody(&mut self) -> Handle {
        loop {
            let node = match self.users.as_slice() {
                [] => self.rng.random_range(self.ids.all()),
                users => users[self.rng.random_range(0..users.len())],
            };
            if self.life[node as usize] == Life::Up {
                return node;
            }
        }
    }

    pub fn input(&mut self, node: Handle, input: Input<Handle>) {
        let mut turn = Turn {
            now: self.clock.now(),
            settings: &self.settings,
            names: &self.ids,
            rng: &mut self.rng,
            intents: &mut self.intents,
        };
        self.machines[node as usize].handle(input, &mut turn);
        self.act(node);
    }

    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now() + span);
    }

    pub fn run_until(&mut self, end: Instant) {
        while let Some(event) = self.clock.next_until(end) {
            self.events += 1;
            match event {
                Event::Arrive(message) => self.arrive(*message),
                Event::Wake(node) => self.wake(node),
            }
        }
    }

    fn note(&mut self, what: u64, from: Handle, to: Handle) {
        let now = self.now().elapsed().as_nanos() as u64;
        for part in [now, what, u64::from(from), u64::from(to)] {
            self.trace = (self.trace ^ part).wrapping_mul(TRACE_PRIME);
        }
    }

    fn wake(&mut self, node: Handle) {
        let now = self.now();
        if self.wakes[node as usize] > now {
            return;
        }
        self.wakes[node as usize] = NEVER;
        self.note(0, node, node);
        if self.life(node) != Life::Up {
            return;
        }
        let mut turn = Turn {
            now,
            settings: &self.settings,
            names: &self.ids,
            rng: &mut self.rng,
            intents: &mut self.intents,
        };
        self.machines[node as usize].handle_timeout(&mut turn);
        self.act(node);
    }

    fn arrive(&mut self, message: Message) {
        let Message { from, to, body } = message;
        self.note(1, from.contact, to);
        match (self.life(to), body) {
            (Life::Down, _) => {}
            (Life::False, Body::Request(call, request)) => {
                let answer = self.lie(&request);
                self.send(to, from.contact, Body::Answer(call, answer));
            }
            (Life::False, Body::Answer(..)) => {}
            (Life::Up, Body::Request(call, request)) => {
                // The ticket tells the call's number back to us.
                self.input(to, Input::Asked { from, ticket: Ticket(u64::from(call.0)), request });
            }
            (Life::Up, Body::Answer(call, answer)) => self.input(to, Input::Answered { from, call, answer }),
        }
    }

    /// The false know the false, and promise anything.
    fn lie(&self, request: &Request) -> Answer<Handle> {
        match request {
            Request::FindNode { target: key } | Request::FindValue { key, .. } => {
                let is_false = |node: Handle| self.life[node as usize] == Life::False;
                Answer::Nodes { closest: self.ids.closest(*key, self.settings.k, is_false) }
            }
            Request::Store { .. } => Answer::Stored,
            Request::Offer { .. } => Answer::Wanted { digests: Vec::new() },
            Request::Listen { lease, .. } => Answer::Listening { lease: *lease },
            Request::Ping | Request::Changed { .. } | Request::Parting => Answer::Pong { offices: u32::MAX },
        }
    }

    fn act(&mut self, node: Handle) {
        let mut intents = std::mem::take(&mut self.intents);
        for intent in intents.drain(..) {
            match intent {
                Intent::Ask { to, call, request } => self.send(node, to, Body::Request(call, request)),
                Intent::Reply { to, ticket, answer } => {
                    self.send(node, to, Body::Answer(CallId(ticket.0 as u32), answer));
                }
                Intent::Serves(service) => self.service[node as usize] = service,
                Intent::Unreachable(_) | Intent::Renew { .. } => {}
                told => self.told.push((node, told)),
            }
        }
        self.intents = intents;
        let due = self.machines[node as usize].poll_timeout().unwrap_or(NEVER);
        if due < self.wakes[node as usize] {
            self.wakes[node as usize] = due;
            self.clock.schedule(due, Event::Wake(node));
        }
    }

    fn send(&mut self, from: Handle, to: Handle, body: Body) {
        let bytes = self.cost(from, to, &body);
        self.traffic.add(bytes);
        let lost = self.partitioned && self.side[from as usize] != self.side[to as usize];
        if lost || self.rng.random_range(0..1_000) < self.loss_per_mille {
            return;
        }
        let places = [from, to].map(|node| self.place(node));
        let [here, there] = places.map(|place| self.places[place]);
        let span = one_way(here, there, places[0] == places[1], &mut self.rng);
        let from = Sender { contact: from, service: self.service[from as usize] };
        self.clock.schedule(self.now() + span, Event::Arrive(Box::new(Message { from, to, body })));
    }

    fn cost(&mut self, from: Handle, to: Handle, body: &Body) -> usize {
        let bytes = match body {
            Body::Request(_, request) => cost::of_request(request),
            Body::Answer(_, answer) => cost::of_answer(answer),
        };
        let minute = (self.now().elapsed().as_secs() / 60) as u32;
        let Some(sessions) = &mut self.sessions else { return bytes };
        let pair = (from.min(to), from.max(to));
        let is_request = matches!(body, Body::Request(..));
        let since = sessions.get(&pair).copied();
        let fresh = since.is_some_and(|since| minute - since < (SESSION.as_secs() / 60) as u32);
        match (is_request, fresh) {
            (_, true) => bytes,
            // Whoever asks first begins the session; it stands once the answer is there.
            (true, false) => bytes.max(cost::FIRST_FLIGHT),
            (false, false) => {
                sessions.insert(pair, minute);
                bytes + cost::HANDSHAKE
            }
        }
    }
}
