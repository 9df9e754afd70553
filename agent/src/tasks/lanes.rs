//! Which task runs when: four at a time side by side, and one exclusive one beside them.

use std::collections::VecDeque;

/// Tasks that run side by side.
pub(super) const PARALLEL: usize = 4;

/// Tasks that run alone among exclusive ones, as installations do.
const EXCLUSIVE: usize = 1;

/// Accepted tasks that wait for a lane. When full, an offer stays unanswered, and the master repeats it.
const WAITING: usize = 1_000;

/// A place for tasks to run in, and those that wait for one.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    parallel: Lane<T>,
    exclusive: Lane<T>,
}

#[derive(Debug)]
struct Lane<T> {
    free: usize,
    waiting: VecDeque<T>,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        let lane = |free| Lane { free, waiting: VecDeque::new() };
        Self { parallel: lane(PARALLEL), exclusive: lane(EXCLUSIVE) }
    }
}

impl<T> Lanes<T> {
    fn lane(&mut self, exclusive: bool) -> &mut Lane<T> {
        if exclusive { &mut self.exclusive } else { &mut self.parallel }
    }

    /// Takes a place if one is free and nobody waits for it.
    pub(super) fn take(&mut self, exclusive: bool) -> bool {
        let lane = self.lane(exclusive);
        let free = lane.free > 0 && lane.waiting.is_empty();
        lane.free -= usize::from(free);
        free
    }

    /// Gives a place back.
    pub(super) fn give_back(&mut self, exclusive: bool) {
        self.lane(exclusive).free += 1;
    }

    pub(super) fn has_room(&self) -> bool {
        self.parallel.waiting.len() + self.exclusive.waiting.len() < WAITING
    }

    pub(super) fn wait(&mut self, exclusive: bool, task: T) {
        self.lane(exclusive).waiting.push_back(task);
    }

    /// The next task that can run now; its place is taken.
    pub(super) fn next(&mut self) -> Option<T> {
        for lane in [&mut self.exclusive, &mut self.parallel] {
            if lane.free > 0
                && let Some(task) = lane.waiting.pop_front()
            {
                lane.free -= 1;
                return Some(task);
            }
        }
        None
    }

    /// Takes those out of the queue that `chosen` picks.
    pub(super) fn withdraw(&mut self, mut chosen: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut withdrawn = Vec::new();
        for lane in [&mut self.exclusive, &mut self.parallel] {
            let (out, stay) = std::mem::take(&mut lane.waiting).into_iter().partition(&mut chosen);
            lane.waiting = stay;
            withdrawn.extend::<VecDeque<T>>(out);
        }
        withdrawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exclusive_task_neither_blocks_parallel_ones_nor_waits_for_them() {
        let mut lanes = Lanes::<&str>::default();
        assert!(lanes.take(true));
        assert!(!lanes.take(true));
        lanes.wait(true, "installation");
        for _ in 0..PARALLEL {
            assert!(lanes.take(false));
        }
        assert!(!lanes.take(false));
        assert_eq!(lanes.next(), None);
        lanes.give_back(true);
        assert_eq!(lanes.next(), Some("installation"));
    }

    #[test]
    fn who_came_first_runs_first_and_a_withdrawn_one_never() {
        let mut lanes = Lanes::default();
        for _ in 0..PARALLEL {
            assert!(lanes.take(false));
        }
        lanes.wait(false, 1);
        lanes.wait(false, 2);
        lanes.wait(false, 3);
        assert_eq!(lanes.withdraw(|task| *task == 2), [2]);
        lanes.give_back(false);
        assert!(!lanes.take(false), "a newcomer does not overtake");
        assert_eq!(lanes.next(), Some(1));
        lanes.give_back(false);
        assert_eq!(lanes.next(), Some(3));
    }
}
