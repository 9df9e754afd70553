//! Sessions with nodes of other places. A task of its own runs one machine a peer: calls go out by the driver, probes by the
//! overlay's socket, and a session begins by a relay and moves to the direct path when there is one.
//!
//! [`Command`] (people, driver, sockets) and [`relays::Event`] -> machines -> [`Outgoing`], probes, sessions.

mod act;
mod pair;
mod sight;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use muster_kit::clock::{BootClock, MasterClock};
use muster_net::{Endpoint, Path, Session};
use muster_overlay::meeting::{Input, Meeting};
use muster_proto::trust::v1::Envelope;
use muster_types::NodeId;
use muster_wire::call::Called;
use muster_wire::meeting::{self, ProbeKeys};
use muster_wire::sealing::SealingKey;
use muster_wire::ticket::NodeTicket;
use muster_wire::{Signer, TrustStore, Verifier};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::keyring::Keyring;
use crate::relays::{self, Relays, Standing};

pub(crate) use pair::Progress;
pub(crate) use sight::Sight;

use pair::{Pair, Sealing};

/// Commands that wait for the task; probes and calls beyond it are lost, as on any network.
const COMMANDS: usize = 512;

/// Calls that wait for the driver.
const OUTGOING: usize = 64;

/// Peers at once. Who is met stays as long as its session.
const PAIRS: usize = 256;

/// Progress reports that wait for one who asked.
pub(crate) const REPORTS: usize = 64;

/// A timer that is not set is looked at again after this.
const IDLE: Duration = Duration::from_secs(3_600);

/// What the task is told.
pub(crate) enum Command {
    /// Somebody wants a session, and to hear how it comes about.
    Reach {
        peer: NodeId,
        reports: mpsc::Sender<Progress>,
    },
    /// Another node's call, unopened.
    Called(Box<Envelope>),
    Probe {
        from: SocketAddr,
        bytes: Bytes,
    },
    Opened(Session),
    Closed(Session, String),
    PathChanged(Session),
    /// The overlay's own addresses, if they changed.
    Addresses(Vec<SocketAddr>),
    /// Signs as before the renewal no more.
    Renewed(Box<Hand>),
    Check(oneshot::Sender<(Sight, Vec<Standing>)>),
}

/// What the driver carries for the task.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) to: NodeId,
    pub(crate) call: Envelope,
}

/// With which this node speaks for itself.
pub(crate) struct Hand {
    pub(crate) signer: Signer,
    pub(crate) noise_secret: [u8; 32],
    /// Opens calls that are sealed to this node.
    pub(crate) sealing: SealingKey,
}

/// What meetings are made with.
pub(crate) struct Surroundings {
    pub(crate) endpoint: Endpoint,
    pub(crate) relays: Relays,
    pub(crate) keyring: Keyring,
    pub(crate) hand: Hand,
    pub(crate) trust: Arc<ArcSwap<TrustStore>>,
    pub(crate) clock: MasterClock,
    pub(crate) network: muster_types::NetworkId,
}

/// A handle; the task ends with the last.
#[derive(Debug, Clone)]
pub(crate) struct Meetings {
    commands: mpsc::Sender<Command>,
    _task: Arc<Task>,
}

#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Meetings {
    pub(crate) fn spawn(
        around: Surroundings,
        relays: mpsc::Receiver<relays::Event>,
    ) -> (Self, mpsc::Receiver<Outgoing>) {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (outgoing, calls) = mpsc::channel(OUTGOING);
        let (done, results) = mpsc::channel(COMMANDS);
        let desk = Desk {
            around,
            outgoing,
            done,
            own: Vec::new(),
            sight: None,
            looking: false,
            pairs: BTreeMap::new(),
            numbers: HashMap::new(),
            boot: BootClock::new(),
        };
        let task = Arc::new(Task(tokio::spawn(desk.run(inbox, relays, results))));
        (Self { commands, _task: task }, calls)
    }

    /// Tells the task; what does not fit is lost.
    pub(crate) fn tell(&self, command: Command) {
        if self.commands.try_send(command).is_err() {
            tracing::debug!("the meetings do not keep up");
        }
    }
}

/// What ran beside the task.
enum Done {
    Seen(Sight),
    /// Of the pair with this number.
    Relays(NodeId, u64, Result<Vec<String>, String>),
    /// Of the peer of the pair with this number.
    Keys(NodeId, u64, Result<Box<NodeTicket>, String>),
    Dialled(NodeId, Result<Session, String>),
    /// A further path of the session.
    Moved(NodeId, Path, Result<(), String>),
    /// A relay granted no channel, or was not reached.
    NotRelayed(NodeId, String),
    Checked(oneshot::Sender<(Sight, Vec<Standing>)>, Sight, Vec<Standing>),
}

/// The task's state.
struct Desk {
    around: Surroundings,
    outgoing: mpsc::Sender<Outgoing>,
    done: mpsc::Sender<Done>,
    own: Vec<SocketAddr>,
    sight: Option<Sight>,
    looking: bool,
    pairs: BTreeMap<NodeId, Pair>,
    /// Whose meeting has this number.
    numbers: HashMap<u64, NodeId>,
    boot: BootClock,
}

