//! Records kept for others: sets under a key and kind, newest first, each with its expiry; bounded for each set, each publisher
//! and over all.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use muster_types::{Instant, Key, NodeId};

use super::message::Refusal;
use super::record::{Kind, RECORD_BYTES, Record};
use super::timing::{CACHE_LIFE, SET, Settings};

#[derive(Debug, Clone)]
struct Held {
    record: Record,
    until: Instant,
    /// When another holder, or the publisher, last showed that it sees to this record.
    tended: Instant,
    cached: bool,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    sets: BTreeMap<(Key, Kind), Vec<Held>>,
    bytes: usize,
    publishers: BTreeMap<NodeId, usize>,
    next_expiry: Option<Instant>,
}

impl Store {
    /// Keeps a record; `true` if it says something new.
    pub(super) fn put(
        &mut self,
        record: Record,
        mut cached: bool,
        now: Instant,
        settings: &Settings,
    ) -> Result<bool, Refusal> {
        if record.bytes.len() > RECORD_BYTES {
            return Err(Refusal::TooLarge);
        }
        if record.expires <= now {
            return Err(Refusal::Expired);
        }
        let set = self.sets.get_mut(&(record.key, record.kind));
        let known = set.and_then(|set| set.iter_mut().find(|held| held.record.publisher == record.publisher));
        if let Some(held) = known {
            if held.record.sequence > record.sequence {
                return Err(Refusal::Older);
            }
            if held.record.sequence == record.sequence {
                held.tend(cached, now);
                return Ok(false);
            }
            cached &= held.cached;
        }
        self.take(record.key, record.kind, record.publisher);
        self.make_room(&record, cached, settings)?;
        self.add(record, cached, now);
        Ok(true)
    }

    fn make_room(&mut self, record: &Record, cached: bool, settings: &Settings) -> Result<(), Refusal> {
        let size = record.bytes.len();
        let of_publisher = self.publishers.get(&record.publisher).copied().unwrap_or_default();
        if of_publisher + size > settings.publisher_bytes {
            return Err(Refusal::Full);
        }
        if self.bytes + size > settings.store_bytes && (cached || !self.drop_copies(size, settings)) {
            return Err(Refusal::Full);
        }
        let Some(set) = self.sets.get(&(record.key, record.kind)).filter(|set| set.len() >= SET) else {
            return Ok(());
        };
        match set.iter().map(|held| &held.record).min_by_key(|held| held.sequence) {
            Some(oldest) if oldest.sequence < record.sequence => {
                let publisher = oldest.publisher;
                self.take(record.key, record.kind, publisher);
                Ok(())
            }
            _ => Err(Refusal::Full),
        }
    }

    /// Copies make room for what this node is to hold.
    fn drop_copies(&mut self, size: usize, settings: &Settings) -> bool {
        let copies: Vec<_> = self.held().filter(|held| held.cached).map(|held| held.name()).collect();
        for (key, kind, publisher) in copies {
            if self.bytes + size <= settings.store_bytes {
                break;
            }
            self.take(key, kind, publisher);
        }
        self.bytes + size <= settings.store_bytes
    }

    fn add(&mut self, record: Record, cached: bool, now: Instant) {
        let until = if cached { record.expires.min(now + CACHE_LIFE) } else { record.expires };
        self.bytes += record.bytes.len();
        *self.publishers.entry(record.publisher).or_default() += record.bytes.len();
        self.next_expiry = Some(self.next_expiry.map_or(until, |next| next.min(until)));
        let set = self.sets.entry((record.key, record.kind)).or_default();
        set.push(Held { record, until, tended: now, cached });
        set.sort_by_key(|held| Reverse(held.record.sequence));
    }

    fn take(&mut self, key: Key, kind: Kind, publisher: NodeId) {
        let Some(set) = self.sets.get_mut(&(key, kind)) else { return };
        let Some(place) = set.iter().position(|held| held.record.publisher == publisher) else { return };
        let size = set.remove(place).record.bytes.len();
        if set.is_empty() {
            self.sets.remove(&(key, kind));
        }
        self.bytes -= size;
        if let Some(bytes) = self.publishers.get_mut(&publisher) {
            *bytes -= size;
            if *bytes == 0 {
                self.publishers.remove(&publisher);
            }
        }
    }

    /// Newest first.
    pub(super) fn find(&self, key: Key, kind: Kind, now: Instant) -> Vec<Record> {
        let set = self.sets.get(&(key, kind)).into_iter().flatten();
        set.filter(|held| held.until > now).map(|held| held.record.clone()).collect()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        if self.next_expiry.is_none_or(|next| next > now) {
            return;
        }
        let expired: Vec<_> = self.held().filter(|held| held.until <= now).map(Held::name).collect();
        for (key, kind, publisher) in expired {
            self.take(key, kind, publisher);
        }
        self.next_expiry = self.held().map(|held| held.until).min();
    }

