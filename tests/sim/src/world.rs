//! Hosts in places, driven under the virtual clock. Intents of the machines become packets and calls of the master;
//! what arrives becomes their inputs. Nothing here asks a machine what it believes.

mod channel;
mod clock;
mod cost;
mod fate;
mod firewall;
mod host;
mod lie;
mod master;
mod quiet;
mod revocation;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use muster_overlay::intent::Station;
use muster_overlay::message::{Discovery, LsnQuery};
use muster_overlay::standing::Uptime;
use muster_overlay::{Input, Intent};
use muster_types::{Instant, NodeId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::channel::MasterEvent;
pub(crate) use self::clock::Clock;
use self::host::{Host, address, host_at};
pub use self::host::{HostId, Life, PlaceId};
pub use self::lie::Lie;
pub use self::master::{Master, Shown};
use self::quiet::Quiet;
use self::revocation::Revoking;
use self::session::Arrival;
use crate::measure::Measure;
use crate::model::{Link, Shape};

/// Where the oracle's own query comes from; no host has it.
const ORACLE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1);

/// A child pings, and a stall is forgotten, well within this.
const STALL_MEMORY: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub struct Setup {
    pub nodes: usize,
    pub places: usize,
    /// Of each host's way to its local network, one direction.
    pub link: Shape,
    /// The clocks of places in which nothing happens stand still, and what they would have sent is computed.
    pub rest: bool,
    /// `false`: firewalls drop UDP, so nobody hears discovery, and sessions go by TCP.
    pub datagrams: bool,
}

#[derive(Debug)]
enum Event {
    Wake { host: HostId, at: Instant },
    Local { host: HostId, boot: u32, place: PlaceId, input: Box<Input> },
    Arrive(Box<Arrival>),
    Retry(Box<Arrival>),
    HandshakeLimit { host: HostId, boot: u32, place: PlaceId, peer: HostId, id: u64 },
    Master(Box<MasterEvent>),
    HeardOfRevocations { host: HostId, boot: u32, attempt: u64, up_to: u64, place: PlaceId },
}

#[derive(Debug)]
pub(crate) struct Place {
    /// Round trip to the master.
    pub(crate) round_trip: Duration,
    pub(crate) wan: bool,
    pub(crate) members: BTreeSet<HostId>,
    quiet: Quiet,
}

/// Who served a child last, and when: an answered ping, a beat, an acceptance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Served {
    pub(crate) by: HostId,
    pub(crate) at: Instant,
}

#[derive(Debug)]
pub struct World {
    clock: Clock<Event>,
    rng: ChaCha8Rng,
    pub(crate) hosts: Vec<Host>,
    pub(crate) places: Vec<Place>,
    pub(crate) datagrams: bool,
    by_id: BTreeMap<NodeId, HostId>,
    pub(crate) master: Master,
    revoking: Revoking,
    pub(crate) measure: Measure,
    pub(crate) served: Vec<Option<Served>>,
    handshakes: BTreeMap<(HostId, HostId), u64>,
    made: u64,
    oracle_heard: Vec<HostId>,
    trace: DefaultHasher,
    watched: Vec<HostId>,
    events: u64,
    rest: bool,
}

impl World {
    pub fn new(setup: &Setup, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let places = (0..setup.places)
            .map(|place| Place {
                round_trip: Duration::from_millis(rng.random_range(15..=60)),
                wan: true,
                members: (place..setup.nodes).step_by(setup.places).collect(),
                quiet: Quiet::default(),
            })
            .collect();
        let hosts: Vec<_> = (0..setup.nodes)
            .map(|host| Host::new(host % setup.places, Link::new(setup.link), &mut rng))
            .collect();
        let by_id = hosts.iter().enumerate().map(|(host, known)| (known.id, host)).collect();
        let mut world = Self {
            clock: Clock::default(),
            rng,
            served: vec![None; hosts.len()],
            measure: Measure::new(hosts.len()),
            hosts,
            places,
            datagrams: setup.datagrams,
            by_id,
            master: Master::new(setup.nodes),
            revoking: Revoking::default(),
            rest: setup.rest,
            handshakes: BTreeMap::new(),
            made: 0,
            oracle_heard: Vec::new(),
            trace: DefaultHasher::new(),
            watched: Vec::new(),
            events: 0,
        };
        world.tick_master();
        world
    }

    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    pub fn measure(&self) -> &Measure {
        &self.measure
    }

    /// Tells on stderr what befalls these hosts.
    pub fn watch(&mut self, hosts: &[HostId]) {
        self.watched = hosts.to_vec();
    }

