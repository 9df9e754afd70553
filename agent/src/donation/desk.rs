//! The relaying itself: who sits here, by which way each is reached, and what goes where.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use muster_kit::clock::BootClock;
use muster_net::sealed::Sealed;
use muster_net::{Session, TrafficClass};
use muster_overlay::relay::{Channel, End, Grant, Limits, Meeting, Relay, Seat};
use muster_proto::relay::v1::carry_request::Request;
use muster_proto::relay::v1::carry_response::Response;
use muster_proto::relay::v1::{
    CarryRequest, CarryResponse, Open, Opened, Packet, PeerGone, PeerHere, Refused, Welcome,
};
use muster_types::NodeId;
use muster_wire::relay::{
    self, AddressProof, AddressProver, Bearer, Datagram, HEADER, PACKET_BYTES, RelayTicket, UdpToken,
};
use muster_wire::time::to_wire;
use muster_wire::{gsn, session};
use tokio::sync::mpsc;

use super::{Command, Means};

/// Peers of one node at once.
const CHANNELS: u16 = 16;

/// Between two looks for tickets that have run out.
const SWEEP: Duration = Duration::from_secs(1);

pub(super) struct Desk {
    means: Means,
    boot: BootClock,
    prover: AddressProver,
    relay: Relay,
    guests: HashMap<Seat, Guest>,
}

struct Guest {
    session: Session,
    token: UdpToken,
    /// Where its packets may go by UDP, and the counter of the bind that said so.
    bound: Option<(SocketAddr, u64)>,
    /// The way by which it sent last; its packets go back by the same.
    by_udp: bool,
}

