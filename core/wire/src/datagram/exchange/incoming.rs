//! What the socket brings: told by kind, proved, and then believed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_types::{Instant, NodeId, Timestamp};

use super::{ANSWER_WITHIN, ANSWERING, Answering, Exchange};
use crate::datagram::challenge::{CookieSeal, mac_fits, mac1_key};
use crate::datagram::flight::{self, Opening};
use crate::datagram::frame::{self, Frame, MAC_BYTES, Macs, NONCE_BYTES};
use crate::datagram::handshake;
use crate::datagram::message::{Event, Message, PROVE_BYTES, ROOM, Reply, RequestId, Way};
use crate::datagram::peer::{NoiseKey, Peer};
use crate::datagram::session::Session;
use crate::verifier::Verifier;

use muster_types::limits::DATAGRAM_BYTES;

/// `None`: dropped.
type Taken = Option<()>;

impl Exchange {
    /// Takes one datagram whose first byte is one of [`Kind`](crate::datagram::Kind)'s.
    pub fn receive(&mut self, from: SocketAddr, datagram: &[u8], verifier: &Verifier<'_>, now: Instant) {
        let frame = Frame::parse(datagram).filter(|_| datagram.len() <= DATAGRAM_BYTES);
        let taken = match frame {
            Some(Frame::Opening { sender, noise, macs }) if datagram.len() == DATAGRAM_BYTES => {
                self.on_opening(from, (sender, noise, &macs), verifier, now)
            }
            Some(Frame::Reply { sender, receiver, noise, macs }) => {
                self.on_reply(from, (sender, receiver, noise, &macs), verifier, now)
            }
            Some(Frame::Cookie { receiver, nonce, sealed }) => self.on_cookie(receiver, nonce, sealed),
            Some(Frame::Sealed { receiver, counter, ciphertext }) => {
                self.on_sealed(from, datagram.len(), (receiver, counter, ciphertext), now)
            }
            Some(Frame::Unknown { receiver, counter }) => {
                self.on_unknown(receiver, counter, now, verifier.now)
            }
            Some(Frame::Opening { .. }) | None => None,
        };
        if taken.is_none() {
            self.counts.dropped += 1;
        }
    }

