//! The machine against candidates behind every kind of filter (RFC 4787, section 5), second by second.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use muster_gsn_registry::domain::candidate::{Offer, Standing};
use muster_gsn_registry::domain::record::{Caps, History, State};
use muster_gsn_registry::domain::registry::{Asker, Intent, Registry, Report, Via};
use muster_types::{Address, NodeId, Timestamp};
use muster_wire::probe::Token;
use rand::SeedableRng;
use rand::rngs::StdRng;

const START: Timestamp = Timestamp::from_micros(1_000_000_000_000);

/// The master's two addresses: the first also serves what candidates write to.
const BUSY: [u8; 4] = [192, 0, 2, 1];
const QUIET: [u8; 4] = [192, 0, 2, 2];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    Anybody,
    ByAddress,
    ByAddressAndPort,
}

/// A candidate, and the way into it.
struct Host {
    at: SocketAddr,
    filter: Filter,
    wrote_to: BTreeSet<SocketAddr>,
    dead: bool,
}

impl Host {
    fn new(last: u8, filter: Filter) -> Self {
        // Keeps up its contact with the master all the time.
        let wrote_to = BTreeSet::from([SocketAddr::from((BUSY, 27_441))]);
        Self { at: SocketAddr::from(([198, 51, 100, last], 27_431)), filter, wrote_to, dead: false }
    }

    fn lets_in(&self, from: SocketAddr) -> bool {
        let known = match self.filter {
            Filter::Anybody => true,
            Filter::ByAddress => self.wrote_to.iter().any(|to| to.ip() == from.ip()),
            Filter::ByAddressAndPort => self.wrote_to.contains(&from),
        };
        known && !self.dead
    }
}

struct World {
    registry: Registry,
    sources: Vec<SocketAddr>,
    hosts: BTreeMap<NodeId, Host>,
    standings: BTreeMap<NodeId, Standing>,
    probed: usize,
    now: Timestamp,
    rng: StdRng,
}

fn node(number: u8) -> NodeId {
    NodeId([number; 20])
}

impl World {
    fn new(sources: &[[u8; 4]]) -> Self {
        let sources: Vec<SocketAddr> =
            sources.iter().flat_map(|ip| [1, 2].map(|port| SocketAddr::from((*ip, 50_000 + port)))).collect();
        Self {
            registry: Registry::new("r".to_owned(), sources.clone()),
            sources,
            hosts: BTreeMap::new(),
            standings: BTreeMap::new(),
            probed: 0,
            now: START,
            rng: StdRng::seed_from_u64(1),
        }
    }

    /// With one candidate that anybody can reach, and that serves.
    fn serving() -> Self {
        let mut world = Self::new(&[QUIET]);
        world.add(1, Filter::Anybody);
        world.pass(60);
        assert_eq!(world.listed(), [1]);
        world
    }

    fn add(&mut self, number: u8, filter: Filter) {
        let host = Host::new(number, filter);
        let (node, at) = (node(number), host.at);
        let offer = Offer {
            node,
            addresses: vec![Address { ip: at.ip(), udp_port: Some(at.port()), tcp_port: None }],
            noise_key: [number; 32],
            eligible: true,
            caps: Caps { signalling: 5_000, relaying: 10_000, nodes: 100 },
            subnets: Vec::new(),
            nat: String::new(),
        };
        self.registry.offer(1, offer, Some(at.ip()), History::default(), self.now).unwrap();
        self.hosts.insert(node, host);
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now = self.now + Duration::from_secs(1);
            for intent in self.registry.tick(self.now, &mut self.rng) {
                match intent {
                    Intent::Probe { via, to, token } => self.deliver(via, to, token),
                    Intent::Tell { node, standing } => drop(self.standings.insert(node, standing)),
                    Intent::End { .. } | Intent::Keep(_) => {}
                }
            }
        }
    }

    fn deliver(&mut self, via: Via, to: SocketAddr, token: Token) {
        self.probed += 1;
        let from = match via {
            Via::Own(socket) => self.sources[socket],
            // From the helper's own socket, through its own translator.
            Via::Node(helper) => self.hosts[&helper].at,
        };
        let Some((node, host)) = self.hosts.iter().find(|(_, host)| host.at == to) else { return };
        if host.lets_in(from) {
            let wrote = host.wrote_to.iter().any(|other| other.ip() == from.ip());
            let ago = wrote.then_some(Duration::from_secs(5));
            self.registry.heard(*node, &token, from, ago, self.now);
        }
    }

    fn state(&self, number: u8) -> State {
        self.standings[&node(number)].state
    }

    fn listed(&mut self) -> Vec<u8> {
        let now = self.now;
        self.registry.list(&Asker::default(), now).iter().map(|it| it.kept.node.0[0]).collect()
    }
}

