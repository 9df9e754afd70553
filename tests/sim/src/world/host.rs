//! A simulated host: the machine under test, what the host itself is like, and its end of every session.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use muster_kit::backoff::Backoff;
use muster_overlay::input::Network;
use muster_overlay::message::Message;
use muster_overlay::standing::{Standing, Uptime};
use muster_overlay::{Claim, Config, Node};
use muster_types::limits::DEFAULT_PORT;
use muster_types::{Address, Instant, NodeId, Prefix, SubnetKey, Version};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::Lie;
use crate::model::Link;

/// Index of a host in its world.
pub type HostId = usize;
/// Index of a place in its world.
pub type PlaceId = usize;

/// LSNs that a host remembers; the shell's own bound.
const REMEMBERED: usize = 8;

/// What the world knows of a host, whatever its machine believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Running,
    Asleep,
    /// Killed, without a word.
    Dead,
    /// It said goodbye.
    Left,
}

/// One end of a session.
#[derive(Debug, Default)]
pub(crate) struct SessionEnd {
    pub(crate) id: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Came before what was sent before them; `None` closes the session.
    pub(crate) early: BTreeMap<u64, Option<Message>>,
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) id: NodeId,
    pub(crate) machine: Node,
    pub(crate) lie: Option<Lie>,
    /// How long its place's clock has stood still while it was there: its machine does not know.
    pub(crate) rested: Duration,
    pub(crate) life: Life,
    pub(crate) since: Instant,
    pub(crate) place: PlaceId,
    /// Hosts of one place in different segments do not hear each other.
    pub(crate) segment: u8,
    /// Rises with every start: what was on the way to the one before is lost.
    pub(crate) boot: u32,
    /// Its process does not run until then; what arrives waits.
    pub(crate) frozen_until: Instant,
    /// No process, but a system that says so to who comes by TCP.
    pub(crate) refuses: bool,
    /// Its firewall lets in only what this host has asked for.
    pub(crate) blocked: bool,
    pub(crate) up: Link,
    pub(crate) down: Link,
    pub(crate) sessions: BTreeMap<HostId, SessionEnd>,
    pub(crate) remembered: Vec<(PlaceId, Claim)>,
    pub(crate) wake_at: Option<Instant>,
    pub(crate) standing: Standing,
    pub(crate) uptime: Uptime,
    /// What the machine last asked of the control channel.
    pub(crate) wants_master: Option<Option<Claim>>,
    pub(crate) attempt: u64,
    pub(crate) backoff: Backoff,
    /// The master asked it not to come back sooner.
    pub(crate) not_before: Instant,
}

impl Host {
    pub(crate) fn new(place: PlaceId, link: Link, rng: &mut ChaCha8Rng) -> Self {
        let id = NodeId(rng.random());
        let steady = rng.random_bool(0.6);
        let standing = Standing { wired: steady, mains_powered: steady || rng.random_bool(0.5) };
        let uptime = Uptime(rng.random_range(0..=10_000));
        Self {
            id,
            machine: Node::new(config(id, uptime)),
            lie: None,
            rested: Duration::ZERO,
            life: Life::Dead,
            since: Instant::ZERO,
            place,
            segment: 0,
            boot: 0,
            frozen_until: Instant::ZERO,
            refuses: false,
            blocked: false,
            up: link.clone(),
            down: link,
            sessions: BTreeMap::new(),
            remembered: Vec::new(),
            wake_at: None,
            standing,
            uptime,
            wants_master: None,
            attempt: 0,
            backoff: Backoff::new(),
            not_before: Instant::ZERO,
        }
    }

    /// A new process on this host, with what it had on disk.
    pub(crate) fn boot(&mut self, now: Instant) {
        self.machine = Node::new(config(self.id, self.uptime));
        self.halt(Life::Running, now);
        self.boot += 1;
    }

    /// The process ends; its sessions are gone without a word.
    pub(crate) fn halt(&mut self, life: Life, now: Instant) {
        (self.life, self.since) = (life, now);
        self.sessions.clear();
        self.wake_at = None;
        self.wants_master = None;
        self.frozen_until = Instant::ZERO;
        self.refuses = false;
    }

    pub(crate) fn is_running(&self) -> bool {
        self.life == Life::Running
    }

    pub(crate) fn network(&self, own: HostId) -> Network {
        let address = address(self.place, own);
        Network {
            addresses: vec![Address {
                ip: address.ip(),
                udp_port: Some(address.port()),
                tcp_port: Some(address.port()),
            }],
            prefixes: vec![Prefix::of(address.ip(), 96)],
            gateway: Some(gateway(self.place)),
            standing: self.standing,
        }
    }

    pub(crate) fn remember(&mut self, claim: Claim) {
        self.remembered.retain(|(_, known)| known.claimant.node != claim.claimant.node);
        self.remembered.insert(0, (self.place, claim));
        self.remembered.truncate(REMEMBERED);
    }

    pub(crate) fn recall(&self) -> Vec<Claim> {
        let here = |(place, _): &&(PlaceId, Claim)| *place == self.place;
        self.remembered.iter().filter(here).map(|(_, claim)| claim.clone()).collect()
    }
}

fn config(node: NodeId, uptime: Uptime) -> Config {
    let version = Version { major: 1, minor: 0, patch: 0 };
    Config { node, version, minimum_version: Version::default(), uptime, subnet_keys: Vec::new() }
}

/// fd00::place:host, 32 bits each.
pub(crate) fn address(place: PlaceId, host: HostId) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from_bits(network(place) | (host as u128 + 2))), DEFAULT_PORT)
}

/// The host that has an address, and where it had it.
pub(crate) fn host_at(address: SocketAddr) -> Option<(PlaceId, HostId)> {
    let IpAddr::V6(ip) = address.ip() else { return None };
    let bits = ip.to_bits();
    let host = (bits as u32 as usize).checked_sub(2)?;
    Some(((bits >> 32) as u32 as usize, host))
}

fn gateway(place: PlaceId) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(network(place) | 1))
}

fn network(place: PlaceId) -> u128 {
    0xfd00_u128 << 112 | (place as u128) << 32
}

/// As the master derives it for every host of a place.
pub(crate) fn subnet_key(place: PlaceId) -> SubnetKey {
    let mut key = SubnetKey([0xcc; 20]);
    key.0[..8].copy_from_slice(&(place as u64).to_be_bytes());
    key
}