    fn on_opening(
        &mut self,
        from: SocketAddr,
        (sender, noise, macs): (u32, &[u8], &Macs<'_>),
        verifier: &Verifier<'_>,
        now: Instant,
    ) -> Taken {
        if !self.challenger.knows_us(macs.covered, macs.mac1) {
            return None;
        }
        if self.challenger.is_busy(now) && !self.challenger.owns_address(from, macs.covered, macs.mac2, now) {
            let (nonce, sealed) = self.challenger.cookie(from, macs.mac1, now)?;
            self.counts.cookies_asked += 1;
            self.send(from, frame::cookie(sender, &nonce, &sealed));
            return Some(());
        }
        let (state, key, payload) = self.own.opened(noise)?;
        let Opening { stamp, known, ticket, request } = flight::parse_opening(&payload)?;
        let peer = self.believed(&key, &payload[ticket], verifier)?;
        if self.answering.len() >= ANSWERING || !self.table.take_stamp(&key, stamp) {
            return None;
        }
        let known = known == self.own.mark;
        let index = self.fresh_index()?;
        let number = request.as_ref().map_or(0, |(number, _)| *number);
        let ticket_left = left(&peer, verifier.now);
        let until = now + ANSWER_WITHIN;
        let answering = Answering {
            state,
            peer: Arc::clone(&peer),
            sender,
            request: number,
            at: from,
            known,
            until,
            ticket_left,
        };
        let Some((_, body)) = request else {
            self.reply(index, answering, None, now);
            return Some(());
        };
        let room = flight::answer_room(if known { 0 } else { self.own.ticket.len() });
        self.answering.insert(index, answering);
        let (body, reply) = (Bytes::from(payload).slice(body), Reply { way: Way::Handshake(index), room });
        self.events.push_back(Event::Request { from: peer, at: from, body, reply });
        Some(())
    }

    fn believed(&mut self, key: &NoiseKey, ticket: &[u8], verifier: &Verifier<'_>) -> Option<Arc<Peer>> {
        let peer = self.peers.by_ticket(key, ticket, verifier).ok();
        if peer.is_none() {
            self.counts.refused += 1;
        }
        peer
    }

    fn on_reply(
        &mut self,
        from: SocketAddr,
        (sender, receiver, noise, macs): (u32, u32, &[u8], &Macs<'_>),
        verifier: &Verifier<'_>,
        now: Instant,
    ) -> Taken {
        if !mac_fits(&mac1_key(&self.own.public), macs.covered, macs.mac1) {
            return None;
        }
        let (key, _) = self.table.underway(receiver)?;
        let mut underway = self.table.take_underway(receiver)?;
        let Some(payload) = handshake::read_reply(&mut underway.state, noise) else {
            self.table.put_back(key, underway);
            return None;
        };
        let transport = handshake::finish(underway.state)?;
        let parts = flight::parse_answer(&payload)?;
        let peer = if parts.ticket.is_empty() {
            self.peers.known(&key, verifier.now).map(|(peer, _)| peer)
        } else {
            self.believed(&key, &payload[parts.ticket], verifier)
        };
        let Some(peer) = peer else {
            self.refuse(&key, |_| true, None);
            return None;
        };
        let mut session = Session::new(transport, Arc::clone(&peer), sender, now, left(&peer, verifier.now));
        session.proven = Some(from);
        self.table.insert(receiver, session);
        // Whoever was asked for under another id by this key is not there.
        let node = peer.node;
        self.refuse(&key, |asked| asked != node, Some(node));
        if let Some((number, body)) = parts.answer {
            self.answered(number, &peer, from, Bytes::from(payload).slice(body));
        }
        for number in self.pending.unsent(&key) {
            self.send_request(number, receiver, now);
        }
        Some(())
    }

    /// Ends own requests to this key whose node it is not.
    fn refuse(&mut self, key: &NoiseKey, other: impl Fn(NodeId) -> bool, actual: Option<NodeId>) {
        for number in self.pending.unsent(key) {
            if self.pending.waiting(number).is_some_and(|waiting| other(waiting.to.node)) {
                self.pending.remove(number);
                self.events.push_back(Event::Stranger { request: RequestId(number), actual });
            }
        }
    }

    fn on_cookie(&mut self, receiver: u32, nonce: [u8; NONCE_BYTES], sealed: &[u8]) -> Taken {
        let (key, underway) = self.table.underway(receiver)?;
        let end = underway.datagram.len().checked_sub(MAC_BYTES)?;
        let mac1 = underway.datagram.get(end - MAC_BYTES..end)?;
        let cookie = CookieSeal::new(&key)?.open(nonce, sealed, mac1)?;
        let (to, datagram) = (underway.at, handshake::with_cookie(&underway.datagram, &cookie));
        self.send(to, datagram);
        Some(())
    }

    fn on_sealed(
        &mut self,
        from: SocketAddr,
        length: usize,
        (receiver, counter, ciphertext): (u32, u64, &[u8]),
        now: Instant,
    ) -> Taken {
        let Some(session) = self.table.session(receiver).filter(|session| !session.is_over(now)) else {
            self.send(from, frame::unknown(receiver, counter));
            return None;
        };
        let message = Message::parse(session.open(counter, ciphertext, now)?)?;
        session.came_from(from);
        let (peer, proven) = (Arc::clone(&session.peer), session.proven == Some(from));
        self.counts.sealed_received += 1;
        match message {
            Message::Request { number, body } if proven => self.asked(receiver, number, &peer, from, body),
            Message::Request { number, .. } => {
                return self.ask_for_proof(receiver, number, from, length, now);
            }
            Message::Proof { number, token, body } => {
                if !self.challenger.accepts_token(token, from, receiver, now) {
                    return None;
                }
                self.table.session(receiver)?.proven = Some(from);
                self.asked(receiver, number, &peer, from, body);
            }
            Message::Answer { number, body } => {
                let sent_there = self.pending.of_peer(number, &peer.key)?.to.at == from;
                if let Some(session) = self.table.session(receiver).filter(|_| sent_there) {
                    session.proven = Some(from);
                }
                self.answered(number, &peer, from, body);
            }
            Message::Prove { number, token } => {
                let waiting = self.pending.of_peer(number, &peer.key)?;
                let (to, body) = (waiting.to.at, waiting.body.clone());
                self.send_sealed(receiver, to, &Message::Proof { number, token, body: &body }, now);
            }
        }
        Some(())
    }

    fn asked(&mut self, index: u32, request: u32, from: &Arc<Peer>, at: SocketAddr, body: Bytes) {
        let reply = Reply { way: Way::Session { index, request, at }, room: ROOM };
        self.events.push_back(Event::Request { from: Arc::clone(from), at, body, reply });
    }

    fn answered(&mut self, number: u32, from: &Arc<Peer>, at: SocketAddr, body: Bytes) {
        if self.pending.of_peer(number, &from.key).is_some_and(|waiting| waiting.to.node == from.node) {
            self.pending.remove(number);
            let from = Arc::clone(from);
            self.events.push_back(Event::Answer { request: RequestId(number), from, at, body });
        }
    }

    /// Our datagrams never exceed what an unproven source sent (design, section 6).
    fn ask_for_proof(
        &mut self,
        index: u32,
        number: u32,
        from: SocketAddr,
        length: usize,
        now: Instant,
    ) -> Taken {
        (length >= PROVE_BYTES).then_some(())?;
        let token = self.challenger.token(from, index, now);
        self.counts.proofs_asked += 1;
        self.send_sealed(index, from, &Message::Prove { number, token }, now);
        Some(())
    }

    /// The peer lost a session. Only who saw our datagram can say so; all it gains is a new handshake.
    fn on_unknown(&mut self, remote: u32, counter: u64, now: Instant, date: Timestamp) -> Taken {
        let table = &mut self.table;
        let is_it = |index: &u32| {
            table.session(*index).is_some_and(|session| session.remote == remote && session.has_sent(counter))
        };
        let lost = self.pending.sessions().into_iter().find(is_it)?;
        let numbers = self.pending.by_session(lost);
        self.table.remove(lost);
        for (place, number) in numbers.into_iter().enumerate() {
            let Some(waiting) = self.pending.waiting(number) else { continue };
            waiting.session = None;
            let to = waiting.to;
            if place == 0 {
                self.begin(to, Some(number), now, date)?;
            }
        }
        Some(())
    }
}

/// For how long a peer's ticket is good.
fn left(peer: &Peer, date: Timestamp) -> Duration {
    let micros = peer.not_after.as_micros().saturating_sub(date.as_micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
