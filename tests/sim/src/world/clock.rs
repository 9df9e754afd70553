//! The virtual clock: what is going to happen, in the order of time and, within one moment, of its making.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use muster_types::Instant;

#[derive(Debug)]
struct Entry<E> {
    at: Instant,
    number: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

#[derive(Debug)]
pub(crate) struct Clock<E> {
    now: Instant,
    made: u64,
    queue: BinaryHeap<Reverse<Entry<E>>>,
}

impl<E> Default for Clock<E> {
    fn default() -> Self {
        Self { now: Instant::ZERO, made: 0, queue: BinaryHeap::new() }
    }
}

impl<E> Clock<E> {
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// Something will happen, not before now.
    pub(crate) fn schedule(&mut self, at: Instant, event: E) {
        self.made += 1;
        let at = at.max(self.now);
        self.queue.push(Reverse(Entry { at, number: self.made, event }));
    }

    /// The next event up to `end`; the clock then stands at its time, or at `end`.
    pub(crate) fn next_until(&mut self, end: Instant) -> Option<E> {
        if self.queue.peek().is_none_or(|Reverse(entry)| entry.at > end) {
            self.now = self.now.max(end);
            return None;
        }
        let Reverse(entry) = self.queue.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }
}
