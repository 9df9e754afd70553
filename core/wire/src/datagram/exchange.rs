//! The machine of one node: own requests out, answers in; peers' requests in, answers out.
//!
//! Contract: call one mutating function, then drain [`Exchange::poll_event`]. It sets no timer; [`Exchange::expire`]
//! wants to be called about once a second. Whoever asks decides how long to wait, and then calls
//! [`Exchange::give_up`].

mod incoming;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_types::{Instant, Timestamp};
use ring::rand::{SecureRandom, SystemRandom};
use snow::HandshakeState;

use super::challenge::Challenger;
use super::flight;
use super::handshake::{self, Own};
use super::message::{Event, Message, REQUEST_ROOM, Reply, RequestError, RequestId, Way};
use super::peer::{Mark, Peer, PeerAddress, Peers};
use super::pending::Pending;
use super::session::Session;
use super::table::{Table, Underway};

/// Sessions of an agent: a routing table, its cell, and room for those who ask.
const SESSIONS: usize = 1_024;

/// Own requests without an answer yet.
const PENDING: usize = 4_096;

/// Openings whose request the owner has not answered yet.
const ANSWERING: usize = 256;

/// The owner answers at once or not at all.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How much a machine keeps.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub sessions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sessions: SESSIONS }
    }
}

/// What happened so far; rises only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub handshakes_begun: u64,
    pub handshakes_answered: u64,
    pub sealed_sent: u64,
    pub sealed_received: u64,
    pub cookies_asked: u64,
    pub proofs_asked: u64,
    /// No frame, no key fits, seen before, or not asked for.
    pub dropped: u64,
    /// The ticket was not believed, or binds another key or node.
    pub refused: u64,
}

/// An opening that waits for its owner's answer.
struct Answering {
    state: HandshakeState,
    peer: Arc<Peer>,
    sender: u32,
    request: u32,
    at: SocketAddr,
    /// The opener has this node's ticket.
    known: bool,
    until: Instant,
    ticket_left: Duration,
}

pub struct Exchange {
    own: Own,
    limits: Limits,
    table: Table,
    pending: Pending,
    answering: HashMap<u32, Answering>,
    peers: Peers,
    challenger: Challenger,
    events: VecDeque<Event>,
    counts: Counts,
    stamp: u64,
    random: SystemRandom,
}

impl Exchange {
    pub fn new(own: Own, limits: Limits, now: Instant) -> Self {
        Self {
            challenger: Challenger::new(&own.public, now),
            table: Table::new(limits.sessions),
            own,
            limits,
            pending: Pending::default(),
            answering: HashMap::new(),
            peers: Peers::default(),
            events: VecDeque::new(),
            counts: Counts::default(),
            stamp: 0,
            random: SystemRandom::new(),
        }
    }

    pub fn own(&self) -> &Own {
        &self.own
    }

