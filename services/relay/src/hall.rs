//! Where the sessions meet: the machine that decides, and for each seat its way out. Whoever brings a packet, a gRPC
//! stream or the UDP socket, takes it through here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use muster_kit::clock::BootClock;
use muster_kit::shutdown::Shutdown;
use muster_net::BurstSocket;
use muster_overlay::relay::{Channel, End, Grant, Limits, Meeting, Refusal, Relay, Seat};
use muster_types::{Instant, NodeId};
use muster_wire::relay::{AddressProof, AddressProver, UdpToken, header};

use crate::metrics;
use crate::outbox::Outbox;
use crate::session::GRACE;

/// Between two looks for tickets that have run out.
const SWEEP: Duration = Duration::from_secs(1);

/// Between two looks, at the end, whether somebody is still here.
const LOOK: Duration = Duration::from_millis(50);

/// What a session is told besides packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    Opened { peer: NodeId, channel: Channel, grant: Grant, here: bool },
    Refused { peer: NodeId, reason: String },
    PeerHere { peer: NodeId, channel: Channel },
    PeerGone(Channel),
    Restarting,
}

/// Why an address is not a session's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unbound {
    Refused,
    /// To be told at that address.
    Unproven(AddressProof),
}

pub(crate) struct Hall {
    clock: BootClock,
    prover: AddressProver,
    socket: Option<Arc<BurstSocket>>,
    floor: Mutex<Floor>,
}

/// What one lock holds.
struct Floor {
    relay: Relay,
    guests: HashMap<Seat, Guest>,
    by_token: HashMap<UdpToken, Seat>,
    by_address: HashMap<SocketAddr, Seat>,
}

struct Guest {
    node: NodeId,
    /// Of the certificate that it came with.
    serial: Bytes,
    outbox: Arc<Outbox<News>>,
    token: UdpToken,
    /// Where its packets go by UDP, and the counter of the bind that said so.
    bound: Option<(SocketAddr, u64)>,
    /// It has not sent by its stream since: a node that is bound does so only where UDP fails.
    by_udp: bool,
}

/// A node's place in the hall; dropping it leaves.
pub(crate) struct Stay {
    hall: Arc<Hall>,
    pub(crate) seat: Seat,
    pub(crate) token: UdpToken,
    pub(crate) outbox: Arc<Outbox<News>>,
}

