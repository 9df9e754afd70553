//! All nodes of a run in the order of their keys: a node's handle is its rank. The sorted list is also the reference: who is
//! closest to what, whatever the machines believe.

use std::ops::Range;

use muster_overlay::dht::{Distance, Names};
use muster_types::Key;
use rand::{Rng, RngCore};

/// A node's rank among the sorted keys.
pub type Handle = u32;

#[derive(Debug, Clone)]
pub struct Ids(Vec<Key>);

impl Names<Handle> for Ids {
    fn key(&self, contact: Handle) -> Key {
        self.0[contact as usize]
    }
}

impl Ids {
    pub fn random(count: usize, rng: &mut impl RngCore) -> Self {
        let mut keys: Vec<_> = (0..count).map(|_| Key(rng.random())).collect();
        keys.sort_unstable();
        keys.dedup();
        Self(keys)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn all(&self) -> Range<Handle> {
        0..self.0.len() as Handle
    }

    /// The closest to a key of those admitted, closest first.
    pub fn closest(&self, target: Key, count: usize, admit: impl Fn(Handle) -> bool) -> Vec<Handle> {
        let mut found = Vec::with_capacity(count);
        self.gather(self.all(), 0, target, count, &admit, &mut found);
        found
    }

    fn gather(
        &self,
        range: Range<Handle>,
        bit: usize,
        target: Key,
        count: usize,
        admit: &impl Fn(Handle) -> bool,
        found: &mut Vec<Handle>,
    ) {
        if range.is_empty() || found.len() >= count {
            return;
        }
        if range.len() <= 8 {
            let mut few: Vec<_> = range.filter(|&node| admit(node)).collect();
            few.sort_unstable_by_key(|&node| Distance::between(target, self.key(node)));
            found.extend(few.into_iter().take(count - found.len()));
            return;
        }
        let (same, other) = self.halves(range, bit, target);
        self.gather(same, bit + 1, target, count, admit, found);
        self.gather(other, bit + 1, target, count, admit, found);
    }

    /// Of nodes that share their first `bit` bits: those that have the target's next bit, and the others.
    fn halves(&self, range: Range<Handle>, bit: usize, target: Key) -> (Range<Handle>, Range<Handle>) {
        let is_set = |key: &Key| key.0[bit / 8] & (0x80 >> (bit % 8)) != 0;
        let keys = &self.0[range.start as usize..range.end as usize];
        let middle = range.start + keys.partition_point(|key| !is_set(key)) as Handle;
        let (low, high) = (range.start..middle, middle..range.end);
        if is_set(&target) { (high, low) } else { (low, high) }
    }

    /// Whom a node knows that has met many: in each bucket some of those who could be there, and all its neighbors.
    pub fn table_of(&self, node: Handle, bucket: usize, rng: &mut impl RngCore) -> Vec<Handle> {
        let own = self.key(node);
        let (mut range, mut bit, mut contacts) = (self.all(), 0, Vec::new());
        while range.len() > bucket + 1 {
            let (same, other) = self.halves(range, bit, own);
            draw(other, bucket, rng, &mut contacts);
            (range, bit) = (same, bit + 1);
        }
        contacts.extend(range.filter(|&other| other != node));
        contacts
    }
}

/// So many of a range, or all, in no order.
fn draw(range: Range<Handle>, count: usize, rng: &mut impl RngCore, into: &mut Vec<Handle>) {
    if range.len() <= count {
        return into.extend(range);
    }
    let from = into.len();
    if count * 4 > range.len() {
        // Among so few, misses would be many: a walk that takes each with the chance that is left.
        let (mut left, mut open) = (count, range.len());
        for node in range {
            if rng.random_range(0..open) < left {
                into.push(node);
                left -= 1;
            }
            open -= 1;
        }
        return;
    }
    while into.len() - from < count {
        let node = rng.random_range(range.clone());
        if !into[from..].contains(&node) {
            into.push(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn the_reference_finds_what_sorting_all_by_distance_finds() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let ids = Ids::random(500, &mut rng);
        for _ in 0..100 {
            let target = Key(rng.random());
            let mut all: Vec<_> = ids.all().filter(|node| node % 3 != 0).collect();
            all.sort_by_key(|&node| Distance::between(target, ids.key(node)));
            all.truncate(20);
            assert_eq!(ids.closest(target, 20, |node| node % 3 != 0), all);
        }
    }

    #[test]
    fn a_table_has_all_neighbors_and_no_one_twice() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let ids = Ids::random(5_000, &mut rng);
        let mut table = ids.table_of(77, 20, &mut rng);
        let neighbors = ids.closest(ids.key(77), 11, |node| node != 77);
        assert!(neighbors.iter().all(|neighbor| table.contains(neighbor)));
        let all = table.len();
        table.sort_unstable();
        table.dedup();
        assert_eq!(table.len(), all);
        assert!((120..200).contains(&all), "{all}");
    }
}
