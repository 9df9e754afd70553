//! The routing table: buckets by shared prefix, the last one of which holds this node's own neighborhood and splits when it is
//! full. Contacts that have been there long stay, unless they fail; newcomers wait among the spares.

use std::ops::Range;
use std::time::Duration;

use muster_types::{Instant, Key};

use super::contact::{Entry, Handle, Reliability};
use super::distance::{Distance, KEY_BITS, Names};
use super::timing::{DOUBTFUL, SPARES};

/// All entries in one vector, bucket after bucket; within a bucket the longest known first.
#[derive(Debug)]
pub(super) struct Table<C> {
    own: Key,
    entries: Vec<Entry<C>>,
    /// Entries of each bucket. Bucket i shares exactly i bits with `own`; the last, home, i or more.
    sizes: Vec<u16>,
    capacity: usize,
    spares: Vec<C>,
}

/// What became of a contact that showed itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Welcome<C> {
    Known,
    Added,
    /// In the room of one that was away.
    AddedFor(C),
    /// The bucket is full. If its oldest contact has been silent for long, it should be asked.
    Waits {
        doubtful: Option<C>,
    },
}

/// What became of a contact that did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell<C> {
    Unknown,
    /// It gets another chance.
    Doubted,
    /// It stays, as nobody waits for its room.
    Away,
    /// It has been replaced by a spare, that should be asked.
    Replaced(C),
}

impl<C: Handle> Table<C> {
    pub(super) fn new(own: Key, capacity: usize) -> Self {
        Self { own, entries: Vec::new(), sizes: vec![0], capacity, spares: Vec::new() }
    }

    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// A contact has shown that it lives and serves.
    pub(super) fn heard(
        &mut self,
        contact: C,
        office: bool,
        now: Instant,
        names: &impl Names<C>,
    ) -> Welcome<C> {
        let key = names.key(contact);
        if let Some(entry) = self.find_mut(contact, key) {
            entry.heard(now);
            entry.office = office;
            return Welcome::Known;
        }
        self.spares.retain(|&spare| spare != contact);
        let entry = Entry::new(contact, office, now);
        while !self.has_room(key) {
            if !self.may_split(key) {
                return self.crowd(entry, key, now);
            }
            self.split(names);
        }
        self.push(entry, key);
        Welcome::Added
    }

    /// A full bucket: the room of one that is away, or a place in the queue.
    fn crowd(&mut self, entry: Entry<C>, key: Key, now: Instant) -> Welcome<C> {
        let range = self.range(self.bucket(key));
        if let Some(place) = self.entries[range.clone()].iter().position(Entry::is_away) {
            let gone = self.entries.remove(range.start + place).contact;
            let end = range.end - 1;
            self.entries.insert(end, entry);
            return Welcome::AddedFor(gone);
        }
        if self.spares.len() >= SPARES {
            self.spares.remove(0);
        }
        self.spares.push(entry.contact);
        let oldest = self.entries[range].iter().max_by_key(|entry| entry.unheard(now));
        let doubtful = oldest.filter(|entry| entry.unheard(now) > DOUBTFUL).map(|entry| entry.contact);
        Welcome::Waits { doubtful }
    }

    /// A contact has not answered within the limit.
    pub(super) fn failed(&mut self, contact: C, names: &impl Names<C>) -> Farewell<C> {
        let key = names.key(contact);
        let Some(entry) = self.find_mut(contact, key) else { return Farewell::Unknown };
        entry.failed();
        if !entry.is_away() {
            return Farewell::Doubted;
        }
        let bucket = self.bucket(key);
        let waiting = self.spares.iter().rposition(|&spare| self.bucket(names.key(spare)) == bucket);
        let Some(waiting) = waiting else { return Farewell::Away };
        let spare = self.spares.remove(waiting);
        self.put_in_place_of(contact, spare, bucket);
        Farewell::Replaced(spare)
    }

    fn put_in_place_of(&mut self, gone: C, spare: C, bucket: usize) {
        let range = self.range(bucket);
        if let Some(place) = self.entries[range.clone()].iter().position(|entry| entry.contact == gone) {
            let office = self.entries.remove(range.start + place).office;
            let mut entry = Entry::new(spare, office, Instant::ZERO);
            entry.doubt();
            self.entries.insert(range.end - 1, entry);
        }
    }

    pub(super) fn doubt(&mut self, contact: C, names: &impl Names<C>) {
        if let Some(entry) = self.find_mut(contact, names.key(contact)) {
            entry.doubt();
        }
    }

    pub(super) fn doubt_all(&mut self) {
        self.entries.iter_mut().for_each(Entry::doubt);
    }

    pub(super) fn parted(&mut self, contact: C, names: &impl Names<C>) {
        self.spares.retain(|&spare| spare != contact);
        if let Some(entry) = self.find_mut(contact, names.key(contact)) {
            entry.parted();
        }
    }

    pub(super) fn answered(&mut self, contact: C, round_trip: Duration, names: &impl Names<C>) {
        if let Some(entry) = self.find_mut(contact, names.key(contact)) {
            entry.answered(round_trip);
        }
    }