impl Desk {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        mut relays: mpsc::Receiver<relays::Event>,
        mut results: mpsc::Receiver<Done>,
    ) {
        loop {
            let until = self.until_timer();
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                Some(event) = relays.recv() => self.on_relay(event),
                Some(done) = results.recv() => self.on_done(done),
                () = tokio::time::sleep(until) => self.on_timer(),
            }
        }
    }

    fn until_timer(&self) -> Duration {
        let now = self.boot.now();
        let machines = self.pairs.values().filter_map(|pair| pair.meeting.as_ref()?.poll_timeout());
        let machine = machines.min().map(|due| due.since(now));
        let reopen = self.pairs.values().filter_map(|pair| pair.reopen).min();
        let reopen = reopen.map(|due| due.saturating_duration_since(Instant::now()));
        machine.into_iter().chain(reopen).min().unwrap_or(IDLE)
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Reach { peer, reports } => self.reach(peer, reports),
            Command::Called(sealed) => self.on_call(&sealed),
            Command::Probe { from, bytes } => self.on_probe(from, &bytes),
            Command::Opened(session) => self.on_opened(session),
            Command::Closed(session, reason) => self.on_closed(&session, &reason),
            Command::PathChanged(session) => self.on_path(&session),
            Command::Addresses(own) => self.on_addresses(own),
            Command::Renewed(hand) => self.around.hand = *hand,
            Command::Check(answer) => self.check(answer),
        }
    }

    /// Begins to meet a peer, or tells how far that is.
    fn reach(&mut self, peer: NodeId, reports: mpsc::Sender<Progress>) {
        let standing = self.around.endpoint.session(peer);
        if !self.has_room_for(peer) {
            return;
        }
        let number = rand::random();
        let fresh = !self.pairs.contains_key(&peer);
        let pair = self.pairs.entry(peer).or_insert_with(|| Pair::new(number, false));
        pair.watchers.push(reports);
        pair.session = standing.or_else(|| pair.session.take());
        if fresh {
            self.numbers.insert(number, peer);
        }
        let pair = self.pairs.get_mut(&peer);
        if pair.is_some_and(|pair| pair.session.is_none() && (fresh || pair.is_idle_but_watched())) {
            self.begin(peer);
        }
        self.report(peer);
    }

    /// Finds the peer's keys and a relay and looks at itself, all at once; the machine begins when it knows where this node is.
    fn begin(&mut self, peer: NodeId) {
        let Some(pair) = self.pairs.get_mut(&peer) else { return };
        (pair.began, pair.called, pair.meeting, pair.trouble) = (Instant::now(), false, None, String::new());
        let (relays, done, number) = (self.around.relays.clone(), self.done.clone(), pair.number);
        tokio::spawn(async move {
            let found = relays.list().await;
            // The agent is about to end.
            let _ = done.send(Done::Relays(peer, number, found)).await;
        });
        self.seek_keys(peer);
        self.look();
    }

    fn seek_keys(&mut self, peer: NodeId) {
        let Some(pair) = self.pairs.get_mut(&peer) else { return };
        pair.sealing = Sealing::Sought;
        let (keyring, done, number) = (self.around.keyring.clone(), self.done.clone(), pair.number);
        tokio::spawn(async move {
            let found = keyring.find(peer).await.map_err(|error| error.to_string());
            let found = found.map(|(ticket, _)| Box::new(ticket));
            let _ = done.send(Done::Keys(peer, number, found)).await;
        });
    }

    /// Asks how this node is seen, unless that is known or under way.
    fn look(&mut self) {
        if self.sight.as_ref().is_some_and(|sight| sight.is_fresh(&self.own)) {
            return self.on_sight();
        }
        if std::mem::replace(&mut self.looking, true) {
            return;
        }
        let (around, own, done) = (self.looker(), self.own.clone(), self.done.clone());
        tokio::spawn(async move {
            let servers = around.1.servers().await;
            let sight = Sight::take(&around.0, own, &servers).await;
            let _ = done.send(Done::Seen(sight)).await;
        });
    }

    fn looker(&self) -> (Endpoint, Relays) {
        (self.around.endpoint.clone(), self.around.relays.clone())
    }

    /// It is known now where this node is: whoever waited for that begins.
    fn on_sight(&mut self) {
        let Some(sight) = &self.sight else { return };
        let own = sight.whereabouts();
        let waiting: Vec<_> =
            self.pairs.iter().filter(|(_, pair)| pair.meeting.is_none() && !pair.called).collect();
        // Relays are named in the call, and it is sealed, so these come first.
        let ready = waiting.into_iter().filter(|(_, pair)| pair.can_call());
        let ready: Vec<NodeId> = ready.map(|(peer, _)| *peer).collect();
        let now = self.boot.now();
        for peer in ready {
            if let Some(pair) = self.pairs.get_mut(&peer) {
                let meeting = pair.meeting.insert(Meeting::call(own.clone(), now));
                meeting.handle(Input::Relay(pair.behind.is_some()), now);
            }
            self.act(peer);
        }
        for peer in self.pairs.keys().copied().collect::<Vec<_>>() {
            self.answer_waiting(peer);
        }
    }

    fn on_call(&mut self, sealed: &Envelope) {
        let trust = self.around.trust.load_full();
        let verifier = Verifier { trust: &trust, now: self.around.clock.now() };
        let own = self.around.endpoint.node();
        let called = match Called::open(sealed, own, &self.around.hand.sealing, &verifier) {
            Ok(called) => called,
            Err(error) => return tracing::info!(%error, "a call is not believed"),
        };
        if self.has_room_for(called.from) {
            self.on_called(called);
        }
    }

    /// When full, those that came to nothing give way.
    pub(super) fn has_room_for(&mut self, peer: NodeId) -> bool {
        if !self.pairs.contains_key(&peer) && self.pairs.len() >= PAIRS {
            for peer in self.pairs.keys().copied().collect::<Vec<_>>() {
                self.forget_if_idle(peer);
            }
        }
        let room = self.pairs.contains_key(&peer) || self.pairs.len() < PAIRS;
        if !room {
            tracing::warn!(limit = PAIRS, "too many peers are being met");
        }
        room
    }

    /// Both may call at once: then the number of the lower id's call counts.
    fn on_called(&mut self, Called { from, noise_key, sealing_key, call }: Called) {
        let own = self.around.endpoint.node();
        let pair = self.pairs.entry(from).or_insert_with(|| Pair::new(call.meeting, true));
        if pair.number != call.meeting {
            let mine_counts = !pair.called && own < from && pair.session.is_none();
            if mine_counts && !call.answer {
                return;
            }
            self.numbers.remove(&pair.number);
            (pair.number, pair.keys) = (call.meeting, None);
        }
        self.numbers.insert(call.meeting, from);
        pair.sealing = Sealing::Known(sealing_key);
        let secret = (own, &self.around.hand.noise_secret);
        let network = self.around.network;
        pair.keys.get_or_insert_with(|| ProbeKeys::new(network, call.meeting, secret, (from, &noise_key)));
        let named = || call.relays.iter().take(relays::OF_A_PAIR).cloned();
        let unknown: Vec<_> = named().filter(|relay| !pair.relays.contains(relay)).collect();
        pair.relays.extend(unknown);
        if !call.answer {
            for relay in named() {
                self.attend(from, relay);
            }
        }
        let told = Input::Told { peer: call.whereabouts, answer: call.answer };
        match self.pairs.get_mut(&from).map(|pair| (&mut pair.meeting, &mut pair.unheard)) {
            Some((Some(meeting), _)) => {
                meeting.handle(told, self.boot.now());
                self.act(from);
            }
            Some((None, unheard)) => {
                *unheard = Some(told);
                self.look();
            }
            None => {}
        }
    }

    /// A call waited until this node knew where it is.
    fn answer_waiting(&mut self, peer: NodeId) {
        let (Some(sight), Some(pair)) = (&self.sight, self.pairs.get_mut(&peer)) else { return };
        let Some(told) = pair.unheard.take() else { return };
        let own = sight.whereabouts();
        let relayed = pair.behind.is_some();
        let meeting = pair.meeting.get_or_insert_with(|| Meeting::called(own));
        let now = self.boot.now();
        meeting.handle(told, now);
        if relayed {
            meeting.handle(Input::Relay(true), now);
        }
        self.act(peer);
    }

    fn on_probe(&mut self, from: SocketAddr, bytes: &[u8]) {
        let peer = meeting::claimed(bytes).and_then(|number| self.numbers.get(&number).copied());
        let Some(peer) = peer else { return };
        let Some(pair) = self.pairs.get_mut(&peer) else { return };
        let opened = pair.keys.as_ref().and_then(|keys| keys.open(bytes));
        if let (Some(probe), Some(meeting)) = (opened, &mut pair.meeting) {
            meeting.handle(Input::Probed { from, probe }, self.boot.now());
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

    fn on_addresses(&mut self, own: Vec<SocketAddr>) {
        if self.own == own {
            return;
        }
        (self.own, self.sight) = (own, None);
        if self.pairs.values().any(|pair| pair.session.is_some()) {
            self.look();
        }
    }

    fn check(&mut self, answer: oneshot::Sender<(Sight, Vec<Standing>)>) {
        let (around, own, done) = (self.looker(), self.own.clone(), self.done.clone());
        tokio::spawn(async move {
            let servers = around.1.servers().await;
            let sight = Sight::take(&around.0, own, &servers).await;
            let _ = done.send(Done::Checked(answer, sight, around.1.standing().await)).await;
        });
    }

    fn report(&mut self, peer: NodeId) {
        if let Some(pair) = self.pairs.get_mut(&peer) {
            pair.report();
        }
    }

    fn forget_if_idle(&mut self, peer: NodeId) {
        if self.pairs.get(&peer).is_some_and(Pair::is_idle)
            && let Some(pair) = self.pairs.remove(&peer)
        {
            self.numbers.remove(&pair.number);
        }
    }
}
