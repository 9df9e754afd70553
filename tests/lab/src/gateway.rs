//! A router's mind: packets from inside are translated and sent up the link, packets from outside come down the link
//! and are translated back. Pure: the shell in `router` brings packets and time, and carries out what comes due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr};

use muster_sim::model::packet::{self, Kind};
use muster_sim::model::{
    Behaviour, Dependence, Fate, Firewall, Flow, Link, Nat, Outbound, Protocol, Shape, Signal, Timeouts,
};
use muster_types::Instant;
use rand_chacha::ChaCha8Rng;

use crate::sorts::{Sort, Sorts};

/// A router's two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Inside,
    Outside,
}

/// Where name servers listen (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;

/// What a place's router lets through at all, before any translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// All but questions to name servers: whoever lets no UDP out has a server of its own inside.
    pub udp: bool,
    /// Outside TCP ports that may be reached; none is all of them.
    pub tcp_ports: Option<Vec<u16>>,
    /// Nothing passes: the router is gone.
    pub dark: bool,
}

impl Default for Passage {
    fn default() -> Self {
        Self { udp: true, tcp_ports: None, dark: false }
    }
}

/// What became of the packets that did not get through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lost by the link or its full queue.
    pub lost: u64,
    /// Refused by translator, firewall or passage, or not understood.
    pub refused: u64,
}

/// The way of a packet that has been accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// Translated, on the link to the world.
    Up,
    /// On the link from the world, to be translated at its end.
    Down,
    /// From inside back inside, translated.
    Back,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    due: Instant,
    /// Keeps the order of packets that are due at the same moment.
    number: u64,
    way: Way,
    packet: Vec<u8>,
}

/// The router's state.
#[derive(Debug)]
pub struct Gateway {
    /// The hosts' own first; none: it does not translate.
    nats: Vec<Nat>,
    firewall: Firewall,
    passage: Passage,
    up: Link,
    down: Link,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    number: u64,
    tally: Tally,
    sorts: Sorts,
    rng: ChaCha8Rng,
}

impl Gateway {
    /// A router that translates IPv4 as `nats` say, the hosts' own first, and guards IPv6 by a stateful firewall.
    pub fn new(nats: &[(Ipv4Addr, Behaviour)], rng: ChaCha8Rng) -> Self {
        Self {
            nats: nats.iter().map(|(public, behaviour)| Nat::new(*public, *behaviour)).collect(),
            firewall: Firewall::new(Dependence::AddressAndPort, Timeouts::default()),
            passage: Passage::default(),
            up: Link::new(Shape::default()),
            down: Link::new(Shape::default()),
            under_way: BinaryHeap::new(),
            number: 0,
            tally: Tally::default(),
            sorts: Sorts::new(),
            rng,
        }
    }

    /// Changes the link's two directions.
    pub fn reshape(&mut self, up: Shape, down: Shape) {
        self.up.reshape(up);
        self.down.reshape(down);
    }

    pub fn shapes(&self) -> (Shape, Shape) {
        (self.up.shape(), self.down.shape())
    }

    /// Changes what gets through at all.
    pub fn restrict(&mut self, passage: Passage) {
        self.passage = passage;
    }

    /// Changes the habits of the hosts' own translator; all its mappings are forgotten.
    pub fn behave(&mut self, behaviour: Behaviour) {
        if let Some(nat) = self.nats.first_mut() {
            *nat = Nat::new(nat.public(), behaviour);
        }
    }

    /// Forgets all mappings and states, and what was under way.
    pub fn reboot(&mut self) {
        self.nats.iter_mut().for_each(Nat::reboot);
        self.firewall.reboot();
        self.under_way.clear();
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// What came in on both sides so far, taken apart.
    pub fn sorts(&self) -> Sorts {
        self.sorts.clone()
    }

    /// A packet has come in on `side`.
    pub fn on_packet(&mut self, now: Instant, side: Side, packet: Vec<u8>) {
        self.sorts.entry(Sort::of(&packet)).or_default().add(&packet);
        if self.passage.dark || !self.passes(side, &packet) {
            self.tally.refused += 1;
            return;
        }
        let translated = match side {
            Side::Outside => Some((Way::Down, packet)),
            Side::Inside => self.translate_out(now, packet),
        };
        match translated {
            Some((way, packet)) => self.enter_link(now, way, packet),
            None => self.tally.refused += 1,
        }
    }

    /// A packet that is due, and the side on which it leaves. Call until there is none.
    pub fn poll(&mut self, now: Instant) -> Option<(Side, Vec<u8>)> {
        while self.next_due().is_some_and(|due| due <= now) {
            let Reverse(UnderWay { way, packet, .. }) = self.under_way.pop()?;
            match way {
                Way::Up => return Some((Side::Outside, packet)),
                Way::Back => return Some((Side::Inside, packet)),
                Way::Down => match self.translate_in(now, packet) {
                    Some(packet) => return Some((Side::Inside, packet)),
                    None => self.tally.refused += 1,
                },
            }
        }
        None
    }

    /// When to poll next.
    pub fn next_due(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse(under_way)| under_way.due)
    }

