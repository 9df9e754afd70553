//! The distributed hash table: inputs and time flow in, intentions flow out, as with [`Node`](crate::Node). Kademlia with
//! 160-bit keys; who serves, how values are found, kept and handed on, and how the halves of a split network meet again.

mod calls;
mod contact;
mod distance;
mod input;
mod intent;
mod keeping;
mod listening;
mod lookup;
mod lookups;
mod message;
mod publication;
mod record;
mod role;
mod serving;
mod store;
mod table;
pub mod timing;
mod upkeep;

use std::collections::BTreeMap;
use std::time::Duration;

use muster_types::{Instant, Key};
use rand::RngCore;

pub use self::contact::{Handle, Reliability};
pub use self::distance::{ById, Distance, Names};
pub use self::input::{CallId, Care, Input, OpId, Standing, Ticket, Wish};
pub use self::intent::{Effort, Intent, Kept};
pub use self::message::{Answer, CONTACTS, OFFERED, Refusal, Request, Sender, Service};
pub use self::record::{Kind, RECORD_BYTES, Record};
pub use self::timing::{SET, Settings};

use self::calls::{Call, Calls, Overdue, Purpose};
use self::contact::RoundTrip;
use self::keeping::Keeping;
use self::listening::Listening;
use self::lookup::Lookup;
use self::publication::Publications;
use self::role::Role;
use self::store::Store;
use self::table::{Farewell, Table, Welcome};
use self::upkeep::Upkeep;

/// The hash table's machine, for contacts that stand behind a handle `C`.
///
/// # Driving it
///
/// Call [`handle`](Self::handle) for each input and [`handle_timeout`](Self::handle_timeout) when the time comes that
/// [`poll_timeout`](Self::poll_timeout) names; after each call act on the intents that have been added to [`Turn::intents`],
/// in order. Inputs that wait go before timers that are due.
///
/// `now` never falls, and runs on while the host sleeps. Same calls, same intents. Handles are compared by value: one contact
/// has one handle. Which handles the machine still has is told by [`contacts`](Self::contacts); others may be forgotten once
/// the requests to them have ended.
#[derive(Debug)]
pub struct Dht<C> {
    own: Key,
    table: Table<C>,
    calls: Calls<C>,
    lookups: BTreeMap<u32, Box<Lookup<C>>>,
    begun: u32,
    role: Role<C>,
    store: Store,
    upkeep: Upkeep<C>,
    keeping: Keeping,
    publications: Publications<C>,
    listening: Listening<C>,
}

/// What one call of the machine may use. The intents' queue belongs to the caller: a million machines share one.
pub struct Turn<'a, C, N> {
    pub now: Instant,
    pub settings: &'a Settings,
    pub names: &'a N,
    pub rng: &'a mut dyn RngCore,
    pub intents: &'a mut Vec<Intent<C>>,
}

/// What can be told of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    pub service: Service,
    pub contacts: usize,
    pub away: usize,
    pub buckets: usize,
    /// How many serve in the whole network, estimated.
    pub servers: u64,
    pub records: usize,
    pub record_bytes: usize,
    pub lookups: usize,
}

impl<C: Handle> Dht<C> {
    /// A client that knows nobody; [`Input::Standing`] and [`Input::Bootstrap`] bring it to life.
    pub fn new(own: Key, settings: &Settings) -> Self {
        Self {
            own,
            table: Table::new(own, settings.bucket),
            calls: Calls::default(),
            lookups: BTreeMap::new(),
            begun: 0,
            role: Role::default(),
            store: Store::default(),
            upkeep: Upkeep::default(),
            keeping: Keeping::default(),
            publications: Publications::default(),
            listening: Listening::default(),
        }
    }

