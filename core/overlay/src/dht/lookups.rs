//! Lookups under way: where they begin, whom they ask, what they learn, and what becomes of what they found.

use muster_types::Key;

use super::calls::Purpose;
use super::contact::{Entry, Handle, RoundTrip};
use super::distance::{Distance, Names};
use super::input::{Care, OpId, Wish};
use super::intent::Intent;
use super::lookup::{Goal, Lookup, Move};
use super::message::{Answer, CONTACTS, Request};
use super::record::{Kind, Record};
use super::timing::LOOKUPS;
use super::{Dht, Turn};

impl<C: Handle> Dht<C> {
    pub(super) fn find<N: Names<C>>(&mut self, op: OpId, target: Key, care: Care, turn: &mut Turn<'_, C, N>) {
        self.begin(Lookup::new(target, Goal::Find { op }, care, turn.now), turn);
    }

    pub(super) fn get<N: Names<C>>(
        &mut self,
        op: OpId,
        key: Key,
        kind: Kind,
        wish: Wish,
        care: Care,
        turn: &mut Turn<'_, C, N>,
    ) {
        let mut lookup = Lookup::new(key, Goal::Get { op, kind, wish }, care, turn.now);
        let own = self.store.find(key, kind, turn.now);
        if wish == Wish::First && !own.is_empty() {
            let effort = lookup.effort(turn.now);
            return turn.intents.push(Intent::Got { op, records: own, effort });
        }
        lookup.records = own;
        self.begin(lookup, turn);
    }

    pub(super) fn begin<N: Names<C>>(&mut self, mut lookup: Lookup<C>, turn: &mut Turn<'_, C, N>) {
        if self.lookups.len() >= LOOKUPS {
            return self.finish(lookup, turn);
        }
        self.seed(&mut lookup, turn);
        self.begun = self.begun.wrapping_add(1);
        self.lookups.insert(self.begun, Box::new(lookup));
        self.drive(self.begun, turn);
    }

    /// A client begins with its LSN, and with nobody else unless it is to guard against false answers.
    fn seed<N: Names<C>>(&self, lookup: &mut Lookup<C>, turn: &Turn<'_, C, N>) {
        let lsn = self.role.lsn().filter(|_| !self.role.serves());
        let seed = |contact| self.seed_of(lookup.target, contact, turn.names);
        if let Some(seed) = lsn.map(seed) {
            lookup.seed(&[seed], 0, turn.settings);
            if !lookup.is_disjoint() {
                return;
            }
        }
        self.seed_from_table(lookup, turn);
    }

    /// The closest that are well; where these are few, whoever else is known.
    fn seed_from_table<N: Names<C>>(&self, lookup: &mut Lookup<C>, turn: &Turn<'_, C, N>) {
        let count = turn.settings.k.max(2 * turn.settings.paths);
        let closest =
            |admit: fn(&Entry<C>) -> bool| self.table.closest(lookup.target, count, turn.names, admit);
        let mut contacts: Vec<_> = closest(Entry::is_good).into_iter().map(|(_, contact)| contact).collect();
        if contacts.len() < turn.settings.alpha || lookup.reseeded {
            contacts.extend(closest(|entry| !entry.is_good()).into_iter().map(|(_, contact)| contact));
            contacts.extend(self.upkeep.contacts());
        }
        contacts.retain(|&contact| turn.names.key(contact) != self.own);
        let seeds: Vec<_> =
            contacts.into_iter().map(|contact| self.seed_of(lookup.target, contact, turn.names)).collect();
        lookup.seed(&seeds, 1, turn.settings);
    }

    fn seed_of<N: Names<C>>(&self, target: Key, contact: C, names: &N) -> (Distance, C, RoundTrip) {
        let key = names.key(contact);
        let round_trip = self.table.find(contact, key).map_or(RoundTrip::UNKNOWN, |entry| entry.round_trip);
        (Distance::between(target, key), contact, round_trip)
    }