#[test]
fn of_all_filters_only_the_one_that_lets_anybody_in_yields_a_super_node() {
    let mut world = World::new(&[BUSY, QUIET]);
    for (number, filter) in [(1, Filter::Anybody), (2, Filter::ByAddress), (3, Filter::ByAddressAndPort)] {
        world.add(number, filter);
    }
    world.pass(900);
    let states = [1, 2, 3].map(|number| world.state(number));
    assert_eq!(states, [State::Serving, State::Unproven, State::Unproven]);
    assert_eq!(world.listed(), [1]);
}

#[test]
fn a_master_with_one_address_that_everybody_writes_to_needs_other_candidates_to_prove_one() {
    let mut alone = World::new(&[BUSY]);
    alone.add(1, Filter::Anybody);
    alone.pass(900);
    assert_eq!(alone.state(1), State::Unproven);
    let why = &alone.standings[&node(1)].reason;
    assert!(why.contains("written to"), "{why}");

    let mut joined = World::new(&[BUSY]);
    for number in 1..=4 {
        joined.add(number, if number == 1 { Filter::Anybody } else { Filter::ByAddressAndPort });
    }
    joined.pass(900);
    assert_eq!(joined.listed(), [1]);
}

#[test]
fn one_that_fails_is_out_within_a_minute_and_back_when_it_is() {
    let mut world = World::serving();
    world.hosts.get_mut(&node(1)).unwrap().dead = true;
    world.pass(60);
    assert!(world.listed().is_empty());
    world.hosts.get_mut(&node(1)).unwrap().dead = false;
    world.pass(60);
    assert_eq!(world.listed(), [1]);
}

#[test]
fn one_whose_stream_ends_is_out_at_once() {
    let mut world = World::serving();
    let now = world.now;
    world.registry.leave(node(1), 7, now);
    assert_eq!(world.listed(), [1], "another session's end is not its end");
    world.registry.leave(node(1), 1, now);
    assert!(world.listed().is_empty());
}

#[test]
fn who_is_reported_unreachable_is_probed_at_once_and_trusted_less() {
    let mut world = World::serving();
    let (before, probed, now) = (world.standings[&node(1)].reliability, world.probed, world.now);
    let report = Report { node: node(1), unreachable: true, tried: 9, served: 1, relayed: 3_000 };
    world.registry.report(report, now);
    world.pass(1);
    assert!(world.probed > probed);
    let kept = world.registry.serving(node(1), world.now).unwrap();
    assert!(kept.history.reliability() < before && kept.history.measured == 3_000);
}

#[test]
fn only_as_many_serve_as_are_needed() {
    let mut world = World::new(&[QUIET]);
    for number in 1..=10 {
        world.add(number, Filter::Anybody);
    }
    world.pass(60);
    assert_eq!(world.listed().len(), 3);
    for number in 0..750_u16 {
        let mut id = [9; 20];
        id[..2].copy_from_slice(&number.to_be_bytes());
        let (asker, now) = (Asker { node: Some(NodeId(id)), ..Asker::default() }, world.now);
        world.registry.list(&asker, now);
    }
    world.pass(5);
    assert_eq!(world.listed().len(), 4, "one for each two hundred that ask");
}

#[test]
fn the_nearest_comes_first_and_nobody_is_told_of_itself() {
    let mut world = World::new(&[QUIET]);
    for number in 1..=3 {
        world.add(number, Filter::Anybody);
    }
    world.pass(60);
    let now = world.now;
    let asker = Asker { node: Some(node(2)), ip: Some([198, 51, 100, 9].into()), subnets: Vec::new() };
    let listed = world.registry.list(&asker, now);
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|it| it.kept.node != node(2) && it.common_bits >= 24));
}

#[test]
fn an_address_that_never_answers_gets_few_datagrams() {
    let mut world = World::new(&[QUIET]);
    world.add(1, Filter::ByAddressAndPort);
    world.pass(3_600);
    assert!(world.probed <= 30, "{} datagrams in an hour", world.probed);
}