    /// After a renewal: handshakes from now on show the new ticket.
    pub fn set_own(&mut self, own: Own, now: Instant) {
        if own.public != self.own.public {
            self.challenger = Challenger::new(&own.public, now);
            self.table = Table::new(self.limits.sessions);
        }
        self.own = own;
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn sessions(&self) -> usize {
        self.table.sessions()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Asks a node; `date` is the master's. The answer comes as an event, or never.
    ///
    /// # Errors
    /// The request is empty or too long, too many wait, or the node's key is no key.
    pub fn request(
        &mut self,
        to: PeerAddress,
        body: Bytes,
        now: Instant,
        date: Timestamp,
    ) -> Result<RequestId, RequestError> {
        if !(1..=REQUEST_ROOM).contains(&body.len()) {
            return Err(RequestError::Size { actual: body.len() });
        }
        if self.pending.len() >= PENDING {
            return Err(RequestError::TooMany { limit: PENDING });
        }
        let number = self.pending.add(to, body, now);
        if let Some(session) = self.table.fresh(&to.key, now) {
            self.send_request(number, session, now);
        } else if !self.table.is_underway(&to.key, now) && self.begin(to, Some(number), now, date).is_none() {
            self.pending.remove(number);
            return Err(RequestError::Key(to.node));
        }
        Ok(RequestId(number))
    }

    /// The answer is not waited for any more. The session is in doubt: the peer may have forgotten it.
    pub fn give_up(&mut self, request: RequestId) {
        let Some(waiting) = self.pending.remove(request.0) else { return };
        if let Some(session) = waiting.session.and_then(|index| self.table.session(index)) {
            session.doubtful = true;
        }
    }

    /// Answers a peer's request. An answer that comes too late or is longer than [`Reply::room`] is dropped.
    pub fn answer(&mut self, reply: Reply, body: &[u8], now: Instant) {
        if body.len() > reply.room {
            return self.drop_one();
        }
        match reply.way {
            Way::Handshake(index) => {
                if let Some(answering) = self.answering.remove(&index) {
                    self.reply(index, answering, Some(body), now);
                }
            }
            Way::Session { index, request: number, at } => {
                self.send_sealed(index, at, &Message::Answer { number, body }, now);
            }
        }
    }

    /// Ends what has run out.
    pub fn expire(&mut self, now: Instant) {
        self.table.expire(now);
        self.pending.expire(now);
        self.answering.retain(|_, answering| now < answering.until);
    }

    /// Ends every session with these peers at once: they were revoked.
    pub fn forget(&mut self, whom: impl Fn(&Peer) -> bool) {
        self.table.forget(&whom);
        self.peers.forget(&whom);
        self.answering.retain(|_, answering| !whom(&answering.peer));
    }

    /// The network changed or the host slept: no session's path is proven any more.
    pub fn network_changed(&mut self) {
        self.table.forget(|_| true);
    }

    /// The handshake with `to`; `request` goes with it if it fits.
    fn begin(&mut self, to: PeerAddress, request: Option<u32>, now: Instant, date: Timestamp) -> Option<()> {
        let index = self.fresh_index()?;
        self.stamp = u64::try_from(date.as_micros()).unwrap_or(0).max(self.stamp + 1);
        let known = self.peers.known(&to.key, date).map_or(Mark::default(), |(_, mark)| mark);
        let request = request.and_then(|number| Some((number, self.pending.waiting(number)?.body.clone())));
        let carried = request.as_ref().map(|(number, body)| (*number, &body[..]));
        let payload = flight::opening(self.stamp, known, &self.own.ticket, carried)?;
        let (state, datagram) = self.own.open(&to.key, index, &payload)?;
        self.send(to.at, datagram.clone());
        self.table.begin(to.key, Underway { index, state, datagram, at: to.at, began: now }, now);
        self.counts.handshakes_begun += 1;
        Some(())
    }

    /// Answers an opening, and takes the session that follows from it.
    fn reply(&mut self, index: u32, answering: Answering, body: Option<&[u8]>, now: Instant) {
        let Answering { state, peer, sender, request, at, known, ticket_left, .. } = answering;
        let ticket: &[u8] = if known { &[] } else { &self.own.ticket[..] };
        let payload = flight::answer(ticket, body.map(|body| (request, body)));
        let replied =
            payload.and_then(|payload| handshake::reply(state, &peer.key, (index, sender), &payload));
        let Some((transport, datagram)) = replied else { return self.drop_one() };
        let mut session = Session::new(transport, peer, sender, now, ticket_left);
        session.replied_to = Some(at);
        self.table.insert(index, session);
        self.counts.handshakes_answered += 1;
        self.send(at, datagram);
    }

    fn send_request(&mut self, number: u32, session: u32, now: Instant) {
        let Some(waiting) = self.pending.waiting(number) else { return };
        waiting.session = Some(session);
        let (at, body) = (waiting.to.at, waiting.body.clone());
        self.send_sealed(session, at, &Message::Request { number, body: &body }, now);
    }

    fn send_sealed(&mut self, index: u32, to: SocketAddr, message: &Message<&[u8]>, now: Instant) {
        let Some(session) = self.table.session(index) else { return };
        if let Some(datagram) = session.seal(&message.encode(), now) {
            self.counts.sealed_sent += 1;
            self.events.push_back(Event::Send { to, datagram });
        }
    }

    fn send(&mut self, to: SocketAddr, datagram: Vec<u8>) {
        self.events.push_back(Event::Send { to, datagram: datagram.into() });
    }

    fn drop_one(&mut self) {
        self.counts.dropped += 1;
    }

    /// `None`: the system has no randomness.
    fn fresh_index(&self) -> Option<u32> {
        loop {
            let mut bytes = [0; 4];
            self.random.fill(&mut bytes).ok()?;
            let index = u32::from_be_bytes(bytes);
            if !self.table.has(index) && !self.answering.contains_key(&index) {
                return Some(index);
            }
        }
    }

    /// What an own session or handshake is with, for tests of whom a key belongs to.
    #[cfg(test)]
    pub(super) fn has_session(&self, with: &super::peer::NoiseKey, now: Instant) -> bool {
        self.table.fresh(with, now).is_some()
    }
}