    /// Asks whom the lookup wants asked, until it waits or is done.
    fn drive<N: Names<C>>(&mut self, id: u32, turn: &mut Turn<'_, C, N>) {
        while let Some(lookup) = self.lookups.get_mut(&id) {
            match lookup.next(turn.settings) {
                Move::Wait => return,
                Move::Done => return self.conclude(id, turn),
                Move::Ask(contact, _) => {
                    let request = match lookup.goal.value() {
                        Some(kind) => Request::FindValue { key: lookup.target, kind },
                        None => Request::FindNode { target: lookup.target },
                    };
                    if !self.ask(contact, Purpose::Lookup(id), request, turn)
                        && let Some(lookup) = self.lookups.get_mut(&id)
                    {
                        lookup.failed(contact);
                    }
                }
            }
        }
    }

    /// Done, unless there are others to ask: nobody has answered but perhaps the LSN, or nothing was found on one path.
    fn conclude<N: Names<C>>(&mut self, id: u32, turn: &mut Turn<'_, C, N>) {
        let Some(mut lookup) = self.lookups.remove(&id) else { return };
        let alone = !lookup.has_answers() && lookup.records.is_empty() && !lookup.reseeded;
        if alone || lookup.try_harder() {
            lookup.reseeded = alone;
            self.seed_from_table(&mut lookup, turn);
            self.lookups.insert(id, lookup);
            return self.drive(id, turn);
        }
        self.finish(*lookup, turn);
    }

    fn finish<N: Names<C>>(&mut self, lookup: Lookup<C>, turn: &mut Turn<'_, C, N>) {
        let effort = lookup.effort(turn.now);
        match &lookup.goal {
            Goal::Own => self.on_joined(&lookup, turn),
            &Goal::Find { op } => {
                let closest = lookup.closest().map(|(_, contact)| contact).take(turn.settings.k).collect();
                turn.intents.push(Intent::Found { op, closest, effort });
            }
            &Goal::Get { op, .. } => {
                self.leave_copies(&lookup, turn);
                turn.intents.push(Intent::Got { op, records: lookup.records, effort });
            }
            &Goal::Listen { op, kind } => self.on_holders_found(op, kind, lookup, turn),
            Goal::Put { op, record } => self.publish(*op, record.clone(), &lookup, turn),
        }
    }

    /// Caching at the nearest miss: the next who asks that way finds it there.
    fn leave_copies<N: Names<C>>(&mut self, lookup: &Lookup<C>, turn: &mut Turn<'_, C, N>) {
        let Some(newest) = lookup.records.first() else { return };
        for contact in lookup.missed() {
            let request = Request::Store { record: newest.clone(), cached: true };
            self.ask(contact, Purpose::Give, request, turn);
        }
    }

    pub(super) fn on_lookup_answer<N: Names<C>>(
        &mut self,
        id: u32,
        by: C,
        answer: Answer<C>,
        turn: &mut Turn<'_, C, N>,
    ) {
        let Some(lookup) = self.lookups.get_mut(&id) else { return };
        let (records, closest) = match answer {
            Answer::Nodes { closest } => (Vec::new(), closest),
            Answer::Value { records, closest } => (records, closest),
            Answer::Refused(_)
            | Answer::Pong { .. }
            | Answer::Stored
            | Answer::Wanted { .. }
            | Answer::Listening { .. } => {
                lookup.failed(by);
                return self.drive(id, turn);
            }
        };
        let (target, kind) = (lookup.target, lookup.goal.value());
        let fits =
            |record: &Record| record.key == target && Some(record.kind) == kind && record.expires > turn.now;
        for contact in closest.into_iter().take(CONTACTS) {
            let key = turn.names.key(contact);
            let known = self.table.find(contact, key);
            if key == self.own || known.is_some_and(Entry::is_away) {
                continue;
            }
            let round_trip = known.map_or(RoundTrip::UNKNOWN, |entry| entry.round_trip);
            lookup.learn(by, Distance::between(target, key), contact, round_trip);
        }
        lookup.answered(by, records.into_iter().filter(fits).collect());
        self.drive(id, turn);
    }

    pub(super) fn on_lookup_late<N: Names<C>>(&mut self, id: u32, contact: C, turn: &mut Turn<'_, C, N>) {
        if let Some(lookup) = self.lookups.get_mut(&id) {
            lookup.late(contact);
            self.drive(id, turn);
        }
    }

    pub(super) fn on_lookup_failure<N: Names<C>>(&mut self, id: u32, contact: C, turn: &mut Turn<'_, C, N>) {
        if let Some(lookup) = self.lookups.get_mut(&id) {
            lookup.failed(contact);
            self.drive(id, turn);
        }
    }
}
