//! Which counters of a session have been seen: a sliding window (RFC 6479's purpose), so that no datagram is taken twice.

/// Datagrams that may overtake another one; a burst between two nodes is a few dozen.
const WINDOW: u64 = u128::BITS as u64;

#[derive(Debug, Default)]
pub(super) struct Replay {
    /// One above the highest counter taken.
    next: u64,
    /// Bit n: counter `next - 1 - n` was taken.
    taken: u128,
}

impl Replay {
    /// Whether this counter is new; takes it if so. Only for datagrams that proved to be authentic.
    pub(super) fn take(&mut self, counter: u64) -> bool {
        if counter >= self.next {
            let ahead = counter - self.next + 1;
            self.taken = if ahead < WINDOW { self.taken << ahead } else { 0 };
            self.taken |= 1;
            self.next = counter.saturating_add(1);
            return true;
        }
        let behind = self.next - 1 - counter;
        if behind >= WINDOW || self.taken & (1 << behind) != 0 {
            return false;
        }
        self.taken |= 1 << behind;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_counter_is_taken_twice_and_new_ones_within_the_window_always(
            counters in prop::collection::vec(0u64..400, 0..300),
        ) {
            let (mut window, mut seen, mut highest) = (Replay::default(), BTreeSet::new(), 0);
            for counter in counters {
                highest = highest.max(counter);
                let fresh = seen.insert(counter);
                let within = highest - counter < WINDOW;
                prop_assert_eq!(window.take(counter), fresh && within, "{}", counter);
            }
        }
    }

    #[test]
    fn the_last_counter_of_all_does_not_overflow() {
        let mut window = Replay::default();
        assert!(window.take(u64::MAX - 1));
        assert!(!window.take(u64::MAX - 1));
        assert!(!window.take(0));
    }
}
