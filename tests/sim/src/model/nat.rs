//! An IPv4 address translator with the behaviours of RFC 4787 (UDP), RFC 5382 (TCP) and RFC 5508 (ICMP echo):
//! a packet from inside gets an external port, a packet from outside finds its way in or is refused.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use muster_types::Instant;
use rand::Rng;

use super::flow::{Flow, Protocol, Refusal, Signal};
use super::permits::{Permits, Refresh, Timeouts};

/// External ports handed out; lower ones belong to services.
const PORTS: std::ops::RangeInclusive<u16> = 1_024..=65_535;

/// Random ports tried before the table is searched in order.
const RANDOM_TRIES: usize = 16;

/// Dead mappings are swept at most this often.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What of the remote end a mapping or a filter depends on (RFC 4787 sections 4.1 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependence {
    /// Nothing: endpoint-independent.
    None,
    Address,
    AddressAndPort,
}

impl Dependence {
    /// All three kinds, for tables and properties.
    pub const ALL: [Self; 3] = [Self::None, Self::Address, Self::AddressAndPort];

    /// The part of `remote` that counts.
    pub(super) fn part(self, remote: SocketAddr) -> Option<SocketAddr> {
        match self {
            Self::None => None,
            Self::Address => Some(SocketAddr::new(remote.ip(), 0)),
            Self::AddressAndPort => Some(remote),
        }
    }
}

/// How external ports are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// The inside port where it is free, else the next one up.
    Preserving,
    Random,
}

/// One translator's habits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behaviour {
    pub mapping: Dependence,
    pub filtering: Dependence,
    pub ports: Ports,
    pub hairpin: bool,
    pub refresh: Refresh,
    pub timeouts: Timeouts,
}

impl Behaviour {
    /// One external port a host port, anybody may write in: "full cone".
    pub fn full_cone() -> Self {
        Self { filtering: Dependence::None, ..Self::home() }
    }

    /// Whom the host wrote to may write in, from any port: "address-restricted cone".
    pub fn address_restricted() -> Self {
        Self { filtering: Dependence::Address, ..Self::home() }
    }

    /// Most home routers: "port-restricted cone".
    pub fn home() -> Self {
        Self {
            mapping: Dependence::None,
            filtering: Dependence::AddressAndPort,
            ports: Ports::Preserving,
            hairpin: false,
            refresh: Refresh::BothWays,
            timeouts: Timeouts::default(),
        }
    }

    /// A new random port for every remote end: "symmetric".
    pub fn symmetric() -> Self {
        Self { mapping: Dependence::AddressAndPort, ports: Ports::Random, ..Self::home() }
    }
}

/// Where a packet from inside goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outbound {
    /// Out to the world, translated.
    Forward(Flow),
    /// Back inside, to the mapping that its destination named; its source is the external one (RFC 4787 REQ-9a).
    Hairpin(Flow),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    protocol: Protocol,
    inside: SocketAddr,
    remote: Option<SocketAddr>,
}

#[derive(Debug, Clone)]
struct Mapping {
    port: u16,
    permits: Permits,
}

/// The translator. Feed it every packet's flow; it answers with the translated flow or a refusal.
#[derive(Debug, Clone)]
pub struct Nat {
    public: Ipv4Addr,
    behaviour: Behaviour,
    mappings: BTreeMap<Key, Mapping>,
    by_port: HashMap<(Protocol, u16), Key>,
    next_sweep: Instant,
}

impl Nat {
    pub fn new(public: Ipv4Addr, behaviour: Behaviour) -> Self {
        Self {
            public,
            behaviour,
            mappings: BTreeMap::new(),
            by_port: HashMap::new(),
            next_sweep: Instant::ZERO,
        }
    }

    pub fn public(&self) -> Ipv4Addr {
        self.public
    }

    /// Forgets every mapping, as a reboot does.
    pub fn reboot(&mut self) {
        self.mappings.clear();
        self.by_port.clear();
    }

    /// Gives the translator a new public address; what was mapped on the old one is gone.
    pub fn renumber(&mut self, public: Ipv4Addr) {
        self.public = public;
        self.reboot();
    }

    /// A packet from inside.
    pub fn outbound(
        &mut self,
        now: Instant,
        flow: Flow,
        signal: Signal,
        rng: &mut impl Rng,
    ) -> Result<Outbound, Refusal> {
        let turns_back = flow.destination.ip() == IpAddr::V4(self.public);
        if turns_back && !self.behaviour.hairpin {
            return Err(Refusal::NoHairpin);
        }
        let key = self.key(flow.protocol, flow.source, flow.destination);
        let port = match self.mappings.get(&key) {
            Some(mapping) if mapping.permits.alive(now) => mapping.port,
            _ => self.map(now, key, rng)?,
        };
        let timeouts = self.behaviour.timeouts;
        if let Some(mapping) = self.mappings.get_mut(&key) {
            let remote = remote(flow.protocol, flow.destination);
            mapping.permits.on_outbound(now, flow.protocol, remote, signal, &timeouts);
        }
        let translated = with_source(flow, self.external(port));
        if turns_back {
            return self.inbound(now, translated, signal).map(Outbound::Hairpin);
        }
        Ok(Outbound::Forward(translated))
    }