impl Desk {
    pub(super) fn new(means: Means) -> Self {
        let limits = Limits {
            seats: usize::try_from(means.config.relayed_nodes).unwrap_or(usize::MAX),
            channels: CHANNELS,
            bytes_per_second: means.config.relaying_bytes_per_second,
        };
        Self {
            means,
            boot: BootClock::new(),
            prover: AddressProver::new(&rand::random()),
            relay: Relay::new(limits),
            guests: HashMap::new(),
        }
    }

    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        mut datagrams: mpsc::Receiver<Sealed>,
    ) {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::Asked(session, asked)) => self.on_asked(&session, asked),
                    Some(Command::Closed(node)) => self.on_closed(node),
                    None => return,
                },
                Some(Sealed { from, bytes }) = datagrams.recv() => self.on_datagram(from, &bytes),
                _ = sweep.tick(), if !self.guests.is_empty() => self.sweep(),
            }
        }
    }

    fn on_asked(&mut self, session: &Session, CarryRequest { request }: CarryRequest) {
        let node = session.peer();
        let seat = self.relay.seat_of(node);
        match (request, seat) {
            (None, _) => self.sit(session),
            (Some(Request::Open(open)), Some(seat)) => self.open(seat, open),
            (Some(Request::Packet(Packet { channel, payload })), Some(seat)) => {
                if let Some(guest) = self.guests.get_mut(&seat) {
                    guest.by_udp = false;
                }
                if let Ok(channel) = u16::try_from(channel) {
                    self.carry(seat, Channel(channel), &payload);
                }
            }
            (Some(_), None) => refuse(session, Bytes::new(), "sit down first"),
        }
    }

    /// A node has one seat here; sitting down again is a new one.
    fn sit(&mut self, session: &Session) {
        if !*self.means.serving.borrow() {
            return refuse(session, Bytes::new(), "this node does not relay now");
        }
        let node = session.peer();
        self.leave(node);
        let (seat, meetings) = match self.relay.join(node) {
            Ok(joined) => joined,
            Err(refusal) => return refuse(session, Bytes::new(), &refusal.to_string()),
        };
        let token: UdpToken = rand::random();
        let guest = Guest { session: session.clone(), token, bound: None, by_udp: false };
        self.guests.insert(seat, guest);
        self.means.given.seated(self.guests.len());
        tracing::info!(peer = %node.short(), "relays for a node");
        let udp_port = u32::from(self.means.endpoint.port());
        self.tell(seat, Response::Welcome(Welcome { udp_token: Bytes::copy_from_slice(&token), udp_port }));
        meetings.into_iter().for_each(|meeting| self.introduce(meeting));
    }

    fn open(&mut self, seat: Seat, Open { peer_id, ticket }: Open) {
        let Some(guest) = self.guests.get(&seat) else { return };
        let Ok(peer) = NodeId::try_from(&peer_id[..]) else { return };
        let name = gsn::relay_name(self.means.endpoint.node());
        let bearer = Bearer {
            node: guest.session.peer(),
            certificate_serial: &guest.session.hello().ticket.certificate_serial,
            relay: &name,
            peer,
        };
        let (trust, wall) = (self.means.trust.load_full(), self.means.clock.now());
        let ticket = match RelayTicket::open(&ticket.unwrap_or_default(), &bearer, &trust, wall) {
            Ok(ticket) => ticket,
            Err(error) => return refuse(&guest.session, peer_id, &error.to_string()),
        };
        let now = self.boot.now();
        let (bytes_per_second, left) = (ticket.bytes_per_second, ticket.expires.since(wall));
        let grant = Grant { bytes_per_second, until: now + left };
        match self.relay.open(seat, peer, grant, now) {
            Ok((channel, meeting)) => {
                let (channel, peer_here) = (channel.0.into(), meeting.is_some());
                meeting.into_iter().for_each(|meeting| self.introduce(meeting));
                let expire_time = Some(to_wire(ticket.expires));
                let opened = Opened { peer_id, channel, bytes_per_second, expire_time, peer_here };
                self.tell(seat, Response::Opened(opened));
            }
            Err(refusal) => refuse(&guest.session, peer_id, &refusal.to_string()),
        }
    }

    fn carry(&mut self, from: Seat, channel: Channel, payload: &[u8]) {
        if payload.len() > PACKET_BYTES {
            return;
        }
        let to = match self.relay.carry(from, channel, payload.len(), self.boot.now()) {
            Ok(to) => to,
            Err(loss) => return tracing::trace!(reason = loss.as_str(), "a relayed packet is lost"),
        };
        self.means.given.carried(payload.len());
        match self.guests.get(&to.seat) {
            Some(Guest { bound: Some((at, _)), by_udp: true, .. }) => {
                let datagram = [&relay::header(to.channel)[..], payload].concat();
                self.means.endpoint.send_relayed(*at, &datagram);
            }
            _ => {
                let payload = Bytes::copy_from_slice(payload);
                self.tell(to.seat, Response::Packet(Packet { channel: to.channel.0.into(), payload }));
            }
        }
    }

    fn on_datagram(&mut self, from: SocketAddr, bytes: &[u8]) {
        match relay::decode(bytes) {
            Some(Datagram::Bind { token, counter, proof }) => self.bind(from, &token, counter, &proof),
            Some(Datagram::Data(channel)) => {
                let is_sender = |guest: &Guest| guest.bound.is_some_and(|(at, _)| at == from);
                let seat = self.guests.iter().find(|(_, guest)| is_sender(guest)).map(|(seat, _)| *seat);
                if let Some(seat) = seat {
                    self.carry(seat, channel, &bytes[HEADER..]);
                }
            }
            Some(Datagram::Bound { .. } | Datagram::Prove { .. }) | None => {}
        }
    }

    /// Nobody but a guest is answered, each counter once, and with less than it sent.
    fn bind(&mut self, from: SocketAddr, token: &UdpToken, counter: u64, proof: &AddressProof) {
        let guest = self.guests.values_mut().find(|guest| guest.token == *token);
        let Some(guest) = guest.filter(|it| it.bound.is_none_or(|(_, last)| counter > last)) else { return };
        let proven = self.prover.proof(token, from);
        if *proof != proven {
            return self.means.endpoint.send_relayed(from, &relay::prove(&proven));
        }
        (guest.bound, guest.by_udp) = (Some((from, counter)), true);
        self.means.endpoint.send_relayed(from, &relay::bound(counter));
    }

    fn sweep(&mut self) {
        for end in self.relay.sweep(self.boot.now()) {
            self.part(end);
        }
    }

    /// It may sit here by a newer session.
    fn on_closed(&mut self, node: NodeId) {
        let guest = self.relay.seat_of(node).and_then(|seat| self.guests.get(&seat));
        if guest.is_some_and(|guest| guest.session.is_closed()) {
            self.leave(node);
        }
    }

    fn leave(&mut self, node: NodeId) {
        let Some(seat) = self.relay.seat_of(node) else { return };
        self.guests.remove(&seat);
        for end in self.relay.leave(seat) {
            self.part(end);
        }
        self.means.given.seated(self.guests.len());
    }

    fn introduce(&self, Meeting { end, peer }: Meeting) {
        let peer_id = Bytes::copy_from_slice(peer.as_bytes());
        self.tell(end.seat, Response::PeerHere(PeerHere { peer_id, channel: end.channel.0.into() }));
    }

    fn part(&self, End { seat, channel }: End) {
        self.tell(seat, Response::PeerGone(PeerGone { channel: channel.0.into() }));
    }

    fn tell(&self, seat: Seat, response: Response) {
        if let Some(guest) = self.guests.get(&seat) {
            say(&guest.session, response);
        }
    }
}

fn refuse(session: &Session, peer_id: Bytes, reason: &str) {
    say(session, Response::Refused(Refused { peer_id, reason: reason.to_owned() }));
}

/// What finds no room is lost: packets are sent again above, and who hears no news asks again.
fn say(session: &Session, response: Response) {
    let packet = matches!(response, Response::Packet(_));
    let class = if packet { TrafficClass::Interactive } else { TrafficClass::Control };
    let encoded = session::encode_carry_response(CarryResponse { response: Some(response) });
    if encoded.is_ok_and(|bytes| session.try_send_as(class, &bytes).is_err()) {
        tracing::debug!(peer = %session.peer().short(), "lost a word to a node that is relayed for");
    }
}
