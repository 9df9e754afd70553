//! The local network and the sessions on it: handshakes of three flights, ordered messages sent again until they
//! arrive or the session has been idle for too long, and datagrams that are simply lost.

use std::net::SocketAddr;
use std::time::Duration;

use muster_overlay::Input;
use muster_overlay::message::{Beat, Discovery, Message, Seal};
use muster_types::{Contact, Instant, NodeId, Version};

use super::host::SessionEnd;
use super::{Event, HostId, Life, PlaceId, Served, World, address, cost, host_at};
use crate::model::link::Fate;

/// First repetition of a handshake's flight: QUIC's initial probe time-out (RFC 9002, 6.2.2).
const HANDSHAKE_REPEAT: Duration = Duration::from_millis(999);
/// A handshake that has not come through by then has failed.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(3);
/// A TCP connection to a port that nobody listens to.
const REFUSAL: Duration = Duration::from_millis(2);
/// First repetition of a message: a LAN's round trip, its variance, and the peer's 25 ms of delayed acknowledgement.
const REPEAT: Duration = Duration::from_millis(40);
/// A session without a sign of its peer for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// Repetitions of what was sent before a close.
const LAST_TRIES: u32 = 3;

/// Something on its way from one host to another.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) from: HostId,
    pub(crate) from_boot: u32,
    pub(crate) to: HostId,
    pub(crate) place: PlaceId,
    pub(crate) bytes: usize,
    pub(crate) first_sent: Instant,
    pub(crate) tries: u32,
    pub(crate) parcel: Parcel,
}