    /// A packet from outside.
    pub fn inbound(&mut self, now: Instant, flow: Flow, signal: Signal) -> Result<Flow, Refusal> {
        let key = *self.by_port.get(&(flow.protocol, flow.destination.port())).ok_or(Refusal::NoMapping)?;
        let mapping = self.mappings.get_mut(&key).ok_or(Refusal::NoMapping)?;
        if flow.destination.ip() != IpAddr::V4(self.public) || !mapping.permits.alive(now) {
            return Err(Refusal::NoMapping);
        }
        let rules = (self.behaviour.filtering, self.behaviour.refresh, &self.behaviour.timeouts);
        let sender = remote(flow.protocol, flow.source);
        if !mapping.permits.admit_inbound(now, flow.protocol, sender, signal, rules) {
            return Err(Refusal::Filtered);
        }
        Ok(with_destination(flow, key.inside))
    }

    /// The inside end of a mapping as the outside sees it, without prolonging anything (for ICMP errors).
    pub fn inside_of(&self, now: Instant, protocol: Protocol, external: SocketAddr) -> Option<SocketAddr> {
        let key = self.by_port.get(&(protocol, external.port()))?;
        let alive = self.mappings.get(key)?.permits.alive(now);
        (alive && external.ip() == IpAddr::V4(self.public)).then_some(key.inside)
    }

    /// The external end of an inside port towards `remote`, without prolonging anything (for ICMP errors).
    pub fn outside_of(&self, now: Instant, flow: Flow) -> Option<SocketAddr> {
        let mapping = self.mappings.get(&self.key(flow.protocol, flow.source, flow.destination))?;
        mapping.permits.alive(now).then(|| self.external(mapping.port))
    }

    fn key(&self, protocol: Protocol, inside: SocketAddr, remote: SocketAddr) -> Key {
        Key { protocol, inside, remote: self.behaviour.mapping.part(self::remote(protocol, remote)) }
    }

    fn external(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.public), port)
    }

    fn map(&mut self, now: Instant, key: Key, rng: &mut impl Rng) -> Result<u16, Refusal> {
        if now >= self.next_sweep {
            self.sweep(now);
        }
        let port = self.free_port(now, &key, rng).ok_or(Refusal::TableFull)?;
        if let Some(before) = self.by_port.insert((key.protocol, port), key) {
            self.mappings.remove(&before);
        }
        if let Some(before) = self.mappings.insert(key, Mapping { port, permits: Permits::default() }) {
            self.release(key, before.port, port);
        }
        Ok(port)
    }

    fn free_port(&self, now: Instant, key: &Key, rng: &mut impl Rng) -> Option<u16> {
        let free = |port: &u16| match self.by_port.get(&(key.protocol, *port)) {
            Some(holder) => !self.mappings.get(holder).is_some_and(|mapping| mapping.permits.alive(now)),
            None => true,
        };
        let first = match self.behaviour.ports {
            Ports::Preserving => key.inside.port().max(*PORTS.start()),
            Ports::Random => {
                let mut drawn = (0..RANDOM_TRIES).map(|_| rng.random_range(PORTS));
                match drawn.find(|port| free(port)) {
                    Some(port) => return Some(port),
                    None => rng.random_range(PORTS),
                }
            }
        };
        (first..=*PORTS.end()).chain(*PORTS.start()..first).find(|port| free(port))
    }

    /// A remapped key leaves its old port, unless it was given the same one again.
    fn release(&mut self, key: Key, old: u16, new: u16) {
        if old != new {
            self.by_port.remove(&(key.protocol, old));
        }
    }

    fn sweep(&mut self, now: Instant) {
        let by_port = &mut self.by_port;
        self.mappings.retain(|key, mapping| {
            let alive = mapping.permits.alive(now);
            if !alive {
                by_port.remove(&(key.protocol, mapping.port));
            }
            alive
        });
        self.next_sweep = now + SWEEP_EVERY;
    }
}

/// The remote end as mappings and filters know it: an echo's identifier belongs to the sender alone.
fn remote(protocol: Protocol, end: SocketAddr) -> SocketAddr {
    match protocol {
        Protocol::Icmp => SocketAddr::new(end.ip(), 0),
        Protocol::Udp | Protocol::Tcp => end,
    }
}

/// An echo has one identifier where the others have two ports: translating one end changes both.
fn with_source(flow: Flow, source: SocketAddr) -> Flow {
    let mut translated = Flow { source, ..flow };
    if flow.protocol == Protocol::Icmp {
        translated.destination.set_port(source.port());
    }
    translated
}

fn with_destination(flow: Flow, destination: SocketAddr) -> Flow {
    with_source(flow.reversed(), destination).reversed()
}

#[cfg(test)]
mod tests;