    /// Something happened.
    pub fn handle<N: Names<C>>(&mut self, input: Input<C>, turn: &mut Turn<'_, C, N>) {
        match input {
            Input::Standing(standing) => self.stand(standing, turn),
            Input::Bootstrap(contacts) => self.meet_bootstraps(contacts, turn),
            Input::Remembered(contacts) => self.upkeep.remember_all(contacts, turn.rng),
            Input::Heard { from, round_trip } => self.hear(from, round_trip, turn),
            Input::Asked { from, ticket, request } => self.serve(from, ticket, request, turn),
            Input::Answered { from, call, answer } => self.on_answer(from, call, answer, turn),
            Input::Failed { call } => {
                if let Some(call) = self.calls.failed(call) {
                    self.lose(call, turn);
                }
            }
            Input::Find { op, target, care } => self.find(op, target, care, turn),
            Input::Get { op, key, kind, wish, care } => self.get(op, key, kind, wish, care, turn),
            Input::Put { op, record, care } => self.put(op, record, care, turn),
            Input::Listen { op, key, kind } => self.listen(op, key, kind, turn),
            Input::AskOne { op, to, request } => self.ask_one(op, to, request, turn),
            Input::Cancel { op } => self.cancel(op),
            Input::WokeUp => self.wake_up(turn),
            Input::Leave => self.leave(turn),
        }
        self.end_parting(turn);
    }

    /// The time that [`poll_timeout`](Self::poll_timeout) named has come, or passed.
    pub fn handle_timeout<N: Names<C>>(&mut self, turn: &mut Turn<'_, C, N>) {
        while let Some(overdue) = self.calls.take_overdue(turn.now) {
            match overdue {
                Overdue::Late(call) => self.on_late(call, turn),
                Overdue::Lost(call) => self.lose(call, turn),
            }
        }
        self.tend(turn);
        self.renew_listening(turn);
        self.renew_own(turn);
        self.end_parting(turn);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest; `None`: nothing will happen by itself.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let dates = [
            self.calls.next(),
            self.upkeep.next(),
            self.listening.next(),
            self.publications.next(),
            self.keeping.next(),
        ];
        dates.into_iter().flatten().min()
    }

    pub fn key(&self) -> Key {
        self.own
    }

    pub fn service(&self) -> Service {
        self.role.service()
    }

    /// Every handle that the machine may still hand on or ask by itself.
    pub fn contacts(&self) -> impl Iterator<Item = C> {
        let table = self.table.entries().iter().map(|entry| entry.contact);
        table.chain(self.upkeep.contacts()).chain(self.role.lsn())
    }

    /// The closest that are known to live, closest first.
    pub fn closest<N: Names<C>>(&self, target: Key, count: usize, names: &N) -> Vec<C> {
        let found = self.table.closest(target, count, names, |entry| entry.is_good());
        found.into_iter().map(|(_, contact)| contact).collect()
    }

    /// What has been learnt of a contact of the table.
    pub fn reliability<N: Names<C>>(&self, contact: C, now: Instant, names: &N) -> Option<Reliability> {
        self.table.reliability(contact, now, names)
    }

