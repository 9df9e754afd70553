//! What the machines want, done: calls, probes, dials, further paths, and channels at relays.

use std::time::Duration;

use muster_net::Path;
use muster_overlay::meeting::{Input, Intent, Probe, Way};
use muster_types::NodeId;
use muster_wire::call::Call;
use muster_wire::meeting::ProbeKeys;
use muster_wire::ticket::NodeTicket;
use tokio::time::Instant;

use super::pair::{Pair, Sealing};
use super::{Desk, Done, Outgoing};
use crate::relays::Event;

/// A ticket is good for five minutes at least when it is handed out (contract of IssueRelayTicket).
const RENEW: Duration = Duration::from_secs(240);

/// A relay that is gone may be back, and another one is tried at once.
const REOPEN: Duration = Duration::from_millis(500);

impl Desk {
    /// Does what a pair's machine wants until it wants nothing more.
    pub(super) fn act(&mut self, peer: NodeId) {
        while let Some(intent) = self.pairs.get_mut(&peer).and_then(|p| p.meeting.as_mut()?.poll_intent()) {
            match intent {
                Intent::Tell { own, answer } => {
                    let Some(pair) = self.pairs.get(&peer) else { return };
                    let (meeting, relays) = (pair.number, pair.relays.clone());
                    let call = Call { to: peer, meeting, answer, whereabouts: own, relays };
                    self.call(peer, &call);
                }
                Intent::Probe { to, probe } => self.probe(peer, to, probe),
                Intent::Use(way) => self.go(peer, way),
            }
        }
        self.report(peer);
    }

    fn call(&self, to: NodeId, call: &Call) {
        let key = self.pairs.get(&to).and_then(Pair::sealing_key);
        let sealed = call.seal(&self.around.hand.signer, key, self.around.clock.now());
        if self.outgoing.try_send(Outgoing { to, call: sealed }).is_err() {
            tracing::debug!("a call is lost: the driver does not keep up");
        }
    }

    fn probe(&self, peer: NodeId, to: std::net::SocketAddr, probe: Probe) {
        let keys = self.pairs.get(&peer).and_then(|pair| pair.keys.as_ref());
        if let Some(datagram) = keys.and_then(|keys| keys.seal(probe)) {
            self.around.endpoint.send_probe(to, &datagram);
        }
    }

    /// Only the caller dials and moves; the called end follows.
    fn go(&mut self, peer: NodeId, way: Option<Way>) {
        tracing::debug!(peer = %peer.short(), ?way, "a way");
        let Some(pair) = self.pairs.get(&peer) else { return };
        if pair.session.is_some() {
            return self.move_on(peer);
        }
        let path = match way {
            Some(Way::Direct(at)) => Path::Udp(at),
            Some(Way::Relay) => match &pair.behind {
                Some((_, path)) => *path,
                None => return,
            },
            None => return,
        };
        if !pair.called && !pair.dialling {
            self.dial(peer, path);
        }
    }

    fn dial(&mut self, peer: NodeId, path: Path) {
        let Some(pair) = self.pairs.get_mut(&peer) else { return };
        pair.dialling = true;
        let (endpoint, done) = (self.around.endpoint.clone(), self.done.clone());
        tokio::spawn(async move {
            let dialled = endpoint.connect_by(peer, path).await.map_err(|error| error.to_string());
            // The agent is about to end.
            let _ = done.send(Done::Dialled(peer, dialled)).await;
        });
    }

    /// Gives the session the path that its machine wants, if it is this end's to do so.
    pub(super) fn move_on(&mut self, peer: NodeId) {
        let Some(pair) = self.pairs.get_mut(&peer) else { return };
        let (Some(session), Some(at)) = (pair.movable().cloned(), pair.wanted()) else { return };
        if pair.dialling || session.path() == Path::Udp(at) {
            return;
        }
        self.open_way(peer, Path::Udp(at));
    }

    fn open_way(&mut self, peer: NodeId, path: Path) {
        let Some(pair) = self.pairs.get_mut(&peer) else { return };
        let Some(session) = pair.movable().cloned() else { return };
        pair.dialling = true;
        let done = self.done.clone();
        tokio::spawn(async move {
            let moved = session.open_way(path).await;
            let _ = done.send(Done::Moved(peer, path, moved)).await;
        });
    }

    /// Sits at a relay that the caller named.
    pub(super) fn attend(&self, peer: NodeId, relay: String) {
        let (relays, done) = (self.around.relays.clone(), self.done.clone());
        tokio::spawn(async move {
            if let Err(reason) = relays.attend(&relay).await {
                let _ = done.send(Done::NotRelayed(peer, reason)).await;
            }
        });
    }

