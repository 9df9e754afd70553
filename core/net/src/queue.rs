//! What waits to go out by one way: bounded, first in first out up to half full. Beyond that the urgent overtake, and what
//! is less urgent is no longer taken in, or gives way (the flow control of Gnutella, which dropped by kind, not by age).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::class::TrafficClass;
use crate::pacer::Pacer;

/// So much of a queue, in percent, may each class fill: the rest is kept for what is more urgent.
const SHARES: [(TrafficClass, usize); 5] = [
    (TrafficClass::Control, 100),
    (TrafficClass::Interactive, 100),
    (TrafficClass::Task, 90),
    (TrafficClass::Telemetry, 75),
    (TrafficClass::Bulk, 50),
];
/// A queue in which nothing changes is looked at again after this; nothing depends on it.
const LOOK: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Waiting<T> {
    number: u64,
    bytes: usize,
    item: T,
}

/// The queue itself: no clock, no lock.
#[derive(Debug)]
pub struct ClassQueue<T> {
    lanes: [VecDeque<Waiting<T>>; TrafficClass::ALL.len()],
    capacity: usize,
    made: u64,
    /// Items that were refused, or gave way, by class.
    dropped: [u64; TrafficClass::ALL.len()],
}

impl<T> ClassQueue<T> {
    pub fn new(capacity: usize) -> Self {
        let (lanes, dropped) = (std::array::from_fn(|_| VecDeque::new()), [0; TrafficClass::ALL.len()]);
        Self { lanes, capacity, made: 0, dropped }
    }

    pub fn len(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }

    /// Items of this class that were not taken in, or had to give way.
    pub fn dropped(&self, class: TrafficClass) -> u64 {
        self.dropped[class.index()]
    }

    /// Takes an item in.
    ///
    /// # Errors
    /// There is no room for its class; here it is again.
    pub fn push(&mut self, class: TrafficClass, bytes: usize, item: T) -> Result<(), T> {
        let share = SHARES[class.index()].1;
        if self.len() * 100 >= self.capacity * share && !self.make_room(class) {
            self.dropped[class.index()] += 1;
            return Err(item);
        }
        self.made += 1;
        self.lanes[class.index()].push_back(Waiting { number: self.made, bytes, item });
        Ok(())
    }

    /// The newest of the least urgent gives way to what is more urgent.
    fn make_room(&mut self, class: TrafficClass) -> bool {
        let below = class.index() + 1..self.lanes.len();
        let Some(lane) = below.rev().find(|&lane| !self.lanes[lane].is_empty()) else { return false };
        self.dropped[lane] += 1;
        self.lanes[lane].pop_back().is_some()
    }

    /// The next item of those classes that may send so many bytes now.
    pub fn pop(
        &mut self,
        mut may_send: impl FnMut(TrafficClass, usize) -> bool,
    ) -> Option<(TrafficClass, T)> {
        let crowded = self.len() * 2 > self.capacity;
        let mut order: Vec<(u64, TrafficClass, usize)> = TrafficClass::ALL
            .into_iter()
            .filter_map(|class| {
                self.lanes[class.index()].front().map(|first| (first.number, class, first.bytes))
            })
            .collect();
        if !crowded {
            order.sort_unstable_by_key(|&(number, ..)| number);
        }
        let (_, class, _) = order.into_iter().find(|&(_, class, bytes)| may_send(class, bytes))?;
        self.lanes[class.index()].pop_front().map(|waiting| (class, waiting.item))
    }
}

/// The queue between those who send and the one task that writes.
#[derive(Debug)]
pub struct Outbox<T> {
    queue: Mutex<Option<ClassQueue<T>>>,
    filled: Notify,
    drained: Notify,
}

/// Why an item was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Full,
    Closed,
}

impl<T> Outbox<T> {
    pub fn new(capacity: usize) -> Self {
        let queue = Mutex::new(Some(ClassQueue::new(capacity)));
        Self { queue, filled: Notify::new(), drained: Notify::new() }
    }

    /// Takes an item in, or says at once why not.
    ///
    /// # Errors
    /// There is no room for its class, or nobody writes any more.
    pub fn try_push(&self, class: TrafficClass, bytes: usize, item: T) -> Result<(), Refused> {
        self.offer(class, bytes, item).map_err(|(refused, _)| refused)
    }

    /// Takes an item in as soon as there is room.
    ///
    /// # Errors
    /// Nobody writes any more.
    pub async fn push(&self, class: TrafficClass, bytes: usize, mut item: T) -> Result<(), Refused> {
        loop {
            let drained = self.drained.notified();
            match self.offer(class, bytes, item) {
                Ok(()) => return Ok(()),
                Err((Refused::Closed, _)) => return Err(Refused::Closed),
                Err((Refused::Full, again)) => item = again,
            }
            drained.await;
        }
    }

    fn offer(&self, class: TrafficClass, bytes: usize, item: T) -> Result<(), (Refused, T)> {
        match self.lock().as_mut() {
            None => return Err((Refused::Closed, item)),
            Some(queue) => queue.push(class, bytes, item).map_err(|item| (Refused::Full, item))?,
        }
        self.filled.notify_one();
        Ok(())
    }

