//! The loop: what wants to end first, then commands, then datagrams in batches, then timers.

mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use muster_overlay::dht::timing::CALL_LIMIT;
use muster_overlay::dht::{self, ById, CallId, Input, Intent, Kind, Settings, Standing, Turn};
use muster_types::{Instant, Key, NodeId};
use muster_wire::Signer;
use muster_wire::datagram::{Exchange, PeerAddress, Reply, RequestId};
use muster_wire::record::{self, Value};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot};

use super::book::Book;
use super::handle::{Command, DhtError, DhtEvent, Got};
use super::operations::{self, Operations, Waiter};
use super::{Clock, DhtConfig};
use crate::config::DateClock;
use crate::sealed::{Carrier, Sealed};

/// Datagrams that are worked off before timers are looked at.
const BATCH: usize = 64;

/// What runs out is looked for this often.
const SWEEP: Duration = Duration::from_secs(1);

/// Requests of others that the machine has yet to answer: it does so at once.
const ASKED: usize = 1_024;

pub(super) struct Shell {
    machine: dht::Dht<NodeId>,
    exchange: Exchange,
    reader: record::Reader,
    book: Book,
    operations: Operations,
    /// Own requests: by what they are known to the sessions, and when they began.
    calls: HashMap<RequestId, (CallId, NodeId)>,
    begun: VecDeque<(Instant, RequestId)>,
    asked: BTreeMap<dht::Ticket, Reply>,
    tickets: u64,
    intents: Vec<Intent<NodeId>>,
    leaving: Option<oneshot::Sender<()>>,
    signer: Signer,
    trust: Arc<arc_swap::ArcSwap<muster_wire::TrustStore>>,
    settings: Settings,
    clock: Clock,
    dates: DateClock,
    rng: StdRng,
    carrier: Arc<dyn Carrier>,
    events: mpsc::Sender<DhtEvent>,
}