    /// Asks the first relay of the pair for a channel.
    fn open_relay(&self, peer: NodeId) {
        let Some(pair) = self.pairs.get(&peer) else { return };
        let (relays, done, names) = (self.around.relays.clone(), self.done.clone(), pair.relays.clone());
        tokio::spawn(async move {
            let mut reasons = Vec::new();
            for name in names {
                match relays.open(&name, peer).await {
                    Ok(()) => return,
                    Err(reason) => reasons.push(reason),
                }
            }
            let _ = done.send(Done::NotRelayed(peer, reasons.join("; "))).await;
        });
    }

    pub(super) fn on_done(&mut self, done: Done) {
        match done {
            Done::Seen(sight) => {
                (self.sight, self.looking) = (Some(sight), false);
                self.moved();
                self.on_sight();
            }
            Done::Relays(peer, number, found) => self.on_relays(peer, number, found),
            Done::Keys(peer, number, found) => self.on_keys(peer, number, found),
            Done::Dialled(peer, dialled) => self.on_dialled(peer, dialled),
            Done::Moved(peer, path, moved) => self.on_moved(peer, path, moved),
            Done::NotRelayed(peer, reason) => {
                if let Some(pair) = self.pairs.get_mut(&peer) {
                    pair.reopen = Some(Instant::now() + REOPEN);
                    pair.trouble = reason;
                }
                self.report(peer);
            }
            Done::Checked(answer, sight, relays) => {
                // Who asked may have gone.
                let _ = answer.send((sight, relays));
            }
        }
    }

    /// This node is elsewhere: those who are met hear of it.
    fn moved(&mut self) {
        let Some(own) = self.sight.as_ref().map(super::Sight::whereabouts) else { return };
        let now = self.boot.now();
        let met = self.pairs.iter_mut().filter(|(_, pair)| pair.session.is_some() && !pair.called);
        let peers: Vec<NodeId> = met.map(|(peer, _)| *peer).collect();
        for peer in peers {
            if let Some(meeting) = self.pairs.get_mut(&peer).and_then(|pair| pair.meeting.as_mut()) {
                meeting.handle(Input::Moved(own.clone()), now);
            }
            self.act(peer);
        }
    }

    fn on_relays(&mut self, peer: NodeId, number: u64, found: Result<Vec<String>, String>) {
        let Some(pair) = self.pairs.get_mut(&peer).filter(|pair| pair.number == number) else { return };
        match found {
            Ok(names) => pair.relays = names,
            Err(reason) => pair.trouble = reason,
        }
        if !pair.relays.is_empty() {
            self.open_relay(peer);
        }
        if self.sight.as_ref().is_some_and(|sight| sight.is_fresh(&self.own)) {
            self.on_sight();
        }
    }

    /// With the peer's keys its probes open before its answer is here.
    fn on_keys(&mut self, peer: NodeId, number: u64, found: Result<Box<NodeTicket>, String>) {
        let Some(pair) = self.pairs.get_mut(&peer).filter(|pair| pair.number == number) else { return };
        match found {
            Ok(ticket) => {
                let secret = (self.around.endpoint.node(), &self.around.hand.noise_secret);
                let (network, theirs) = (self.around.network, (peer, &ticket.noise_key));
                pair.keys.get_or_insert_with(|| ProbeKeys::new(network, number, secret, theirs));
                pair.sealing = Sealing::Known(ticket.sealing_key);
            }
            Err(reason) => {
                tracing::info!(peer = %peer.short(), reason, "a call goes unsealed");
                pair.sealing = Sealing::Unknown;
            }
        }
        if self.sight.as_ref().is_some_and(|sight| sight.is_fresh(&self.own)) {
            self.on_sight();
        }
    }

    fn on_dialled(&mut self, peer: NodeId, dialled: Result<muster_net::Session, String>) {
        let Some(pair) = self.pairs.get_mut(&peer) else { return };
        pair.dialling = false;
        match dialled {
            Ok(session) => pair.session = Some(session),
            Err(reason) => {
                tracing::info!(peer = %peer.short(), reason, "a node is not reached");
                pair.trouble = reason;
                pair.reopen = Some(Instant::now() + REOPEN);
                let now = self.boot.now();
                if let Some(meeting) = &mut pair.meeting {
                    meeting.handle(Input::DirectLost, now);
                }
            }
        }
        self.move_on(peer);
        self.act(peer);
    }

