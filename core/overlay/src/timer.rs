//! Timers as data: named deadlines, of which the earliest is when the machine wants to be driven next.

use muster_types::Instant;

macro_rules! timers {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Why the machine wants to wake up.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Timer { $($(#[$doc])* $name),+ }

        impl Timer {
            pub const ALL: &[Self] = &[$(Self::$name),+];
        }
    };
}

timers! {
    /// The next LAN query, or the next source of LSNs.
    Search,
    /// A follower's turn to open its session.
    Follow,
    /// The candidate has not opened a session or given its verdict.
    Join,
    /// The child's next ping.
    Ping,
    /// The LSN has been silent for too long.
    LsnSilence,
    /// Topology has not said that it shows this node.
    Receipt,
    /// Topology's last signed word about this node is old.
    Standing,
    /// The successor that the LSN named has not claimed.
    Succession,
    /// A deputy has missed beats, or its probes are unanswered, or the first deputy has not claimed.
    Watch,
    /// A deputy's answers to LAN queries.
    Answer,
    /// The LSN's next beat.
    Beat,
    /// The LSN looks for leases that ran out.
    Sweep,
    /// The LSN shows its claim on the LAN.
    Claim,
    /// The new LSN calls children that have not come.
    Rally,
    /// Deputies are owed a neighbor list.
    DeputyList,
    /// The other children are owed one.
    ChildList,
    /// Changes of the child table are due to topology.
    Batch,
    /// The better LSN has not accepted this one.
    Yield,
    /// A rival that did not give in, or was not reached, is tried again.
    Rival,
    /// The successor has not taken over.
    Handover,
    /// Deputies have not said whether they reach this LSN.
    Witness,
}

/// At most one deadline for each [`Timer`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Timers([Option<Instant>; Timer::ALL.len()]);

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    /// Sets the deadline unless an earlier one stands.
    pub(crate) fn set_earliest(&mut self, timer: Timer, at: Instant) {
        let slot = &mut self.0[timer as usize];
        *slot = Some(slot.map_or(at, |standing| standing.min(at)));
    }

    pub(crate) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    pub(crate) fn stop_all(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn next(&self) -> Option<(Instant, Timer)> {
        Timer::ALL.iter().filter_map(|&timer| Some((self.0[timer as usize]?, timer))).min()
    }

    /// Takes the earliest deadline that has come.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(Instant, Timer)> {
        let (at, timer) = self.next().filter(|&(at, _)| at <= now)?;
        self.stop(timer);
        Some((at, timer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> Instant {
        Instant::from_elapsed(Duration::from_secs(seconds))
    }

    #[test]
    fn deadlines_come_due_in_their_order_and_once() {
        let mut timers = Timers::default();
        timers.set(Timer::Ping, at(2));
        timers.set(Timer::Beat, at(1));
        timers.set_earliest(Timer::Ping, at(3));
        assert_eq!(timers.next(), Some((at(1), Timer::Beat)));
        assert_eq!(timers.take_due(at(0)), None);
        assert_eq!(timers.take_due(at(5)), Some((at(1), Timer::Beat)));
        assert_eq!(timers.take_due(at(5)), Some((at(2), Timer::Ping)));
        assert_eq!(timers.take_due(at(5)), None);
    }
}