impl Hall {
    pub(crate) fn new(limits: Limits, socket: Option<Arc<BurstSocket>>) -> Self {
        let floor = Floor {
            relay: Relay::new(limits),
            guests: HashMap::new(),
            by_token: HashMap::new(),
            by_address: HashMap::new(),
        };
        let prover = AddressProver::new(&rand::random());
        Self { clock: BootClock::new(), prover, socket, floor: Mutex::new(floor) }
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// The port of bind datagrams; 0: none.
    pub(crate) fn udp_port(&self) -> u16 {
        self.socket.as_ref().and_then(|socket| socket.local_addr().ok()).map_or(0, |address| address.port())
    }

    fn lock(&self) -> MutexGuard<'_, Floor> {
        self.floor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes once nobody sits here.
    pub(crate) async fn emptied(&self) {
        while self.lock().relay.seats() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Seats a node. Its older session, if there is one, ends.
    ///
    /// # Errors
    /// The relay is full.
    pub(crate) fn enter(
        self: &Arc<Self>,
        node: NodeId,
        serial: Bytes,
        token: UdpToken,
    ) -> Result<Stay, Refusal> {
        let mut floor = self.lock();
        if let Some(old) = floor.relay.seat_of(node) {
            floor.leave(old);
        }
        let (seat, meetings) = floor.relay.join(node)?;
        let outbox = Arc::new(Outbox::new());
        floor
            .guests
            .insert(seat, Guest { node, serial, outbox: outbox.clone(), token, bound: None, by_udp: false });
        floor.by_token.insert(token, seat);
        for meeting in meetings {
            floor.introduce(meeting);
        }
        metrics::seated(floor.relay.seats(), floor.relay.pairs());
        Ok(Stay { hall: self.clone(), seat, token, outbox })
    }

    /// Ends the sessions of these nodes.
    pub(crate) fn expel(&self, whom: impl Fn(NodeId, &[u8]) -> bool) {
        let mut floor = self.lock();
        let guests = floor.guests.iter().filter(|(_, guest)| whom(guest.node, &guest.serial));
        for (seat, node) in guests.map(|(seat, guest)| (*seat, guest.node)).collect::<Vec<_>>() {
            tracing::info!(node = %node.short(), "a node that is not admitted any more loses its seat");
            floor.leave(seat);
        }
    }

    /// Opens a channel, and tells both ends.
    pub(crate) fn open(&self, seat: Seat, peer: NodeId, grant: Grant) {
        let mut floor = self.lock();
        let news = match floor.relay.open(seat, peer, grant, self.now()) {
            Ok((channel, meeting)) => {
                let here = meeting.is_some();
                if let Some(meeting) = meeting {
                    floor.introduce(meeting);
                }
                metrics::seated(floor.relay.seats(), floor.relay.pairs());
                News::Opened { peer, channel, grant, here }
            }
            Err(refusal) => News::Refused { peer, reason: refusal.to_string() },
        };
        floor.tell(seat, news);
    }

    /// A packet that came by gRPC.
    pub(crate) fn carry(&self, from: Seat, channel: Channel, packet: Bytes) {
        let mut floor = self.lock();
        if let Some(guest) = floor.guests.get_mut(&from) {
            guest.by_udp = false;
        }
        let decided = floor.relay.carry(from, channel, packet.len(), self.now());
        let to = match decided {
            Ok(to) => to,
            Err(loss) => return metrics::lost(loss, 1),
        };
        metrics::carried(metrics::Way::Stream, 1, packet.len());
        match (floor.address(to.seat), &self.socket) {
            (Some(address), Some(socket)) => {
                drop(floor);
                let datagram = [&header(to.channel)[..], &packet].concat();
                socket.send(address, &datagram, datagram.len());
            }
            _ => floor.hand(to, packet),
        }
    }

    /// Who sends from this address.
    pub(crate) fn sender(&self, from: SocketAddr) -> Option<Seat> {
        self.lock().by_address.get(&from).copied()
    }

    /// Decides about one datagram's payload: where its burst goes by UDP, or, handed on by gRPC, nowhere.
    pub(crate) fn route(
        &self,
        from: Seat,
        channel: Channel,
        payload: &[u8],
    ) -> Option<(SocketAddr, Channel)> {
        let mut floor = self.lock();
        match floor.relay.carry(from, channel, payload.len(), self.now()) {
            Ok(to) => {
                let address = floor.address(to.seat);
                if address.is_none() {
                    floor.hand(to, Bytes::copy_from_slice(payload));
                }
                address.map(|address| (address, to.channel))
            }
            Err(loss) => {
                metrics::lost(loss, 1);
                None
            }
        }
    }

    /// Lets a session's packets go to this address.
    ///
    /// # Errors
    /// The token is no session's, the counter an old one, the address another's, or whoever asks has not heard there yet.
    pub(crate) fn bind(
        &self,
        token: &UdpToken,
        counter: u64,
        proof: &AddressProof,
        address: SocketAddr,
    ) -> Result<(), Unbound> {
        let mut floor = self.lock();
        let seat = *floor.by_token.get(token).ok_or(Unbound::Refused)?;
        let is_anothers = floor.by_address.get(&address).is_some_and(|other| *other != seat);
        let guest = floor.guests.get_mut(&seat).ok_or(Unbound::Refused)?;
        if is_anothers || guest.bound.is_some_and(|(_, last)| counter <= last) {
            return Err(Unbound::Refused);
        }
        let proven = self.prover.proof(token, address);
        if *proof != proven {
            return Err(Unbound::Unproven(proven));
        }
        let former = guest.bound.replace((address, counter));
        guest.by_udp = true;
        if let Some((former, _)) = former {
            floor.by_address.remove(&former);
        }
        floor.by_address.insert(address, seat);
        Ok(())
    }
}

impl Floor {
    fn tell(&self, seat: Seat, news: News) {
        if let Some(guest) = self.guests.get(&seat) {
            guest.outbox.tell(news);
        }
    }

    fn introduce(&self, Meeting { end, peer }: Meeting) {
        self.tell(end.seat, News::PeerHere { peer, channel: end.channel });
    }

    fn address(&self, seat: Seat) -> Option<SocketAddr> {
        let guest = self.guests.get(&seat).filter(|guest| guest.by_udp)?;
        Some(guest.bound?.0)
    }

    fn hand(&self, to: End, packet: Bytes) {
        let Some(guest) = self.guests.get(&to.seat) else { return };
        if !guest.outbox.carry(to.channel, packet) {
            metrics::overflowed();
        }
    }

    /// Tells everybody; sessions that carry for nobody are over at once.
    fn begin_to_end(&self) {
        for (seat, guest) in &self.guests {
            guest.outbox.tell(News::Restarting);
            if !self.relay.is_at_work(*seat) {
                guest.outbox.close();
            }
        }
    }

    fn leave(&mut self, seat: Seat) {
        for end in self.relay.leave(seat) {
            self.tell(end.seat, News::PeerGone(end.channel));
        }
        let Some(guest) = self.guests.remove(&seat) else { return };
        self.by_token.remove(&guest.token);
        if let Some((address, _)) = guest.bound {
            self.by_address.remove(&address);
        }
        guest.outbox.close();
        metrics::seated(self.relay.seats(), self.relay.pairs());
    }
}

impl Stay {
    /// Leaves now, whatever still holds the stay: an answer that a client does not read does.
    pub(crate) fn end(&self) {
        self.hall.lock().leave(self.seat);
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.end();
    }
}

/// Ends what has run out; at the shutdown, tells everybody and gives those that are at work time to move.
pub(crate) async fn tend(hall: Arc<Hall>, shutdown: Shutdown) {
    let mut due = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = shutdown.triggered() => break,
            _ = due.tick() => {}
        }
        let mut floor = hall.lock();
        for end in floor.relay.sweep(hall.now()) {
            floor.tell(end.seat, News::PeerGone(end.channel));
        }
        metrics::seated(floor.relay.seats(), floor.relay.pairs());
    }
    hall.lock().begin_to_end();
    // Whoever stays longer is cut.
    let _ = tokio::time::timeout(GRACE, hall.emptied()).await;
    for guest in hall.lock().guests.values() {
        guest.outbox.close();
    }
}