    fn on_moved(&mut self, peer: NodeId, path: Path, moved: Result<(), String>) {
        let Some(pair) = self.pairs.get_mut(&peer) else { return };
        pair.dialling = false;
        match (moved, path) {
            (Ok(()), Path::Udp(_)) => pair.trouble.clear(),
            (Ok(()), _) => {}
            (Err(reason), path) => {
                tracing::info!(peer = %peer.short(), %path, reason, "a session does not move");
                pair.trouble = format!("{path}: {reason}");
                let now = self.boot.now();
                if let (Path::Udp(_), Some(meeting)) = (path, &mut pair.meeting) {
                    meeting.handle(Input::DirectLost, now);
                }
            }
        }
        self.act(peer);
    }

    pub(super) fn on_relay(&mut self, event: Event) {
        let now = self.boot.now();
        match event {
            Event::Here { peer, relay, path } => {
                if !self.has_room_for(peer) {
                    return;
                }
                let number = rand::random();
                // A caller may be behind the relay before its call is here.
                let pair = self.pairs.entry(peer).or_insert_with(|| Pair::new(number, true));
                let replaced = pair.behind.replace((relay, path));
                pair.reopen = (!pair.called).then(|| Instant::now() + RENEW);
                if let Some(meeting) = &mut pair.meeting {
                    meeting.handle(Input::Relay(true), now);
                }
                self.behind(peer, path, replaced.is_some());
            }
            Event::Gone { peer, relay, path } => {
                let Some(pair) = self.pairs.get_mut(&peer) else { return };
                if pair.behind.as_ref().is_none_or(|(_, known)| *known != path) {
                    return;
                }
                tracing::info!(peer = %peer.short(), relay, "a relay is gone");
                pair.behind = None;
                pair.reopen = pair.session.is_some().then_some(Instant::now());
                let others = pair.relays.len() > 1;
                pair.relays.rotate_left(usize::from(others));
                if let Some(meeting) = &mut pair.meeting {
                    meeting.handle(Input::Relay(false), now);
                }
                self.act(peer);
            }
            Event::Refused { peer, reason } => self.on_done(Done::NotRelayed(peer, reason)),
        }
    }

    /// The peer is behind a relay now: a session begins by it, or one that lost its relay goes on.
    fn behind(&mut self, peer: NodeId, path: Path, again: bool) {
        let Some(pair) = self.pairs.get(&peer) else { return };
        let waits = pair.meeting.is_none() && !pair.called && pair.session.is_none() && !pair.dialling;
        if waits {
            self.dial(peer, path);
        } else if pair.movable().is_some() && !pair.dialling && !again {
            self.open_way(peer, path);
        }
        self.act(peer);
    }

    pub(super) fn on_timer(&mut self) {
        let now = self.boot.now();
        let due = |pair: &Pair| {
            let machine = pair.meeting.as_ref().and_then(muster_overlay::meeting::Meeting::poll_timeout);
            machine.is_some_and(|due| due <= now) || pair.reopen.is_some_and(|due| due <= Instant::now())
        };
        let due: Vec<NodeId> =
            self.pairs.iter().filter(|(_, pair)| due(pair)).map(|(peer, _)| *peer).collect();
        for peer in due {
            self.reopen(peer);
            if let Some(meeting) = self.pairs.get_mut(&peer).and_then(|pair| pair.meeting.as_mut()) {
                meeting.handle_timeout(now);
            }
            self.act(peer);
            self.forget_if_idle(peer);
        }
    }

    /// A ticket that runs out, or a relay that is gone: the caller opens anew, the called end sits down again.
    fn reopen(&mut self, peer: NodeId) {
        let Some(pair) = self.pairs.get_mut(&peer) else { return };
        if pair.reopen.is_none_or(|due| due > Instant::now()) {
            return;
        }
        pair.reopen = None;
        let Some(session) = &pair.session else {
            let (wanted, behind) = (!pair.watchers.is_empty() && !pair.dialling, pair.behind.clone());
            return match behind {
                _ if !wanted => {}
                Some((_, path)) => self.dial(peer, path),
                None => self.open_relay(peer),
            };
        };
        if pair.called {
            for relay in pair.relays.clone() {
                self.attend(peer, relay);
            }
        } else {
            tracing::debug!(peer = %peer.short(), path = %session.path(), "opens a relay's channel again");
            self.open_relay(peer);
        }
    }
}