#[derive(Debug, Clone)]
pub(crate) enum Parcel {
    Discovery {
        from: SocketAddr,
        discovery: Discovery,
    },
    Handshake {
        id: u64,
        flight: Flight,
    },
    /// `None` closes the session.
    Message {
        session: u64,
        number: u64,
        message: Option<Message>,
    },
    Beat {
        session: u64,
        beat: Beat,
    },
    /// The list of revoked hosts, from where the other knows it.
    Revocations {
        session: u64,
        up_to: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flight {
    Hello,
    Answer,
    Finish,
}

impl Parcel {
    fn is_reliable(&self) -> bool {
        matches!(self, Self::Handshake { .. } | Self::Message { .. } | Self::Revocations { .. })
    }
}

impl World {
    pub(super) fn open(&mut self, from: HostId, contact: &Contact) {
        let to = self.by_id.get(&contact.node).copied();
        if let Some(to) = to.filter(|to| self.hosts[from].sessions.contains_key(to)) {
            let opened = self.opened(to);
            return self.locally(from, Duration::ZERO, opened);
        }
        let target = contact.addresses.first().and_then(muster_types::Address::udp).and_then(host_at);
        let Some((_, to)) = target.filter(|&(place, to)| {
            place == self.hosts[from].place && self.hosts.get(to).is_some_and(|host| host.id == contact.node)
        }) else {
            return self.locally(from, HANDSHAKE_LIMIT, Input::OpenFailed { peer: contact.node });
        };
        if self.hosts[to].refuses && self.hosts[from].segment == self.hosts[to].segment {
            return self.locally(from, REFUSAL, Input::OpenFailed { peer: contact.node });
        }
        if self.handshakes.contains_key(&(from, to)) {
            return;
        }
        self.made += 1;
        let id = self.made;
        self.handshakes.insert((from, to), id);
        let boot = self.hosts[from].boot;
        let (limit, place) = (self.now() + HANDSHAKE_LIMIT, self.hosts[from].place);
        self.later(place, limit, Event::HandshakeLimit { host: from, boot, place, peer: to, id });
        self.dispatch(from, to, Parcel::Handshake { id, flight: Flight::Hello });
    }

    /// One packet there and one back, by the same network: if both arrive, the session is as good as a new one.
    pub(super) fn probe(&mut self, from: HostId, contact: &Contact) {
        let Some(&to) = self.by_id.get(&contact.node) else { return };
        let frozen = self.hosts[to].frozen_until > self.now() || self.hosts[to].blocked;
        if frozen || !self.can_hear(from, to) || !self.hosts[from].sessions.contains_key(&to) {
            return;
        }
        let (mut at, bytes) = (self.now(), cost::HANDSHAKE[0]);
        for (a, b) in [(from, to), (to, from)] {
            self.measure.message(a, "probe", bytes, at);
            for up in [true, false] {
                let link = if up { &mut self.hosts[a].up } else { &mut self.hosts[b].down };
                let Fate::Arrives(then) = link.send(at, bytes, &mut self.rng) else { return };
                at = then;
            }
        }
        let (after, opened) = (at.since(self.now()), self.opened(to));
        self.locally(from, after, opened);
    }

    pub(super) fn close(&mut self, from: HostId, peer: NodeId) {
        let Some(&to) = self.by_id.get(&peer) else { return };
        self.handshakes.remove(&(from, to));
        if let Some(end) = self.hosts[from].sessions.remove(&to) {
            let parcel = Parcel::Message { session: end.id, number: end.sent, message: None };
            self.dispatch(from, to, parcel);
        }
    }

    pub(super) fn send(&mut self, from: HostId, peer: NodeId, mut message: Message) {
        let Some(&to) = self.by_id.get(&peer) else { return };
        if let Message::Join(join) = &mut message {
            join.attach.seal = sealed(self.hosts[from].id, self.now());
        }
        if !matches!(message, Message::Ping(_) | Message::Pong(_)) {
            self.stir(self.hosts[from].place);
        }
        if let Message::Claim(claim) = &message {
            let named = claim.successor.filter(|_| claim.claimant.node == self.hosts[from].id);
            self.measure.handed.extend(named.map(|_| (claim.lineage, claim.epoch)));
        }
        let Some(end) = self.hosts[from].sessions.get_mut(&to) else { return };
        let (session, number) = (end.id, end.sent);
        end.sent += 1;
        let (now, bytes) = (self.now(), cost::message(&message) + cost::ACK);
        self.measure.message(from, cost::kind(&message), bytes, now);
        self.dispatch(from, to, Parcel::Message { session, number, message: Some(message) });
    }

    pub(super) fn send_beat(&mut self, from: HostId, peer: NodeId, beat: Beat) {
        let Some(&to) = self.by_id.get(&peer) else { return };
        let Some(session) = self.hosts[from].sessions.get(&to).map(|end| end.id) else { return };
        self.measure.message(from, "beat", cost::BEAT + cost::ACK, self.clock.now());
        self.dispatch(from, to, Parcel::Beat { session, beat });
    }

    pub(super) fn multicast(&mut self, from: HostId, discovery: &Discovery) {
        let place = self.hosts[from].place;
        if matches!(discovery, Discovery::Query(_)) {
            self.stir(place);
        }
        self.measure.message(from, "multicast", cost::discovery(discovery), self.clock.now());
        if !self.datagrams {
            return;
        }
        let members: Vec<_> = self.places[place].members.iter().copied().collect();
        for to in members.into_iter().filter(|&to| to != from) {
            if self.hosts[to].is_running() {
                self.send_discovery(from, to, discovery);
            }
        }
    }

    pub(super) fn unicast(&mut self, from: HostId, to: SocketAddr, discovery: &Discovery) {
        let now = self.stir(self.hosts[from].place);
        self.measure.message(from, "discovery answer", cost::discovery(discovery), now);
        let here = host_at(to).filter(|&(place, to)| {
            place == self.hosts[from].place && to < self.hosts.len() && self.datagrams
        });
        if let Some((_, to)) = here {
            self.send_discovery(from, to, discovery);
        }
    }

    fn send_discovery(&mut self, from: HostId, to: HostId, discovery: &Discovery) {
        let source = address(self.hosts[from].place, from);
        self.dispatch(from, to, Parcel::Discovery { from: source, discovery: discovery.clone() });
    }

    pub(super) fn dispatch(&mut self, from: HostId, to: HostId, parcel: Parcel) {
        let bytes = match &parcel {
            Parcel::Discovery { discovery, .. } => cost::discovery(discovery),
            Parcel::Handshake { flight, .. } => {
                let bytes = cost::HANDSHAKE[*flight as usize];
                let now = self.stir(self.hosts[from].place);
                self.measure.message(from, "handshake", bytes, now);
                bytes
            }
            Parcel::Message { message, .. } => message.as_ref().map_or(cost::PACKET + 4, cost::message),
            Parcel::Beat { .. } => cost::BEAT,
            Parcel::Revocations { .. } => cost::REVOCATIONS,
        };
        let from_boot = self.hosts[from].boot;
        let (first_sent, place) = (self.now(), self.hosts[from].place);
        self.transmit(Arrival { from, from_boot, to, place, bytes, first_sent, tries: 0, parcel });
    }

    /// Puts a parcel on the network; it arrives, or is sent again if it is of the kind.
    fn transmit(&mut self, arrival: Arrival) {
        let now = self.now();
        let Arrival { from, to, bytes, .. } = arrival;
        if !self.can_hear(from, to) || self.keeps_out(to, from, &arrival.parcel) {
            return self.lose(arrival);
        }
        let fate = self.hosts[from].up.send(now, bytes, &mut self.rng);
        let Fate::Arrives(switched) = fate else { return self.lose(arrival) };
        match self.hosts[to].down.send(switched, bytes, &mut self.rng) {
            Fate::Arrives(at) => self.later(arrival.place, at, Event::Arrive(Box::new(arrival))),
            Fate::Lost | Fate::QueueFull => self.lose(arrival),
        }
    }

    fn lose(&mut self, mut arrival: Arrival) {
        if arrival.parcel.is_reliable() {
            let first =
                if matches!(arrival.parcel, Parcel::Handshake { .. }) { HANDSHAKE_REPEAT } else { REPEAT };
            let after = first.saturating_mul(1 << arrival.tries.min(5));
            arrival.tries += 1;
            self.later(arrival.place, self.now() + after, Event::Retry(Box::new(arrival)));
        }
    }

    pub(super) fn on_retry(&mut self, arrival: Arrival) {
        let Arrival { from, to, .. } = arrival;
        let sender = &self.hosts[from];
        if sender.boot != arrival.from_boot || sender.life == Life::Dead {
            return;
        }
        let idle = self.now().since(arrival.first_sent) > IDLE;
        match &arrival.parcel {
            Parcel::Handshake { id, flight } => {
                // Only while its opener still waits; the opener's last flight while the session lives.
                let waits = match flight {
                    Flight::Hello => self.handshakes.get(&(from, to)) == Some(id),
                    Flight::Answer => self.handshakes.get(&(to, from)) == Some(id),
                    Flight::Finish => sender.sessions.get(&to).is_some_and(|end| end.id == *id),
                };
                if waits && !idle {
                    self.transmit(arrival);
                }
            }
            Parcel::Message { session, .. } => {
                let open = sender.sessions.get(&to).is_some_and(|end| end.id == *session);
                if open && idle {
                    self.hosts[from].sessions.remove(&to);
                    let peer = self.hosts[to].id;
                    self.locally(from, Duration::ZERO, Input::Closed { peer });
                } else if open || arrival.tries <= LAST_TRIES {
                    self.transmit(arrival);
                }
            }
            Parcel::Revocations { session, .. } => {
                if sender.sessions.get(&to).is_some_and(|end| end.id == *session) && !idle {
                    self.transmit(arrival);
                }
            }
            Parcel::Discovery { .. } | Parcel::Beat { .. } => {}
        }
    }

    pub(super) fn on_arrival(&mut self, arrival: Arrival) {
        let Arrival { from, to, .. } = arrival;
        if !self.can_hear(from, to) {
            return self.lose(arrival);
        }
        if self.hosts[to].frozen_until > self.now() {
            let at = self.hosts[to].frozen_until;
            return self.later(arrival.place, at, Event::Arrive(Box::new(arrival)));
        }
        match arrival.parcel {
            Parcel::Discovery { from: source, discovery } => {
                self.note("discovery", to, from as u64);
                self.input(to, Input::Heard { from: source, discovery });
            }
            // Who is revoked comes no further than the handshake with whoever knows it.
            Parcel::Handshake { .. } if self.bars(to, from) => {}
            Parcel::Handshake { id, flight } => self.on_handshake(arrival, id, flight),
            Parcel::Revocations { session, up_to } => {
                if self.hosts[to].sessions.get(&from).is_some_and(|end| end.id == session) {
                    self.hear_of_revocations(to, Some(from), up_to);
                }
            }
            Parcel::Message { session, number, ref message } => {
                let message = message.clone();
                self.on_numbered(arrival, session, number, message);
            }
            Parcel::Beat { session, beat } => {
                if self.hosts[to].sessions.get(&from).is_some_and(|end| end.id == session) {
                    self.note("beat", to, from as u64);
                    if !beat.answer {
                        self.served[to] = Some(Served { by: from, at: self.now() });
                    }
                    let from = self.hosts[from].id;
                    self.input(to, Input::BeatReceived { from, beat });
                }
            }
        }
    }

    fn on_handshake(&mut self, arrival: Arrival, id: u64, flight: Flight) {
        let Arrival { from, to, .. } = arrival;
        match flight {
            // Both open at once: the lower one's handshake counts.
            Flight::Hello if self.handshakes.contains_key(&(to, from)) && to < from => self.lose(arrival),
            Flight::Hello => self.dispatch(to, from, Parcel::Handshake { id, flight: Flight::Answer }),
            Flight::Answer if self.handshakes.get(&(to, from)) == Some(&id) => {
                self.handshakes.remove(&(to, from));
                self.establish(to, from, id);
                self.dispatch(to, from, Parcel::Handshake { id, flight: Flight::Finish });
            }
            Flight::Answer => {}
            Flight::Finish => {
                // The opener may have thought better of it meanwhile.
                if self.hosts[from].sessions.get(&to).is_some_and(|end| end.id == id) {
                    self.handshakes.remove(&(to, from));
                    self.establish(to, from, id);
                }
            }
        }
    }

    fn establish(&mut self, host: HostId, peer: HostId, id: u64) {
        self.note("session", host, peer as u64);
        self.hosts[host].sessions.insert(peer, SessionEnd { id, ..SessionEnd::default() });
        let opened = self.opened(peer);
        self.input(host, opened);
        self.pass_on(host, peer);
    }

    fn opened(&self, peer: HostId) -> Input {
        let observed = Some(address(self.hosts[peer].place, peer));
        let version = Version { major: 1, minor: 0, patch: 0 };
        Input::Opened { peer: self.hosts[peer].id, version, observed }
    }

    pub(super) fn on_handshake_limit(&mut self, host: HostId, boot: u32, peer: HostId, id: u64) {
        if self.handshakes.get(&(host, peer)) == Some(&id) {
            self.handshakes.remove(&(host, peer));
            if self.hosts[host].boot == boot {
                let peer = self.hosts[peer].id;
                self.locally(host, Duration::ZERO, Input::OpenFailed { peer });
            }
        }
    }

    /// Messages are handed up in the order in which they were sent.
    fn on_numbered(&mut self, arrival: Arrival, session: u64, number: u64, message: Option<Message>) {
        let Arrival { from, to, .. } = arrival;
        let Some(end) = self.hosts[to].sessions.get_mut(&from).filter(|end| end.id == session) else {
            return self.lose(arrival);
        };
        end.early.insert(number, message);
        loop {
            let Some(end) = self.hosts[to].sessions.get_mut(&from).filter(|end| end.id == session) else {
                return;
            };
            let next = end.received;
            let Some(message) = end.early.remove(&next) else { return };
            end.received += 1;
            self.hand_up(from, to, message);
        }
    }

    fn hand_up(&mut self, from: HostId, to: HostId, message: Option<Message>) {
        let peer = self.hosts[from].id;
        let Some(message) = message else {
            self.note("closed", to, from as u64);
            self.hosts[to].sessions.remove(&from);
            return self.input(to, Input::Closed { peer });
        };
        self.note(cost::kind(&message), to, from as u64);
        let served = match &message {
            Message::Accepted(_) => true,
            Message::Pong(pong) => pong.lsn.is_none(),
            _ => false,
        };
        if served {
            self.served[to] = Some(Served { by: from, at: self.now() });
        }
        self.input(to, Input::Received { from: peer, message });
    }

    /// Same place, same segment, both awake.
    pub(crate) fn can_hear(&self, from: HostId, to: HostId) -> bool {
        let (a, b) = (&self.hosts[from], &self.hosts[to]);
        (a.place, a.segment) == (b.place, b.segment) && b.is_running()
    }
}

/// As a real node dates and signs its attach on the way out: nobody else can.
fn sealed(node: NodeId, now: Instant) -> Seal {
    let mut bytes = now.elapsed().as_micros().to_be_bytes().to_vec();
    bytes.extend(node.as_bytes());
    Seal::new(bytes)
}
