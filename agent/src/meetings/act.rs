//! What the machines want, done: calls, probes, dials, further paths, and channels at relays.

use std::time::Duration;

use muster_net::{Path, Session};
use muster_overlay::meeting::{Input, Intent, Probe, Way};
use muster_types::NodeId;
use muster_wire::call::Call;

use super::desk::Desk;
use super::pair::Pair;
use super::{Done, Outgoing};
use crate::relays::Event;

/// A ticket is good for five minutes at least when it is handed out (contract of IssueRelayTicket).
const RENEW: Duration = Duration::from_secs(240);

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
        let hand = self.around.hand.load();
        let sealed = call.seal(&hand.signer, key, self.around.clock.now());
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
        let endpoint = self.around.endpoint.clone();
        self.beside.spawn(async move {
            let dialled = endpoint.connect_by(peer, path).await.map_err(|error| error.to_string());
            Done::Dialled(peer, path, dialled)
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
        self.beside.spawn(async move { Done::Moved(peer, path, session.open_way(path).await) });
    }

    /// Asks the first relay of the pair for a channel.
    fn open_relay(&mut self, peer: NodeId) {
        let Some(pair) = self.pairs.get_mut(&peer) else { return };
        if pair.relays.is_empty() || std::mem::replace(&mut pair.asking, true) {
            return;
        }
        let (relays, names) = (self.around.relays.clone(), pair.relays.clone());
        self.beside.spawn(async move {
            let mut reasons = Vec::new();
            for name in names {
                match relays.open(&name, peer).await {
                    Ok(()) => return Done::Asked(peer, Ok(())),
                    Err(reason) => reasons.push(reason),
                }
            }
            Done::Asked(peer, Err(reasons.join("; ")))
        });
    }

    pub(super) fn on_done(&mut self, done: Done) {
        match done {
            Done::Seen(sight) => self.on_seen(sight),
            Done::Relays(peer, number, found) => self.on_relays(peer, number, found),
            Done::Keys(peer, number, found) => self.on_keys(peer, number, found),
            Done::Dialled(peer, path, dialled) => self.on_dialled(peer, path, dialled),
            Done::Moved(peer, path, moved) => self.on_moved(peer, path, moved),
            Done::Attended(peer, relay, attended) => {
                if let Some(pair) = self.pairs.get_mut(&peer) {
                    pair.attending.remove(&relay);
                }
                self.on_relay_asked(peer, attended);
            }
            Done::Asked(peer, asked) => {
                if let Some(pair) = self.pairs.get_mut(&peer) {
                    pair.asking = false;
                }
                self.on_relay_asked(peer, asked);
            }
            Done::Checked => {}
        }
    }

    /// A relay that is not reached, or grants no channel, is tried again: ever more seldom, until it carries.
    fn on_relay_asked(&mut self, peer: NodeId, asked: Result<(), String>) {
        let (Some(pair), Err(reason)) = (self.pairs.get_mut(&peer), asked) else { return };
        pair.try_later(self.boot.now());
        pair.trouble = reason;
        self.report(peer);
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
        self.look();
    }

    /// A relay that swallows everything keeps nobody from the direct way that was found meanwhile.
    fn on_dialled(&mut self, peer: NodeId, path: Path, dialled: Result<Session, String>) {
        let now = self.boot.now();
        let Some(pair) = self.pairs.get_mut(&peer) else { return };
        pair.dialling = false;
        match dialled {
            Ok(session) => pair.session = Some(session),
            Err(reason) => {
                tracing::info!(peer = %peer.short(), reason, "a node is not reached");
                pair.trouble = reason;
                pair.try_later(now);
                if let (Path::Udp(_), Some(meeting)) = (path, &mut pair.meeting) {
                    meeting.handle(Input::DirectLost, now);
                }
            }
        }
        if let Some(at) = pair.wanted() {
            self.go(peer, Some(Way::Direct(at)));
        }
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
                // A caller may be behind the relay before its call is here.
                let pair = self.pairs.entry(peer).or_insert_with(|| Pair::new(rand::random(), true));
                let replaced = pair.behind.replace((relay, path));
                pair.backoff.reset();
                pair.reopen = (!pair.called).then(|| now + RENEW);
                if let Some(meeting) = &mut pair.meeting {
                    meeting.handle(Input::Relay(true), now);
                }
                self.behind(peer, path, replaced.is_some_and(|(_, known)| known == path));
            }
            Event::Gone { peer, relay, path } => {
                let Some(pair) = self.pairs.get_mut(&peer) else { return };
                if pair.behind.as_ref().is_none_or(|(_, known)| *known != path) {
                    return;
                }
                tracing::info!(peer = %peer.short(), relay, "a relay is gone");
                pair.behind = None;
                pair.reopen = pair.session.is_some().then_some(now);
                let others = pair.relays.len() > 1;
                pair.relays.rotate_left(usize::from(others));
                if let Some(meeting) = &mut pair.meeting {
                    meeting.handle(Input::Relay(false), now);
                }
                self.act(peer);
            }
            Event::Refused { peer, reason } => self.on_relay_asked(peer, Err(reason)),
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
        let due: Vec<NodeId> = self
            .pairs
            .iter()
            .filter(|(_, pair)| pair.due().is_some_and(|due| due <= now))
            .map(|(peer, _)| *peer)
            .collect();
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
        let now = self.boot.now();
        if pair.reopen.is_none_or(|due| due > now) {
            return;
        }
        // A relay that keeps silent is asked again when the next ticket is due.
        pair.reopen = (pair.session.is_some() && !pair.called).then(|| now + RENEW);
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