    /// A contact that does not serve any more.
    pub(super) fn remove(&mut self, contact: C, names: &impl Names<C>) {
        self.spares.retain(|&spare| spare != contact);
        let bucket = self.bucket(names.key(contact));
        let range = self.range(bucket);
        if let Some(place) = self.entries[range.clone()].iter().position(|entry| entry.contact == contact) {
            self.entries.remove(range.start + place);
            self.sizes[bucket] -= 1;
        }
    }

    /// Not known, or away while others speak of it; and there would be room.
    pub(super) fn wants(&self, contact: C, key: Key) -> bool {
        let bucket = || &self.entries[self.range(self.bucket(key))];
        key != self.own
            && self.find(contact, key).is_none_or(Entry::is_away)
            && (self.has_room(key) || self.may_split(key) || bucket().iter().any(Entry::is_away))
    }

    /// The closest to a key of those admitted, closest first. Looks at no more keys than it must.
    pub(super) fn closest(
        &self,
        target: Key,
        count: usize,
        names: &impl Names<C>,
        admit: impl Fn(&Entry<C>) -> bool,
    ) -> Vec<(Distance, C)> {
        let home = self.sizes.len() - 1;
        let middle = self.bucket(target);
        // Who shares more bits with the target than with us; then who shares as many; then ever fewer.
        let deeper = self.range(middle).end..self.entries.len();
        let shallower = (0..middle).rev().map(|bucket| self.range(bucket));
        let mut found = Vec::with_capacity(count + self.range(middle.min(home)).len());
        for range in [self.range(middle), deeper].into_iter().chain(shallower) {
            if found.len() >= count {
                break;
            }
            let from = found.len();
            let admitted = self.entries[range].iter().filter(|entry| admit(entry));
            found.extend(
                admitted.map(|entry| (Distance::between(target, names.key(entry.contact)), entry.contact)),
            );
            found[from..].sort_unstable_by_key(|&(distance, _)| distance);
        }
        found.truncate(count);
        found
    }

    pub(super) fn find(&self, contact: C, key: Key) -> Option<&Entry<C>> {
        self.entries[self.range(self.bucket(key))].iter().find(|entry| entry.contact == contact)
    }

    pub(super) fn reliability(&self, contact: C, now: Instant, names: &impl Names<C>) -> Option<Reliability> {
        self.find(contact, names.key(contact)).map(|entry| entry.reliability(now))
    }

    /// The buckets nearest to this node that hold at least `count` contacts together.
    pub(super) fn near(&self, count: usize) -> &[Entry<C>] {
        let mut start = self.entries.len();
        for &size in self.sizes.iter().rev() {
            if self.entries.len() - start >= count {
                break;
            }
            start -= usize::from(size);
        }
        &self.entries[start..]
    }

    pub(super) fn entries(&self) -> &[Entry<C>] {
        &self.entries
    }

    /// Bits that a contact of the bucket in which `key` lies shares with this node, at least.
    pub(super) fn bucket(&self, key: Key) -> usize {
        Distance::between(self.own, key).shared_bits().min(self.sizes.len() - 1)
    }

    pub(super) fn buckets(&self) -> usize {
        self.sizes.len()
    }

    pub(super) fn has_room(&self, key: Key) -> bool {
        usize::from(self.sizes[self.bucket(key)]) < self.capacity
    }

    /// How many serve in the whole network, judged by how densely the neighborhood is settled.
    pub(super) fn estimate(&self) -> u64 {
        let home = self.sizes.len() - 1;
        let settled =
            |range: Range<usize>| self.entries[range].iter().filter(|entry| !entry.is_away()).count() as u64;
        if home == 0 {
            return settled(0..self.entries.len());
        }
        let (near, bits) = (settled(self.range(home - 1).start..self.entries.len()), (home - 1).min(48));
        near << bits
    }

    fn find_mut(&mut self, contact: C, key: Key) -> Option<&mut Entry<C>> {
        let range = self.range(self.bucket(key));
        self.entries[range].iter_mut().find(|entry| entry.contact == contact)
    }

    fn range(&self, bucket: usize) -> Range<usize> {
        let start: usize = self.sizes[..bucket].iter().map(|&size| usize::from(size)).sum();
        start..start + usize::from(self.sizes[bucket])
    }

    fn may_split(&self, key: Key) -> bool {
        let home = self.sizes.len() - 1;
        self.bucket(key) == home && home + 1 < KEY_BITS
    }

    fn push(&mut self, entry: Entry<C>, key: Key) {
        let bucket = self.bucket(key);
        self.entries.insert(self.range(bucket).end, entry);
        self.sizes[bucket] += 1;
    }

    /// Those of home that share no more than its bits stay; the others found a new home.
    fn split(&mut self, names: &impl Names<C>) {
        let home = self.sizes.len() - 1;
        let range = self.range(home);
        let own = self.own;
        let shared = |entry: &Entry<C>| Distance::between(own, names.key(entry.contact)).shared_bits();
        // A stable sort keeps the longest known first.
        self.entries[range.clone()].sort_by_key(|entry| shared(entry) > home);
        let staying = self.entries[range].iter().filter(|entry| shared(entry) == home).count() as u16;
        self.sizes.push(self.sizes[home] - staying);
        self.sizes[home] = staying;
    }
}

#[cfg(test)]
mod tests;