    /// Those that this node is to hold, in the order of their keys.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.held().filter(|held| !held.cached).map(|held| &held.record)
    }

    /// Those of them that nobody has seen to for so long. They count as seen to from now on.
    pub(super) fn take_untended(&mut self, span: Duration, now: Instant) -> Vec<(Key, u64)> {
        let held = self.sets.values_mut().flatten();
        let untended = held.filter(|held| !held.cached && held.until > now && now.since(held.tended) >= span);
        untended
            .map(|held| {
                held.tended = now;
                (held.record.key, held.record.digest())
            })
            .collect()
    }

    /// Another holds these as well. Answers with those that are not held here.
    pub(super) fn compare(&mut self, mut digests: Vec<u64>, now: Instant) -> Vec<u64> {
        digests.sort_unstable();
        let mut known = vec![false; digests.len()];
        for held in self.sets.values_mut().flatten().filter(|held| !held.cached) {
            if let Ok(place) = digests.binary_search(&held.record.digest()) {
                held.tended = now;
                known[place] = true;
            }
        }
        digests.into_iter().zip(known).filter_map(|(digest, known)| (!known).then_some(digest)).collect()
    }

    /// The records behind these digests.
    pub(super) fn by_digest(&self, digests: &[u64], count: usize) -> Vec<Record> {
        let wanted = self.records().filter(|record| digests.contains(&record.digest()));
        wanted.take(count).cloned().collect()
    }

    /// Others hold this now that are closer: it fades like a copy.
    pub(super) fn release(&mut self, digest: u64, now: Instant) {
        for held in self.sets.values_mut().flatten().filter(|held| held.record.digest() == digest) {
            held.cached = true;
            held.until = held.until.min(now + CACHE_LIFE);
            self.next_expiry = Some(self.next_expiry.map_or(held.until, |next| next.min(held.until)));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.sets.values().map(Vec::len).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn held(&self) -> impl Iterator<Item = &Held> {
        self.sets.values().flatten()
    }
}

impl Held {
    fn name(&self) -> (Key, Kind, NodeId) {
        (self.record.key, self.record.kind, self.record.publisher)
    }

    fn tend(&mut self, cached: bool, now: Instant) {
        if !cached {
            (self.cached, self.until, self.tended) = (false, self.record.expires, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn record(key: u8, publisher: u8, sequence: u64) -> Record {
        Record {
            key: Key([key; 20]),
            kind: Kind::Opaque,
            publisher: NodeId([publisher; 20]),
            sequence,
            expires: at(1_000),
            bytes: Arc::from([0; 100]),
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_elapsed(Duration::from_secs(seconds))
    }

    fn put(store: &mut Store, record: Record) -> Result<bool, Refusal> {
        store.put(record, false, at(0), &Settings::default())
    }

    #[test]
    fn of_one_publisher_the_newest_is_kept_and_an_older_one_is_refused() {
        let mut store = Store::default();
        assert_eq!(put(&mut store, record(1, 1, 5)), Ok(true));
        assert_eq!(put(&mut store, record(1, 1, 5)), Ok(false));
        assert_eq!(put(&mut store, record(1, 1, 4)), Err(Refusal::Older));
        assert_eq!(put(&mut store, record(1, 1, 6)), Ok(true));
        let found = store.find(Key([1; 20]), Kind::Opaque, at(1));
        assert_eq!((found.len(), found[0].sequence, store.bytes()), (1, 6, 100));
    }

    #[test]
    fn a_full_set_keeps_the_newest_of_its_publishers() {
        let mut store = Store::default();
        for publisher in 0..SET as u8 {
            put(&mut store, record(1, publisher, 10 + u64::from(publisher))).unwrap();
        }
        assert_eq!(put(&mut store, record(1, 200, 9)), Err(Refusal::Full));
        assert_eq!(put(&mut store, record(1, 200, 99)), Ok(true));
        let found = store.find(Key([1; 20]), Kind::Opaque, at(1));
        let sequences: Vec<_> = found.iter().map(|record| record.sequence).collect();
        assert_eq!((sequences.len(), sequences[0], sequences[SET - 1]), (SET, 99, 11));
    }

    #[test]
    fn what_expired_is_gone_and_its_room_is_free() {
        let mut store = Store::default();
        put(&mut store, record(1, 1, 1)).unwrap();
        store.expire(at(999));
        assert_eq!(store.len(), 1);
        assert!(store.find(Key([1; 20]), Kind::Opaque, at(1_000)).is_empty());
        store.expire(at(1_000));
        assert_eq!((store.len(), store.bytes()), (0, 0));
        assert_eq!(store.put(record(1, 1, 1), false, at(1_000), &Settings::default()), Err(Refusal::Expired));
    }

    #[test]
    fn copies_make_room_for_what_is_to_be_held_and_a_publisher_has_its_share() {
        let mut store = Store::default();
        let settings = Settings { store_bytes: 250, publisher_bytes: 150, ..Settings::default() };
        let mut put = |record, cached| store.put(record, cached, at(0), &settings);
        assert_eq!(put(record(1, 1, 1), true), Ok(true));
        assert_eq!(put(record(2, 2, 1), true), Ok(true));
        assert_eq!(put(record(3, 3, 1), true), Err(Refusal::Full));
        assert_eq!(put(record(3, 3, 1), false), Ok(true));
        assert_eq!(put(record(4, 3, 1), false), Err(Refusal::Full));
        assert_eq!(store.records().count(), 1);
    }

    #[test]
    fn an_offer_is_answered_with_what_is_lacking_and_tends_the_rest() {
        let mut store = Store::default();
        put(&mut store, record(1, 1, 1)).unwrap();
        put(&mut store, record(2, 1, 1)).unwrap();
        let (held, lacking) = (record(1, 1, 1).digest(), record(9, 1, 1).digest());
        assert_eq!(store.compare(vec![held, lacking], at(500)), vec![lacking]);
        let untended = store.take_untended(Duration::from_secs(400), at(600));
        assert_eq!(untended, vec![(Key([2; 20]), record(2, 1, 1).digest())]);
        assert_eq!(store.take_untended(Duration::from_secs(400), at(700)), vec![]);
    }
}
