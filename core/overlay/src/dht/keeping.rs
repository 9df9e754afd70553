//! Keeping what is entrusted: sweeps that offer a region's records to those who should hold them, hand-over to a newcomer that
//! is closer, and to others when this node leaves. Only digests travel until somebody lacks a record.

use std::collections::BTreeMap;

use muster_types::{Instant, Key};
use rand::Rng;

use super::calls::Purpose;
use super::contact::{Entry, Handle};
use super::distance::{Distance, Names};
use super::intent::Intent;
use super::message::{Answer, OFFERED, Request};
use super::timing::{GIVEN, PARTING_PATIENCE};
use super::{Dht, Turn};

/// A newcomer gets its records from so many of its nearest neighbors, as one may fail.
const GODPARENTS: usize = 2;

#[derive(Debug, Default)]
pub(super) struct Keeping {
    next_sweep: Option<Instant>,
    /// This node leaves, by then at the latest.
    leaving: Option<Instant>,
}

impl Keeping {
    pub(super) fn next(&self) -> Option<Instant> {
        self.leaving
    }
}

impl<C: Handle> Dht<C> {
    /// Offers what nobody has seen to lately. A holder that does it first does it for all: an offer counts as seeing to it.
    pub(super) fn sweep<N: Names<C>>(&mut self, turn: &mut Turn<'_, C, N>) {
        let Some(due) = self.keeping.next_sweep.filter(|&due| due <= turn.now) else {
            let first = self.keeping.next_sweep.is_none();
            return if first {
                self.schedule_sweep(turn)
            };
        };
        self.schedule_sweep(turn);
        let mut offers: BTreeMap<C, Vec<u64>> = BTreeMap::new();
        for (key, digest) in self.store.take_untended(turn.settings.sweep / 2, due.max(turn.now)) {
            let closest = self.holders_of(key, turn);
            let own = Distance::between(self.own, key);
            if closest.len() >= turn.settings.k && closest.iter().all(|&(distance, _)| distance < own) {
                self.store.release(digest, turn.now);
            }
            for (_, contact) in closest {
                offers.entry(contact).or_default().push(digest);
            }
        }
        self.offer(offers, turn);
    }

    fn schedule_sweep<N: Names<C>>(&mut self, turn: &mut Turn<'_, C, N>) {
        let span = turn.settings.sweep.mul_f64(turn.rng.random_range(0.5..1.5));
        self.keeping.next_sweep = Some(turn.now + span);
    }

    fn holders_of<N: Names<C>>(&self, key: Key, turn: &Turn<'_, C, N>) -> Vec<(Distance, C)> {
        self.table.closest(key, turn.settings.k, turn.names, Entry::is_good)
    }

    fn offer<N: Names<C>>(&mut self, offers: BTreeMap<C, Vec<u64>>, turn: &mut Turn<'_, C, N>) {
        for (contact, digests) in offers {
            for digests in digests.chunks(OFFERED) {
                let request = Request::Offer { digests: digests.to_vec() };
                self.ask(contact, Purpose::Offer, request, turn);
            }
        }
    }

    /// Somebody lacks what was offered.
    pub(super) fn on_wanted<N: Names<C>>(&mut self, by: C, answer: Answer<C>, turn: &mut Turn<'_, C, N>) {
        let Answer::Wanted { digests } = answer else { return };
        for record in self.store.by_digest(&digests, GIVEN) {
            self.ask(by, Purpose::Give, Request::Store { record, cached: false }, turn);
        }
    }

    /// A newcomer: its nearest neighbors offer it what it is to hold.
    pub(super) fn greet<N: Names<C>>(&mut self, newcomer: C, turn: &mut Turn<'_, C, N>) {
        if !self.role.serves() || self.store.len() == 0 {
            return;
        }
        let key = turn.names.key(newcomer);
        let own = Distance::between(self.own, key);
        let others = self
            .table
            .closest(key, GODPARENTS, turn.names, |entry| entry.is_good() && entry.contact != newcomer);
        if others.len() >= GODPARENTS && others.iter().all(|&(distance, _)| distance < own) {
            return;
        }
        let keys: Vec<_> = self.store.records().map(|record| (record.key, record.digest())).collect();
        let mut digests = Vec::new();
        for (key, digest) in keys {
            if self.holders_of(key, turn).iter().any(|&(_, contact)| contact == newcomer) {
                digests.push(digest);
            }
        }
        self.offer(BTreeMap::from([(newcomer, digests)]), turn);
    }

    /// Without this node the farthest of the others becomes a holder.
    pub(super) fn hand_over<N: Names<C>>(&mut self, turn: &mut Turn<'_, C, N>) {
        let keys: Vec<_> = self.store.records().map(|record| (record.key, record.digest())).collect();
        let mut offers: BTreeMap<C, Vec<u64>> = BTreeMap::new();
        for (key, digest) in keys {
            if let Some(&(_, heir)) = self.holders_of(key, turn).last() {
                offers.entry(heir).or_default().push(digest);
            }
        }
        self.offer(offers, turn);
    }

    pub(super) fn leave<N: Names<C>>(&mut self, turn: &mut Turn<'_, C, N>) {
        self.keeping.leaving = Some(turn.now + PARTING_PATIENCE);
        if self.role.serves() {
            self.hand_over(turn);
            let near: Vec<_> = self.table.near(turn.settings.k).iter().map(|entry| entry.contact).collect();
            for neighbor in near {
                self.ask(neighbor, Purpose::Parting, Request::Parting, turn);
            }
        }
        self.upkeep.stop();
        self.end_parting(turn);
    }

    pub(super) fn end_parting<N: Names<C>>(&mut self, turn: &mut Turn<'_, C, N>) {
        let Some(limit) = self.keeping.leaving else { return };
        let owed = [Purpose::Offer, Purpose::Give, Purpose::Parting].map(|purpose| self.calls.with(purpose));
        if turn.now >= limit || owed.iter().sum::<usize>() == 0 {
            self.keeping.leaving = None;
            turn.intents.push(Intent::Parted);
        }
    }
}
