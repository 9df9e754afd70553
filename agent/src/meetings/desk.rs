//! The task behind [`Meetings`](super::Meetings): all pairs, how this node is seen, and what runs beside.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use muster_kit::clock::BootClock;
use muster_net::sealed::Sealed;
use muster_net::{Path, Session};
use muster_overlay::meeting::{Input, Meeting};
use muster_types::NodeId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::pair::{self, Pair};
use super::{Checked, Command, Done, Here, Outgoing, Progress, Sight, Surroundings};
use crate::relays;

/// Peers at once. Who is met stays as long as its session.
const PAIRS: usize = 256;

/// A timer that is not set is looked at again after this.
const IDLE: Duration = Duration::from_secs(3_600);

/// The task's state. Nothing in it waits.
pub(super) struct Desk {
    pub(super) around: Surroundings,
    pub(super) outgoing: mpsc::Sender<Outgoing>,
    /// Asks servers, relays and peers, and ends with the task.
    pub(super) beside: JoinSet<Done>,
    here: Here,
    pub(super) sight: Option<Sight>,
    looking: bool,
    /// This node may have moved while it was looking.
    look_again: bool,
    pub(super) pairs: BTreeMap<NodeId, Pair>,
    pub(super) boot: BootClock,
}

impl Desk {
    pub(super) fn new(around: Surroundings, outgoing: mpsc::Sender<Outgoing>) -> Self {
        Self {
            around,
            outgoing,
            beside: JoinSet::new(),
            here: Here::default(),
            sight: None,
            looking: false,
            look_again: false,
            pairs: BTreeMap::new(),
            boot: BootClock::new(),
        }
    }

    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        mut here: watch::Receiver<Here>,
        mut relays: mpsc::Receiver<relays::Event>,
        mut probes: mpsc::Receiver<Sealed>,
    ) {
        loop {
            let until = self.until_timer();
            // None before the others: probes come from anybody, and must not keep out what the driver says.
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                Ok(()) = here.changed() => self.on_here(here.borrow_and_update().clone()),
                Some(event) = relays.recv() => self.on_relay(event),
                Some(Sealed { from, bytes }) = probes.recv() => self.on_probe(from, &bytes),
                Some(done) = self.beside.join_next() => match done {
                    Ok(done) => self.on_done(done),
                    Err(error) => tracing::error!(%error, "what ran beside the meetings has failed"),
                },
                () = tokio::time::sleep(until) => self.on_timer(),
            }
        }
    }

    fn until_timer(&self) -> Duration {
        let due = self.pairs.values().filter_map(Pair::due).min();
        due.map_or(IDLE, |due| due.since(self.boot.now()))
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Reach { peer, reports } => self.reach(peer, reports),
            Command::Called(sealed) => self.on_call(&sealed),
            Command::Opened(session) => self.on_opened(session),
            Command::Closed(session, reason) => self.on_closed(&session, &reason),
            Command::PathChanged(session) => self.on_path(&session),
            Command::Check(answer) => self.check(answer),
        }
    }

    /// Begins to meet a peer, or tells how far that is.
    fn reach(&mut self, peer: NodeId, reports: mpsc::Sender<Progress>) {
        let standing = self.around.endpoint.session(peer);
        if !self.has_room_for(peer) {
            return;
        }
        let fresh = !self.pairs.contains_key(&peer);
        let pair = self.pairs.entry(peer).or_insert_with(|| Pair::new(rand::random(), false));
        pair.watchers.push(reports);
        pair.session = standing.or_else(|| pair.session.take());
        if pair.session.is_none() && (fresh || pair.is_idle_but_watched()) {
            self.begin(peer);
        }
        self.report(peer);
    }

    /// Finds the peer's keys and a relay and looks at itself, all at once; the machine begins when it knows where this node is.
    fn begin(&mut self, peer: NodeId) {
        let Some(pair) = self.pairs.get_mut(&peer) else { return };
        pair.begin();
        let (relays, number) = (self.around.relays.clone(), pair.number);
        self.beside.spawn(async move { Done::Relays(peer, number, relays.list().await) });
        self.seek_keys(peer);
        self.look();
    }

    /// Asks how this node is seen, unless that is known or under way.
    pub(super) fn look(&mut self) {
        let now = self.boot.now();
        if self.sight.as_ref().is_some_and(|sight| sight.is_fresh(&self.here.own, now)) {
            return self.on_sight();
        }
        if !std::mem::replace(&mut self.looking, true) {
            let sight = self.take_sight();
            self.beside.spawn(async move { Done::Seen(sight.await) });
        }
    }

    fn take_sight(&self) -> impl Future<Output = Sight> + use<> {
        let (endpoint, relays) = (self.around.endpoint.clone(), self.around.relays.clone());
        let (own, boot) = (self.here.own.clone(), self.boot.clone());
        async move { Sight::take(&endpoint, own, &relays.servers().await, &boot).await }
    }

    pub(super) fn on_seen(&mut self, mut sight: Sight) {
        self.looking = false;
        if std::mem::take(&mut self.look_again) {
            sight.expire();
        }
        let elsewhere = self.sight.as_ref().is_some_and(|before| sight.is_elsewhere(before));
        self.sight = Some(sight);
        if elsewhere {
            self.moved();
        }
        self.look();
    }

    /// It is known now where this node is: whoever waited for that begins.
    fn on_sight(&mut self) {
        let Some(sight) = &self.sight else { return };
        let (own, now) = (sight.whereabouts(), self.boot.now());
        // Relays are named in the call, and it is sealed, so these come first.
        let ready = |pair: &Pair| pair.meeting.is_none() && !pair.called && pair.can_call();
        for peer in self.pairs.keys().copied().collect::<Vec<_>>() {
            if let Some(pair) = self.pairs.get_mut(&peer).filter(|pair| ready(pair)) {
                let meeting = pair.meeting.insert(Meeting::call(own.clone(), now));
                meeting.handle(Input::Relay(pair.behind.is_some()), now);
                self.act(peer);
            }
            self.answer_waiting(peer);
        }
    }

    /// This node is elsewhere: those who are met hear of it.
    fn moved(&mut self) {
        let Some(own) = self.sight.as_ref().map(Sight::whereabouts) else { return };
        let now = self.boot.now();
        let met = self.pairs.iter().filter(|(_, pair)| pair.session.is_some() && !pair.called);
        for peer in met.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            if let Some(meeting) = self.pairs.get_mut(&peer).and_then(|pair| pair.meeting.as_mut()) {
                meeting.handle(Input::Moved(own.clone()), now);
            }
            self.act(peer);
        }
    }

    /// When full, those that came to nothing give way.
    pub(super) fn has_room_for(&mut self, peer: NodeId) -> bool {
        if !self.pairs.contains_key(&peer) && self.pairs.len() >= PAIRS {
            self.pairs.retain(|_, pair| !pair.is_idle());
        }
        let room = self.pairs.contains_key(&peer) || self.pairs.len() < PAIRS;
        if !room {
            tracing::warn!(limit = PAIRS, "too many peers are being met");
        }
        room && !self.here.apart
    }

    /// Whose key opens it: the meeting's number alone is chosen by the peer.
    fn on_probe(&mut self, from: SocketAddr, bytes: &Bytes) {
        let opened = |pair: &Pair| pair.keys.as_ref().and_then(|keys| keys.open(bytes));
        let Some((peer, probe)) = self.pairs.iter().find_map(|(peer, pair)| Some((*peer, opened(pair)?)))
        else {
            return;
        };
        let now = self.boot.now();
        if let Some(meeting) = self.pairs.get_mut(&peer).and_then(|pair| pair.meeting.as_mut()) {
            meeting.handle(Input::Probed { from, probe }, now);
            self.act(peer);
        }
    }

    fn on_opened(&mut self, session: Session) {
        let peer = session.peer();
        if let Some(pair) = self.pairs.get_mut(&peer) {
            (pair.session, pair.dialling) = (Some(session), false);
            self.move_on(peer);
            self.report(peer);
        }
    }

    fn on_closed(&mut self, session: &Session, reason: &str) {
        let peer = session.peer();
        let Some(pair) = self.pairs.get_mut(&peer) else { return };
        // Another one may have replaced it.
        pair.session = self.around.endpoint.session(peer);
        if pair.session.is_none() {
            pair::closed(pair, peer, reason);
            self.forget_if_idle(peer);
        }
    }

    fn on_path(&mut self, session: &Session) {
        let peer = session.peer();
        let lost = matches!(session.path(), Path::Relay(_));
        let Some(pair) = self.pairs.get_mut(&peer) else { return };
        tracing::info!(peer = %peer.short(), path = %session.path(), "a session goes by another path");
        // While a direct path is being opened the relay still carries.
        if lost && !pair.dialling && pair.wanted().is_some() {
            let now = self.boot.now();
            if let Some(meeting) = &mut pair.meeting {
                meeting.handle(Input::DirectLost, now);
            }
            self.act(peer);
        }
        self.report(peer);
    }

    /// What was seen before may be true no more, even if the own addresses are the same.
    fn on_here(&mut self, here: Here) {
        self.here = here;
        if self.here.apart {
            return self.pairs.clear();
        }
        self.look_again = self.looking;
        if let Some(sight) = &mut self.sight {
            sight.expire();
        }
        if self.pairs.values().any(|pair| pair.session.is_some()) {
            self.look();
        }
    }

    fn check(&mut self, answer: oneshot::Sender<Checked>) {
        let (sight, relays) = (self.take_sight(), self.around.relays.clone());
        self.beside.spawn(async move {
            // Who asked may have gone.
            let (sight, relays, proxy) = (sight.await, relays.standing().await, relays.proxy());
            let _ = answer.send(Checked { sight, relays, proxy });
            Done::Checked
        });
    }

    pub(super) fn report(&mut self, peer: NodeId) {
        if let Some(pair) = self.pairs.get_mut(&peer) {
            pair.report();
        }
    }

    pub(super) fn forget_if_idle(&mut self, peer: NodeId) {
        if self.pairs.get(&peer).is_some_and(Pair::is_idle) {
            self.pairs.remove(&peer);
        }
    }
}