    fn passes(&self, side: Side, packet: &[u8]) -> bool {
        let Kind::Flow(flow, _) = packet::kind(packet) else {
            return true;
        };
        let remote = if side == Side::Inside { flow.destination } else { flow.source };
        match flow.protocol {
            Protocol::Udp => self.passage.udp || remote.port() == DNS_PORT,
            Protocol::Tcp => {
                self.passage.tcp_ports.as_ref().is_none_or(|ports| ports.contains(&remote.port()))
            }
            Protocol::Icmp => true,
        }
    }

    fn enter_link(&mut self, now: Instant, way: Way, packet: Vec<u8>) {
        let fate = match way {
            Way::Up => self.up.send(now, packet.len(), &mut self.rng),
            Way::Down => self.down.send(now, packet.len(), &mut self.rng),
            Way::Back => Fate::Arrives(now),
        };
        match fate {
            Fate::Arrives(due) => {
                self.number += 1;
                self.under_way.push(Reverse(UnderWay { due, number: self.number, way, packet }));
            }
            Fate::Lost | Fate::QueueFull => self.tally.lost += 1,
        }
    }

    fn translate_out(&mut self, now: Instant, mut packet: Vec<u8>) -> Option<(Way, Vec<u8>)> {
        let kind = packet::kind(&packet);
        if self.nats.is_empty() || !is_ipv4(&packet) {
            return self.guard_out(now, kind, &packet).then_some((Way::Up, packet));
        }
        match kind {
            Kind::Flow(flow, signal) => {
                let (way, flow) = self.flow_out(now, flow, signal)?;
                packet::rewrite(&mut packet, flow);
                Some((way, packet))
            }
            Kind::ErrorAbout(mut quoted) => {
                for nat in &mut self.nats {
                    let external = nat.outside_of(now, quoted.reversed())?;
                    quoted = Flow { destination: external, ..quoted };
                }
                let ends = (quoted.destination.ip(), quoted.source.ip());
                packet::rewrite_error(&mut packet, ends, quoted);
                Some((Way::Up, packet))
            }
            Kind::Other => None,
        }
    }

    /// Through one translator after the other, until one turns it back.
    fn flow_out(&mut self, now: Instant, mut flow: Flow, signal: Signal) -> Option<(Way, Flow)> {
        for layer in 0..self.nats.len() {
            match self.nats[layer].outbound(now, flow, signal, &mut self.rng).ok()? {
                Outbound::Forward(outer) => flow = outer,
                Outbound::Hairpin(mut back) => {
                    for nat in self.nats[..layer].iter_mut().rev() {
                        back = nat.inbound(now, back, signal).ok()?;
                    }
                    return Some((Way::Back, back));
                }
            }
        }
        Some((Way::Up, flow))
    }

    fn translate_in(&mut self, now: Instant, mut packet: Vec<u8>) -> Option<Vec<u8>> {
        let kind = packet::kind(&packet);
        if self.nats.is_empty() || !is_ipv4(&packet) {
            return self.guard_in(now, kind, &packet).then_some(packet);
        }
        let layers = self.nats.iter_mut().rev();
        match kind {
            Kind::Flow(flow, signal) => {
                let mut layers = layers;
                let flow = layers.try_fold(flow, |flow, nat| nat.inbound(now, flow, signal).ok())?;
                packet::rewrite(&mut packet, flow);
            }
            Kind::ErrorAbout(mut quoted) => {
                for nat in layers {
                    let inside = nat.inside_of(now, quoted.protocol, quoted.source)?;
                    quoted = Flow { source: inside, ..quoted };
                }
                let (reporter, _) = packet::ends(&packet)?;
                packet::rewrite_error(&mut packet, (reporter, quoted.source.ip()), quoted);
            }
            Kind::Other => return None,
        }
        Some(packet)
    }

    /// The kernel of a router without a model translates IPv4 itself; IPv6 is guarded here always.
    fn guard_out(&mut self, now: Instant, kind: Kind, packet: &[u8]) -> bool {
        match kind {
            _ if is_ipv4(packet) => true,
            Kind::Flow(flow, signal) => self.firewall.outbound(now, flow, signal).is_ok(),
            Kind::ErrorAbout(_) => true,
            Kind::Other => false,
        }
    }

    fn guard_in(&mut self, now: Instant, kind: Kind, packet: &[u8]) -> bool {
        match kind {
            _ if is_ipv4(packet) => true,
            Kind::Flow(flow, signal) => self.firewall.inbound(now, flow, signal).is_ok(),
            Kind::ErrorAbout(quoted) => {
                self.firewall.inbound(now, quoted.reversed(), Signal::Carries).is_ok()
            }
            Kind::Other => false,
        }
    }
}

fn is_ipv4(packet: &[u8]) -> bool {
    matches!(packet::ends(packet), Some((IpAddr::V4(_), _)))
}