    /// The records that this node is to hold, in the order of their keys.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.store.records()
    }

    pub fn stats(&self) -> Stats {
        let away = self.table.entries().iter().filter(|entry| entry.is_away()).count();
        Stats {
            service: self.role.service(),
            contacts: self.table.entries().len(),
            away,
            buckets: self.table.buckets(),
            servers: self.table.estimate() + u64::from(self.role.serves()),
            records: self.store.len(),
            record_bytes: self.store.bytes(),
            lookups: self.lookups.len(),
        }
    }

    /// Sends a request; `false`: too much is under way.
    fn ask<N: Names<C>>(
        &mut self,
        to: C,
        purpose: Purpose,
        request: Request,
        turn: &mut Turn<'_, C, N>,
    ) -> bool {
        let known =
            self.table.find(to, turn.names.key(to)).map_or(RoundTrip::UNKNOWN, |entry| entry.round_trip);
        let call = self.calls.begin(to, purpose, known, turn.now);
        if let Some(call) = call {
            turn.intents.push(Intent::Ask { to, call, request });
        }
        call.is_some()
    }

    fn on_answer<N: Names<C>>(
        &mut self,
        from: Sender<C>,
        id: CallId,
        answer: Answer<C>,
        turn: &mut Turn<'_, C, N>,
    ) {
        let call = self.calls.answered(id, from.contact, turn.now);
        self.hear(from, call.as_ref().map(|&(_, round_trip)| round_trip), turn);
        let Some((call, _)) = call else { return };
        match call.purpose {
            Purpose::Lookup(lookup) => self.on_lookup_answer(lookup, call.to, answer, turn),
            Purpose::Check | Purpose::Parting => self.on_checked(call.to, &answer, turn),
            Purpose::Question => self.on_question_answer(answer, turn),
            Purpose::Publish(op) => self.on_published(op, call.to, &answer, turn),
            Purpose::Offer => self.on_wanted(call.to, answer, turn),
            Purpose::Listen | Purpose::Give => {}
            Purpose::One(op) => turn.intents.push(Intent::Answered { op, answer: Some(answer) }),
        }
    }

    /// An authenticated sign of life. Who serves belongs into the table, who does not serve any more leaves it.
    fn hear<N: Names<C>>(
        &mut self,
        from: Sender<C>,
        round_trip: Option<Duration>,
        turn: &mut Turn<'_, C, N>,
    ) {
        let contact = from.contact;
        if turn.names.key(contact) == self.own {
            return;
        }
        if from.service == Service::Client {
            return self.table.remove(contact, turn.names);
        }
        self.upkeep.no_longer_away(contact);
        match self.table.heard(contact, from.service == Service::Office, turn.now, turn.names) {
            Welcome::Known => {}
            Welcome::Added => self.greet(contact, turn),
            Welcome::AddedFor(gone) => {
                self.upkeep.remember(gone, turn.rng);
                self.greet(contact, turn);
            }
            Welcome::Waits { doubtful: Some(oldest) } => self.check(oldest, turn),
            Welcome::Waits { doubtful: None } => {}
        }
        if let Some(round_trip) = round_trip {
            self.table.answered(contact, round_trip, turn.names);
        }
    }

    fn on_late<N: Names<C>>(&mut self, call: Call<C>, turn: &mut Turn<'_, C, N>) {
        self.table.doubt(call.to, turn.names);
        if let Purpose::Lookup(lookup) = call.purpose {
            self.on_lookup_late(lookup, call.to, turn);
        }
    }

    /// No answer will come.
    fn lose<N: Names<C>>(&mut self, call: Call<C>, turn: &mut Turn<'_, C, N>) {
        match self.table.failed(call.to, turn.names) {
            Farewell::Unknown => self.note_failure(call.to, turn),
            Farewell::Doubted => self.check(call.to, turn),
            Farewell::Away => turn.intents.push(Intent::Unreachable(call.to)),
            Farewell::Replaced(spare) => {
                turn.intents.push(Intent::Unreachable(call.to));
                self.upkeep.remember(call.to, turn.rng);
                self.check(spare, turn);
            }
        }
        match call.purpose {
            Purpose::Lookup(lookup) => self.on_lookup_failure(lookup, call.to, turn),
            Purpose::Publish(op) => self.on_unpublished(op, call.to, None, turn),
            Purpose::One(op) => turn.intents.push(Intent::Answered { op, answer: None }),
            Purpose::Check
            | Purpose::Question
            | Purpose::Offer
            | Purpose::Listen
            | Purpose::Give
            | Purpose::Parting => {}
        }
    }

    fn ask_one<N: Names<C>>(&mut self, op: OpId, to: C, request: Request, turn: &mut Turn<'_, C, N>) {
        if !self.ask(to, Purpose::One(op), request, turn) {
            turn.intents.push(Intent::Answered { op, answer: None });
        }
    }

    fn cancel(&mut self, op: OpId) {
        self.lookups.retain(|_, lookup| lookup.goal.op() != Some(op));
        self.listening.cancel(op);
        self.publications.cancel(op);
    }

    /// Whatever was asked is void; who is known may have gone meanwhile.
    fn wake_up<N: Names<C>>(&mut self, turn: &mut Turn<'_, C, N>) {
        self.table.doubt_all();
        for call in self.calls.clear() {
            match call.purpose {
                Purpose::Lookup(lookup) => self.on_lookup_failure(lookup, call.to, turn),
                Purpose::Publish(op) => self.on_unpublished(op, call.to, None, turn),
                Purpose::One(op) => turn.intents.push(Intent::Answered { op, answer: None }),
                _ => {}
            }
        }
        if self.role.serves() {
            self.join(turn);
        }
    }
}