    /// Stands for everything that happened, in order: equal for equal runs.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    pub fn host_count(&self) -> usize {
        self.hosts.len()
    }

    pub fn place_count(&self) -> usize {
        self.places.len()
    }

    pub fn life(&self, host: HostId) -> Life {
        self.hosts[host].life
    }

    pub fn place(&self, host: HostId) -> PlaceId {
        self.hosts[host].place
    }

    /// Lets the world run until then.
    pub fn run_until(&mut self, end: Instant) {
        while let Some(event) = self.clock.next_until(end) {
            self.events += 1;
            self.take(event);
        }
    }

    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now() + span);
    }

    /// Every host of a segment that answers discovery at once, as a stranger on that LAN would hear it.
    pub fn who_is_lsn(&mut self, place: PlaceId, segment: u8) -> Vec<HostId> {
        self.thaw(place);
        let query = LsnQuery { node: NodeId([0xff; 20]), subnet_keys: vec![], uptime: Uptime(0), nonce: 0 };
        let members = self.places[place].members.iter().copied();
        let here: Vec<_> = members
            .filter(|&host| self.hosts[host].segment == segment)
            .filter(|&host| self.hosts[host].is_running() && self.hosts[host].frozen_until <= self.now())
            .collect();
        self.oracle_heard.clear();
        for host in here {
            self.input(host, Input::Heard { from: ORACLE, discovery: Discovery::Query(query.clone()) });
        }
        std::mem::take(&mut self.oracle_heard)
    }

    /// Hosts of a segment whose process runs now.
    pub fn running(&self, place: PlaceId, segment: u8) -> impl Iterator<Item = HostId> + '_ {
        let now = self.now();
        self.places[place].members.iter().copied().filter(move |&number| {
            let host = &self.hosts[number];
            host.segment == segment && host.is_running() && host.frozen_until <= now
        })
    }

    /// Running, and not stalled within the last seconds.
    pub(crate) fn ran_well(&self, host: HostId) -> bool {
        let (known, now) = (&self.hosts[host], self.now());
        let stalled = known.frozen_until > Instant::ZERO && now.since(known.frozen_until) < STALL_MEMORY;
        known.is_running() && !stalled && now.since(known.since) > STALL_MEMORY
    }

    pub(crate) fn life_of(&self, host: HostId) -> (NodeId, Station) {
        (self.hosts[host].id, self.hosts[host].machine.station())
    }

    pub(crate) fn host_of(&self, node: NodeId) -> Option<HostId> {
        self.by_id.get(&node).copied()
    }

    /// Who was last served by this LSN and can still hear it: those who will miss it.
    pub(crate) fn children_of(&mut self, lsn: HostId) -> Vec<HostId> {
        let place = self.hosts[lsn].place;
        self.thaw(place);
        let now = self.now();
        let recent = |served: &Served| served.by == lsn && now.since(served.at) < STALL_MEMORY;
        let members = self.places[place].members.iter().copied();
        members
            .filter(|&host| host != lsn && self.can_hear(lsn, host))
            .filter(|&host| self.served[host].as_ref().is_some_and(recent))
            .collect()
    }

    /// An LSN and its deputies: the victims of a plot, which may look into the machine.
    pub(crate) fn line_of(&self, lsn: HostId) -> Vec<HostId> {
        let deputies = self.hosts[lsn].machine.children().into_iter().take(2);
        std::iter::once(lsn).chain(deputies.filter_map(|node| self.host_of(node))).collect()
    }

    /// Changes that the fullest LSN keeps for the master: what grows when it is away.
    pub fn most_unsaid(&self) -> usize {
        self.hosts.iter().map(|host| host.machine.unsaid_changes()).max().unwrap_or_default()
    }

    /// Can the master hear from a place at all?
    pub(crate) fn is_visible(&self, place: PlaceId) -> bool {
        self.master.is_up() && self.places[place].wan
    }

    pub(crate) fn into_measure(self) -> Measure {
        self.measure
    }

    fn note(&mut self, what: &str, host: usize, detail: u64) {
        let now = self.clock.now();
        (now.elapsed().as_nanos(), what, host, detail).hash(&mut self.trace);
        if self.watched.contains(&host) && what != "beat" {
            eprintln!("{now:?} host {host} of place {}: {what} {detail}", self.hosts[host].place);
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Wake { host, at } => self.on_wake(host, at),
            Event::Local { host, boot, place, input } => {
                self.came(place);
                self.when_awake(host, boot, *input);
            }
            Event::Arrive(arrival) => {
                self.came(arrival.place);
                self.on_arrival(*arrival);
            }
            Event::Retry(arrival) => {
                self.came(arrival.place);
                self.on_retry(*arrival);
            }
            Event::HandshakeLimit { host, boot, place, peer, id } => {
                self.came(place);
                self.on_handshake_limit(host, boot, peer, id);
            }
            Event::Master(event) => self.on_master_event(*event),
            Event::HeardOfRevocations { host, boot, attempt, up_to, place } => {
                self.came(place);
                self.hear_by_channel(host, boot, attempt, up_to);
            }
        }
    }

    /// Something is on its way in a place.
    fn later(&mut self, place: PlaceId, at: Instant, event: Event) {
        self.places[place].quiet.pending += 1;
        self.clock.schedule(at, event);
    }

    fn came(&mut self, place: PlaceId) {
        self.places[place].quiet.pending -= 1;
        self.thaw(place);
    }

    /// Inputs wait while the host's process does not run, and come before its timers when it does again.
    fn when_awake(&mut self, host: HostId, boot: u32, input: Input) {
        let known = &self.hosts[host];
        if known.boot != boot || !known.is_running() {
            return;
        }
        if known.frozen_until > self.now() {
            let (at, place) = (known.frozen_until, known.place);
            return self.later(place, at, Event::Local { host, boot, place, input: Box::new(input) });
        }
        self.input(host, input);
    }

    fn on_wake(&mut self, host: HostId, at: Instant) {
        let (now, known) = (self.clock.now(), &mut self.hosts[host]);
        if known.wake_at != Some(at) || !known.is_running() {
            return;
        }
        if known.frozen_until > now {
            // Behind what arrived meanwhile.
            let at = known.frozen_until + Duration::from_micros(1);
            known.wake_at = Some(at);
            return self.clock.schedule(at, Event::Wake { host, at });
        }
        known.wake_at = None;
        known.machine.handle_timeout(now - known.rested, &mut self.rng);
        let place = known.place;
        self.drain(host);
        self.rest_if_quiet(place);
    }

    /// One input, then everything the machine wants.
    fn input(&mut self, host: HostId, input: Input) {
        self.thaw(self.hosts[host].place);
        let (now, known) = (self.clock.now(), &mut self.hosts[host]);
        known.machine.handle(input, now - known.rested, &mut self.rng);
        self.drain(host);
    }

    fn drain(&mut self, host: HostId) {
        while let Some(intent) = self.hosts[host].machine.poll_intent() {
            match self.hosts[host].lie {
                None => self.perform(host, intent),
                Some(lie) => self.perform_lying(host, lie, intent),
            }
        }
        let known = &mut self.hosts[host];
        let next = known.machine.poll_timeout().filter(|_| known.is_running());
        let next = next.map(|(at, _)| at + known.rested);
        if let Some(at) = next.filter(|&at| known.wake_at != Some(at)) {
            known.wake_at = Some(at);
            self.clock.schedule(at, Event::Wake { host, at });
        }
    }

    fn perform(&mut self, host: HostId, intent: Intent) {
        match intent {
            Intent::Open(contact) => self.open(host, &contact),
            Intent::Probe(contact) => self.probe(host, &contact),
            Intent::Knock(contact) => self.knock(host, &contact),
            Intent::Close(peer) => self.close(host, peer),
            Intent::Send { to, message } => self.send(host, to, message),
            Intent::SendBeat { to, beat } => self.send_beat(host, to, beat),
            Intent::Multicast(discovery) => self.multicast(host, &discovery),
            Intent::Answer { to, .. } if to == ORACLE => self.oracle_heard.push(host),
            Intent::Answer { to, discovery } => self.unicast(host, to, &discovery),
            Intent::Recall => {
                let claims = self.hosts[host].recall();
                self.locally(host, Duration::from_millis(1), Input::Recalled(claims));
            }
            Intent::AskMaster => self.ask_master(host),
            Intent::AttachMaster(claim) => self.attach_master(host, claim),
            Intent::DetachMaster => self.detach_master(host),
            Intent::PartMaster(_) => self.part_master(host),
            Intent::Update(update) => self.update_master(host, update),
            Intent::Remember(claim) => self.hosts[host].remember(claim),
            Intent::Changed(station) => self.on_changed(host, &station),
            Intent::Disconnected(disconnection) => self.measure.disconnected(disconnection),
        }
    }

    /// Only for the figures, and for a goodbye's end; no oracle looks at it.
    fn on_changed(&mut self, host: HostId, station: &Station) {
        let now = self.now();
        let kind = format!("{station:?}");
        self.note(kind.split([' ', '{']).next().unwrap_or_default(), host, 0);
        match station {
            Station::HasLsn { lsn, .. } => {
                let lsn = self.by_id.get(lsn).copied();
                self.measure.has_lsn(host, lsn, now);
            }
            Station::IsLsn { .. } => self.measure.is_lsn(host, now),
            Station::Parted => self.hosts[host].halt(Life::Left, now),
            _ => {}
        }
    }

    fn locally(&mut self, host: HostId, after: Duration, input: Input) {
        let Host { boot, place, .. } = self.hosts[host];
        self.stir(place);
        let event = Event::Local { host, boot, place, input: Box::new(input) };
        self.later(place, self.now() + after, event);
    }
}