impl Shell {
    pub(super) fn new(config: DhtConfig, carrier: Arc<dyn Carrier>, events: mpsc::Sender<DhtEvent>) -> Self {
        let DhtConfig { own, signer, trust, clock, dates, settings, limits } = config;
        let node = own.node();
        Self {
            machine: dht::Dht::new(node.into(), &settings),
            exchange: Exchange::new(own, limits, clock()),
            reader: record::Reader::default(),
            book: Book::default(),
            operations: Operations::default(),
            calls: HashMap::new(),
            begun: VecDeque::new(),
            asked: BTreeMap::new(),
            tickets: 0,
            intents: Vec::new(),
            leaving: None,
            signer,
            trust,
            settings,
            clock,
            dates,
            rng: StdRng::from_os_rng(),
            carrier,
            events,
        }
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut datagrams: mpsc::Receiver<Sealed>,
    ) {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            let now = self.now();
            let timer = self.machine.poll_timeout().map(|due| due.since(now));
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                datagram = datagrams.recv() => match datagram {
                    Some(datagram) => self.on_datagrams(datagram, &mut datagrams),
                    None => return,
                },
                () = tokio::time::sleep(timer.unwrap_or(SWEEP)), if timer.is_some() => self.on_timer(),
                _ = sweep.tick() => self.sweep(),
            }
            self.act();
        }
    }

    fn now(&self) -> Instant {
        (self.clock)()
    }

    fn handle(&mut self, input: Input<NodeId>) {
        let now = self.now();
        let mut turn = Turn {
            now,
            settings: &self.settings,
            names: &ById,
            rng: &mut self.rng,
            intents: &mut self.intents,
        };
        self.machine.handle(input, &mut turn);
    }

    fn on_timer(&mut self) {
        let now = self.now();
        let mut turn = Turn {
            now,
            settings: &self.settings,
            names: &ById,
            rng: &mut self.rng,
            intents: &mut self.intents,
        };
        self.machine.handle_timeout(&mut turn);
    }

    fn sweep(&mut self) {
        let now = self.now();
        self.exchange.expire(now);
        while let Some((_, request)) = self.begun.pop_front_if(|(began, _)| now.since(*began) >= CALL_LIMIT) {
            self.exchange.give_up(request);
            if let Some((_, node)) = self.calls.remove(&request) {
                self.book.doubt(node);
            }
        }
        if self.book.is_full() {
            let asked = self.calls.values().map(|(_, node)| *node);
            let wanted: BTreeSet<_> = self.machine.contacts().chain(asked).collect();
            self.book.keep_only(&wanted);
        }
    }

    /// Does what the machine wants, until it wants nothing more.
    fn act(&mut self) {
        while !self.intents.is_empty() {
            for intent in std::mem::take(&mut self.intents) {
                self.do_intent(intent);
            }
        }
        self.flush();
    }

    fn do_intent(&mut self, intent: Intent<NodeId>) {
        match intent {
            Intent::Ask { to, call, request } => self.ask(to, call, &request),
            Intent::Reply { ticket, answer, .. } => self.reply(ticket, &answer),
            Intent::Found { op, closest, effort } => {
                if let Some(Waiter::Find(done)) = self.operations.end(op) {
                    let found = closest.into_iter().filter_map(|node| self.book.address(node)).collect();
                    // Who asked may have gone; here and below.
                    let _ = done.send((found, effort));
                }
            }
            Intent::Got { op, records, effort } => {
                if let Some(Waiter::Get(key, done)) = self.operations.end(op) {
                    let _ = done.send(self.got(key, records, effort));
                }
            }
            Intent::Put { op, kept, effort } => {
                if let Some(Waiter::Put(done)) = self.operations.end(op) {
                    let _ = done.send(Operations::verdict(kept, effort));
                }
            }
            Intent::Answered { op, answer } => {
                if let Some(Waiter::One(done)) = self.operations.end(op) {
                    let _ = done.send(answer);
                }
            }
            Intent::Renew { key, kind } => self.renew(key, kind),
            Intent::Changed { record, .. } => self.tell(DhtEvent::Changed(record)),
            Intent::Unreachable(node) => self.tell(DhtEvent::Unreachable(node)),
            Intent::Serves(service) => self.tell(DhtEvent::Serves(service)),
            Intent::Parted => {
                if let Some(done) = self.leaving.take() {
                    let _ = done.send(());
                }
            }
        }
    }

    fn tell(&self, event: DhtEvent) {
        if self.events.try_send(event).is_err() {
            tracing::trace!("nobody listens to the table's events");
        }
    }

    fn got(&mut self, key: Key, mut records: Vec<dht::Record>, effort: dht::Effort) -> Result<Got, DhtError> {
        operations::newest_first(&mut records);
        let trust = self.trust.load_full();
        let at = self.moment(&trust);
        let found: Vec<_> =
            records.iter().filter_map(|record| self.reader.read(&record.bytes, &at).ok()).collect();
        if found.is_empty() { Err(operations::missing(key, effort)) } else { Ok(Got { found, effort }) }
    }

    fn put(&mut self, key: Key, value: &Value, waiter: Waiter) {
        let moment = (self.now(), (self.dates)());
        match record::sign(key, value, record::LIFE, &self.signer, moment) {
            Ok(record) => {
                let op = self.operations.begin(waiter);
                self.handle(Input::Put { op, record, care: dht::Care::Plain });
            }
            Err(error) => match waiter {
                Waiter::Put(done) => {
                    let _ = done.send(Err(DhtError::Record(error)));
                }
                _ => tracing::warn!(%key, %error, "an own record cannot be renewed"),
            },
        }
    }

    fn renew(&mut self, key: Key, kind: Kind) {
        if let Some(value) = self.operations.published(key, kind).cloned() {
            self.put(key, &value, Waiter::Nobody);
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Standing(standing) => {
                let lsn = standing.lsn.map(|lsn| self.hear_of(lsn));
                let Standing { reachable, office, .. } = standing;
                self.handle(Input::Standing(Standing { reachable, office, lsn }));
            }
            Command::Bootstrap(contacts) => {
                let contacts = contacts.into_iter().map(|contact| self.hear_of(contact)).collect();
                self.handle(Input::Bootstrap(contacts));
            }
            Command::Remembered(contacts) => {
                let contacts = contacts.into_iter().map(|contact| self.hear_of(contact)).collect();
                self.handle(Input::Remembered(contacts));
            }
            Command::Find { target, care, done } => {
                let op = self.operations.begin(Waiter::Find(done));
                self.handle(Input::Find { op, target, care });
            }
            Command::Get { key, kind, wish, care, done } => {
                let op = self.operations.begin(Waiter::Get(key, done));
                self.handle(Input::Get { op, key, kind, wish, care });
            }
            Command::Put { key, value, keep, done } => {
                if keep {
                    self.operations.keep(key, (*value).clone());
                }
                self.put(key, &value, Waiter::Put(done));
            }
            Command::AskOne { to, request, done } => {
                let (to, op) = (self.hear_of(to), self.operations.begin(Waiter::One(done)));
                self.handle(Input::AskOne { op, to, request });
            }
            Command::Listen { key, kind } => {
                let op = self.operations.begin(Waiter::Listen);
                self.handle(Input::Listen { op, key, kind });
            }
            other => self.on_matter(other),
        }
    }

    /// What does not go to the machine, or ends something.
    fn on_matter(&mut self, command: Command) {
        match command {
            Command::Stats(done) => {
                let _ = done.send((self.machine.stats(), self.exchange.counts(), self.exchange.sessions()));
            }
            Command::Locate(nodes, done) => {
                let _ = done.send(nodes.into_iter().filter_map(|node| self.book.address(node)).collect());
            }
            Command::Sample(count, done) => {
                let _ = done.send(self.sample(count));
            }
            Command::Renewed(renewed) => {
                let (own, signer) = *renewed;
                self.exchange.set_own(own, self.now());
                self.signer = signer;
            }
            Command::Forget(whom) => {
                self.exchange.forget(whom);
                let trust = self.trust.load();
                self.reader.forget(|node| trust.revocations().of_node(node).is_some());
            }
            Command::NetworkChanged => self.exchange.network_changed(),
            Command::WokeUp => {
                self.exchange.network_changed();
                self.handle(Input::WokeUp);
            }
            Command::Leave(done) => {
                self.leaving = Some(done);
                self.handle(Input::Leave);
            }
            _ => {}
        }
    }

    fn hear_of(&mut self, address: PeerAddress) -> NodeId {
        self.book.hear_of(address);
        address.node
    }

    /// The closest to keys drawn at random: as diverse as the table itself.
    fn sample(&mut self, count: usize) -> Vec<PeerAddress> {
        use rand::Rng;
        let mut nodes = BTreeSet::new();
        for _ in 0..2 * count {
            let target = Key(self.rng.random());
            nodes.extend(self.machine.closest(target, 1, &ById));
            if nodes.len() >= count {
                break;
            }
        }
        nodes.into_iter().filter_map(|node| self.book.address(node)).take(count).collect()
    }
}
