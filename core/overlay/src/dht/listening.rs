//! Listening: a lease at the closest holders of a key; they tell when what they hold changes, so that nobody polls.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_types::{Instant, Key, NodeId};

use super::calls::Purpose;
use super::contact::Handle;
use super::distance::Names;
use super::input::{Care, OpId};
use super::intent::Intent;
use super::lookup::{Goal, Lookup};
use super::message::{Answer, Refusal, Request};
use super::record::{Kind, Record};
use super::timing::{LEASE, LISTEN_AT, LISTENERS, SET};
use super::{Dht, Turn};

/// What this node listens for.
#[derive(Debug)]
struct Ear {
    key: Key,
    kind: Kind,
    renew: Instant,
    /// Of each publisher the newest told so far.
    told: BTreeMap<NodeId, u64>,
}

#[derive(Debug)]
pub(super) struct Listening<C> {
    own: BTreeMap<OpId, Ear>,
    /// Who wants to be told by this node, and until when.
    others: BTreeMap<(Key, Kind), Vec<(C, Instant)>>,
}

impl<C> Default for Listening<C> {
    fn default() -> Self {
        Self { own: BTreeMap::new(), others: BTreeMap::new() }
    }
}

impl<C: Handle> Listening<C> {
    pub(super) fn next(&self) -> Option<Instant> {
        self.own.values().map(|ear| ear.renew).min()
    }

    pub(super) fn cancel(&mut self, op: OpId) {
        self.own.remove(&op);
    }

    /// Another node listens, or listens on.
    pub(super) fn enter(
        &mut self,
        contact: C,
        key: Key,
        kind: Kind,
        lease: Duration,
        now: Instant,
    ) -> Answer<C> {
        for listeners in self.others.values_mut() {
            listeners.retain(|&(_, until)| until > now);
        }
        self.others.retain(|_, listeners| !listeners.is_empty());
        if self.others.values().map(Vec::len).sum::<usize>() >= LISTENERS {
            return Answer::Refused(Refusal::Full);
        }
        let lease = lease.min(LEASE);
        let listeners = self.others.entry((key, kind)).or_default();
        listeners.retain(|&(known, _)| known != contact);
        listeners.push((contact, now + lease));
        Answer::Listening { lease }
    }

    /// A record that is said to be news.
    pub(super) fn changed(&mut self, record: Record, intents: &mut Vec<Intent<C>>) {
        let ears = self.own.iter_mut().filter(|(_, ear)| (ear.key, ear.kind) == (record.key, record.kind));
        for (&op, ear) in ears {
            let told = ear.told.get(&record.publisher);
            let room = told.is_some() || ear.told.len() < SET;
            if room && told.is_none_or(|&told| told < record.sequence) {
                ear.told.insert(record.publisher, record.sequence);
                intents.push(Intent::Changed { op, record: record.clone() });
            }
        }
    }
}

impl<C: Handle> Dht<C> {
    pub(super) fn listen<N: Names<C>>(&mut self, op: OpId, key: Key, kind: Kind, turn: &mut Turn<'_, C, N>) {
        let ear = Ear { key, kind, renew: turn.now + LEASE / 2, told: BTreeMap::new() };
        self.listening.own.insert(op, ear);
        self.begin(Lookup::new(key, Goal::Listen { op, kind }, Care::Plain, turn.now), turn);
    }

    pub(super) fn on_holders_found<N: Names<C>>(
        &mut self,
        op: OpId,
        kind: Kind,
        lookup: Lookup<C>,
        turn: &mut Turn<'_, C, N>,
    ) {
        if !self.listening.own.contains_key(&op) {
            return;
        }
        let closest: Vec<_> = lookup.closest().take(LISTEN_AT).collect();
        for (_, holder) in closest {
            let request = Request::Listen { key: lookup.target, kind, lease: LEASE };
            self.ask(holder, Purpose::Listen, request, turn);
        }
        for record in lookup.records {
            self.listening.changed(record, turn.intents);
        }
    }

    /// Half a lease has passed; meanwhile others may be the closest.
    pub(super) fn renew_listening<N: Names<C>>(&mut self, turn: &mut Turn<'_, C, N>) {
        let mut due = Vec::new();
        for (&op, ear) in self.listening.own.iter_mut().filter(|(_, ear)| ear.renew <= turn.now) {
            ear.renew = turn.now + LEASE / 2;
            due.push((op, ear.key, ear.kind));
        }
        for (op, key, kind) in due {
            self.begin(Lookup::new(key, Goal::Listen { op, kind }, Care::Plain, turn.now), turn);
        }
    }

    pub(super) fn tell_listeners<N: Names<C>>(&mut self, record: &Record, turn: &mut Turn<'_, C, N>) {
        let mut listeners =
            self.listening.others.get(&(record.key, record.kind)).cloned().unwrap_or_default();
        listeners.retain(|&(_, until)| until > turn.now);
        for (contact, _) in listeners {
            self.ask(contact, Purpose::Give, Request::Changed { record: record.clone() }, turn);
        }
    }
}
