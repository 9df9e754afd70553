//! Between the machine and the sessions: requests and answers, encoded, sealed and sent; opened, read and believed.

use muster_overlay::dht::{Answer, CallId, Input, Request, Sender, Ticket};
use muster_types::NodeId;
use muster_wire::datagram::{Event, Peer, PeerAddress, Reply, RequestId};
use muster_wire::record::Moment;
use muster_wire::{TrustStore, Verifier, dht};
use std::net::SocketAddr;
use tokio::sync::mpsc;

use super::{ASKED, BATCH, Shell};
use crate::sealed::Sealed;

impl Shell {
    pub(super) fn moment<'a>(&self, trust: &'a TrustStore) -> Moment<'a> {
        Moment { verifier: Verifier { trust, now: (self.dates)() }, now: self.now() }
    }

    pub(super) fn on_datagrams(&mut self, first: Sealed, more: &mut mpsc::Receiver<Sealed>) {
        let trust = self.trust.load_full();
        let (mut next, mut left) = (Some(first), BATCH);
        while let Some(Sealed { from, bytes }) = next.take() {
            let at = self.moment(&trust);
            self.exchange.receive(from, &bytes, &at.verifier, at.now);
            self.on_events(&at);
            self.act();
            left -= 1;
            if left > 0 {
                next = more.try_recv().ok();
            }
        }
    }

    /// Sends what waits, and reads what came with it.
    pub(super) fn flush(&mut self) {
        let trust = self.trust.load_full();
        let at = self.moment(&trust);
        self.on_events(&at);
    }

    fn on_events(&mut self, at: &Moment<'_>) {
        while let Some(event) = self.exchange.poll_event() {
            match event {
                Event::Send { to, datagram } => self.carrier.send(to, &datagram),
                Event::Request { from, at: source, body, reply } => {
                    self.on_request((&from, source), &body, reply, at);
                }
                Event::Answer { request, from, at: source, body } => {
                    self.on_answer(request, (&from, source), &body, at);
                }
                Event::Stranger { request, actual } => self.on_stranger(request, actual),
            }
        }
    }

    fn on_request(&mut self, from: (&Peer, SocketAddr), body: &[u8], reply: Reply, at: &Moment<'_>) {
        let sender = self.meet(from);
        let decoded = dht::decode_request(body, &mut |bytes| self.reader.open(bytes, at));
        match decoded {
            Ok((service, request)) if self.asked.len() < ASKED => {
                let ticket = Ticket(self.tickets);
                self.tickets += 1;
                self.asked.insert(ticket, reply);
                let from = Sender { contact: sender, service };
                self.handle(Input::Asked { from, ticket, request });
            }
            Ok(_) => tracing::debug!("dropped a request: the machine does not keep up"),
            Err(error) => tracing::debug!(peer = %sender.short(), %error, "a request is not understood"),
        }
    }

    fn on_answer(&mut self, request: RequestId, from: (&Peer, SocketAddr), body: &[u8], at: &Moment<'_>) {
        let Some((call, _)) = self.calls.remove(&request) else { return };
        let sender = self.meet(from);
        let (reader, book) = (&mut self.reader, &mut self.book);
        let decoded =
            dht::decode_answer(body, &mut |bytes| reader.open(bytes, at), |address| book.hear_of(address));
        match decoded {
            Ok((service, answer)) => {
                let from = Sender { contact: sender, service };
                self.handle(Input::Answered { from, call, answer });
            }
            Err(error) => {
                tracing::debug!(peer = %sender.short(), %error, "an answer is not understood");
                self.handle(Input::Failed { call });
            }
        }
    }

    fn on_stranger(&mut self, request: RequestId, actual: Option<NodeId>) {
        let Some((call, asked)) = self.calls.remove(&request) else { return };
        tracing::debug!(asked = %asked.short(), ?actual, "another node than the one asked for");
        self.book.forget(asked);
        self.handle(Input::Failed { call });
    }

    /// Somebody spoke: now it is known where it is, and by which key it signs.
    fn meet(&mut self, (peer, at): (&Peer, SocketAddr)) -> NodeId {
        self.reader.meet(peer);
        self.book.proven(PeerAddress { node: peer.node, key: peer.key, at });
        peer.node
    }

    pub(super) fn ask(&mut self, to: NodeId, call: CallId, request: &Request) {
        let now = self.now();
        let address = self.book.address(to).map(|known| {
            let at = self.carrier.path(to).unwrap_or(known.at);
            PeerAddress { at, ..known }
        });
        let body = dht::encode_request(request, self.machine.service());
        let asked = address.map(|address| self.exchange.request(address, body, now, (self.dates)()));
        match asked {
            Some(Ok(request)) => {
                self.calls.insert(request, (call, to));
                self.begun.push_back((now, request));
            }
            Some(Err(error)) => {
                tracing::debug!(peer = %to.short(), %error, "a node cannot be asked");
                self.handle(Input::Failed { call });
            }
            None => self.handle(Input::Failed { call }),
        }
    }

    pub(super) fn reply(&mut self, ticket: Ticket, answer: &Answer<NodeId>) {
        let Some(reply) = self.asked.remove(&ticket) else { return };
        let locate = |node| self.book.address(node).filter(|known| self.carrier.is_public(known.at));
        let body = dht::encode_answer(answer, self.machine.service(), reply.room(), locate);
        let now = self.now();
        self.exchange.answer(reply, &body, now);
    }
}