    /// The next item that the grants let through. `None` once it is closed and empty.
    pub async fn pop(&self, pacer: &Pacer) -> Option<(TrafficClass, T)> {
        loop {
            let filled = self.filled.notified();
            let mut later: Option<Instant> = None;
            match self.lock().as_mut() {
                None => return None,
                Some(queue) => {
                    let now = Instant::now();
                    let next = queue.pop(|class, bytes| match pacer.reserve(class, bytes, now) {
                        None => true,
                        Some(at) => {
                            let at = at.max(now + Duration::from_millis(1));
                            later = Some(later.map_or(at, |sooner| sooner.min(at)));
                            false
                        }
                    });
                    if let Some(next) = next {
                        self.drained.notify_one();
                        return Some(next);
                    }
                }
            }
            let again = later.unwrap_or_else(|| Instant::now() + LOOK);
            tokio::select! {
                () = filled => {}
                () = sleep_until(again) => {}
            }
        }
    }

    /// Takes out what is left, whatever the grants say; nothing is taken in any more.
    pub fn close(&self) -> Vec<T> {
        let rest = self.lock().take();
        self.filled.notify_waiters();
        self.drained.notify_waiters();
        rest.map(|mut queue| std::iter::from_fn(|| queue.pop(|_, _| true)).map(|(_, item)| item).collect())
            .unwrap_or_default()
    }

    /// Takes out what waits, whatever the grants say; the queue goes on.
    pub fn take(&self) -> Vec<T> {
        let mut queue = self.lock();
        let items = queue.iter_mut().flat_map(|queue| std::iter::from_fn(move || queue.pop(|_, _| true)));
        let items = items.map(|(_, item)| item).collect();
        self.drained.notify_waiters();
        items
    }

    fn lock(&self) -> MutexGuard<'_, Option<ClassQueue<T>>> {
        // Nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: usize = 20;

    fn filled(class: TrafficClass, items: usize) -> ClassQueue<usize> {
        let mut queue = ClassQueue::new(CAPACITY);
        for item in 0..items {
            queue.push(class, 1, item).expect("there is room");
        }
        queue
    }

    fn drain(queue: &mut ClassQueue<usize>) -> Vec<usize> {
        std::iter::from_fn(|| queue.pop(|_, _| true)).map(|(_, item)| item).collect()
    }

    #[test]
    fn up_to_half_full_everything_keeps_its_turn() {
        let mut queue = filled(TrafficClass::Bulk, CAPACITY / 2 - 1);
        queue.push(TrafficClass::Control, 1, 99).expect("there is room");
        assert_eq!(drain(&mut queue).last(), Some(&99));
    }

    #[test]
    fn beyond_half_full_the_urgent_overtake_and_each_class_keeps_its_order() {
        let mut queue = filled(TrafficClass::Telemetry, CAPACITY / 2 + 2);
        queue.push(TrafficClass::Control, 1, 98).expect("there is room");
        queue.push(TrafficClass::Control, 1, 99).expect("there is room");
        let order = drain(&mut queue);
        assert_eq!(order[..3], [98, 99, 0]);
        assert!(order[2..].is_sorted());
    }

    #[test]
    fn each_class_leaves_room_for_the_more_urgent() {
        for (class, share) in SHARES {
            let mut queue = ClassQueue::new(CAPACITY);
            let taken = (0..2 * CAPACITY).filter(|&item| queue.push(class, 1, item).is_ok()).count();
            assert_eq!(taken, CAPACITY * share / 100, "{class:?}");
            assert_eq!(queue.dropped(class), (2 * CAPACITY - taken) as u64);
        }
    }

    #[test]
    fn in_a_full_queue_the_newest_of_the_least_urgent_gives_way() {
        let mut queue = filled(TrafficClass::Telemetry, 15);
        for item in 15..30 {
            queue.push(TrafficClass::Control, 1, item).expect("telemetry gives way");
        }
        assert_eq!(queue.len(), CAPACITY);
        let mut kept = drain(&mut queue);
        kept.retain(|item| *item < 15);
        assert_eq!(kept, [0, 1, 2, 3, 4], "the oldest telemetry is kept");
    }

    #[tokio::test]
    async fn what_has_no_grant_does_not_hold_up_what_needs_none() {
        let (outbox, pacer) = (Outbox::new(CAPACITY), Pacer::default());
        pacer.grant(TrafficClass::Bulk, 0, Duration::from_secs(60));
        outbox.try_push(TrafficClass::Bulk, 1_000, "bulk").expect("there is room");
        outbox.try_push(TrafficClass::Task, 1_000, "task").expect("there is room");
        assert_eq!(outbox.pop(&pacer).await, Some((TrafficClass::Task, "task")));
        pacer.grant(TrafficClass::Bulk, 1_000_000, Duration::from_secs(60));
        assert_eq!(outbox.pop(&pacer).await, Some((TrafficClass::Bulk, "bulk")));
    }

    #[tokio::test]
    async fn who_waits_for_room_gets_it_or_learns_that_nobody_writes() {
        let (outbox, pacer) = (Outbox::new(1), Pacer::default());
        outbox.try_push(TrafficClass::Control, 1, 1).expect("there is room");
        assert_eq!(outbox.try_push(TrafficClass::Control, 1, 2), Err(Refused::Full));
        let (pushed, popped) = tokio::join!(outbox.push(TrafficClass::Control, 1, 2), outbox.pop(&pacer));
        assert_eq!((pushed, popped), (Ok(()), Some((TrafficClass::Control, 1))));
        assert_eq!(outbox.close(), [2]);
        assert_eq!(outbox.push(TrafficClass::Control, 1, 3).await, Err(Refused::Closed));
    }
}
