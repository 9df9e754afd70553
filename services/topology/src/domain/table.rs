//! Rows as they were read and as they are now.

use std::collections::BTreeMap;

/// Counts the writes of a row; 0 of a row that is not in the store.
pub type Revision = i64;

/// A row and its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<T> {
    pub row: T,
    pub revision: Revision,
}

/// A row to be written, or removed, if its revision is still `revision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<K, T> {
    pub key: K,
    pub before: Option<T>,
    pub after: Option<T>,
    pub revision: Revision,
}

#[derive(Debug, Clone)]
struct Tracked<T> {
    before: Option<T>,
    after: Option<T>,
    revision: Revision,
}

/// Rows of one kind that a batch of commands reads and changes.
#[derive(Debug, Clone)]
pub struct Table<K, T> {
    rows: BTreeMap<K, Tracked<T>>,
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self { rows: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, T: Clone + PartialEq> Table<K, T> {
    /// Takes a row in as it was read. A row that is here already stays.
    pub fn load(&mut self, key: K, stored: Stored<T>) {
        let Stored { row, revision } = stored;
        self.rows.entry(key).or_insert_with(|| Tracked {
            before: Some(row.clone()),
            after: Some(row),
            revision,
        });
    }

    pub fn find(&self, key: &K) -> Option<&T> {
        self.rows.get(key)?.after.as_ref()
    }

    pub fn find_mut(&mut self, key: &K) -> Option<&mut T> {
        self.rows.get_mut(key)?.after.as_mut()
    }

    pub fn revision(&self, key: &K) -> Revision {
        self.rows.get(key).map_or(0, |tracked| tracked.revision)
    }

    pub fn put(&mut self, key: K, row: T) -> &mut T {
        let tracked =
            self.rows.entry(key).or_insert_with(|| Tracked { before: None, after: None, revision: 0 });
        tracked.after.insert(row)
    }

    pub fn remove(&mut self, key: &K) {
        if let Some(tracked) = self.rows.get_mut(key) {
            tracked.after = None;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &T)> {
        self.rows.iter().filter_map(|(key, tracked)| Some((key, tracked.after.as_ref()?)))
    }

    /// What differs from what was read.
    pub fn into_changes(self) -> Vec<Change<K, T>> {
        self.rows
            .into_iter()
            .filter(|(_, tracked)| tracked.before != tracked.after)
            .map(|(key, Tracked { before, after, revision })| Change { key, before, after, revision })
            .collect()
    }
}
