//! Requests under way: whom, why, since when; and how long it is worth waiting, judged by the round trips measured.

use std::time::Duration;

use muster_types::Instant;

use super::contact::RoundTrip;
use super::input::{CallId, OpId};
use super::timing::{CALL_LIMIT, CALLS, PATIENCE_MAX, PATIENCE_MIN};

/// What an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Lookup(u32),
    /// Does it live? Somebody spoke of it, or its room is wanted.
    Check,
    /// Upkeep: does it live, and whom does it know near us?
    Question,
    /// One of the closest is to hold a publication's record.
    Publish(OpId),
    /// Somebody is to hold what others hold already; nobody waits for it.
    Give,
    Offer,
    Listen,
    Parting,
    One(OpId),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Call<C> {
    pub(super) id: CallId,
    pub(super) to: C,
    pub(super) purpose: Purpose,
    asked: Instant,
    patience: Duration,
    late: bool,
}

/// What time has brought.
#[derive(Debug, Clone, Copy)]
pub(super) enum Overdue<C> {
    /// Worth turning to others as well.
    Late(Call<C>),
    /// Given up.
    Lost(Call<C>),
}

#[derive(Debug)]
pub(super) struct Calls<C> {
    under_way: Vec<Call<C>>,
    made: u32,
    usual: Usual,
}

impl<C: Copy + PartialEq> Default for Calls<C> {
    fn default() -> Self {
        Self { under_way: Vec::new(), made: 0, usual: Usual::default() }
    }
}

impl<C: Copy + PartialEq> Calls<C> {
    /// `None`: too many are under way.
    pub(super) fn begin(
        &mut self,
        to: C,
        purpose: Purpose,
        known: RoundTrip,
        now: Instant,
    ) -> Option<CallId> {
        if self.under_way.len() >= CALLS {
            return None;
        }
        self.made = self.made.wrapping_add(1);
        let (id, patience) = (CallId(self.made), self.usual.patience(known.span()));
        self.under_way.push(Call { id, to, purpose, asked: now, patience, late: false });
        Some(id)
    }

    /// The call and its round trip; only by the one that was asked.
    pub(super) fn answered(&mut self, id: CallId, from: C, now: Instant) -> Option<(Call<C>, Duration)> {
        let place = self.under_way.iter().position(|call| call.id == id && call.to == from)?;
        let call = self.under_way.swap_remove(place);
        let round_trip = now.since(call.asked);
        self.usual.measured(round_trip);
        Some((call, round_trip))
    }

    pub(super) fn failed(&mut self, id: CallId) -> Option<Call<C>> {
        let place = self.under_way.iter().position(|call| call.id == id)?;
        Some(self.under_way.swap_remove(place))
    }

    pub(super) fn take_overdue(&mut self, now: Instant) -> Option<Overdue<C>> {
        let place = self.under_way.iter().position(|call| call.deadline() <= now)?;
        if now.since(self.under_way[place].asked) >= CALL_LIMIT {
            return Some(Overdue::Lost(self.under_way.swap_remove(place)));
        }
        self.under_way[place].late = true;
        Some(Overdue::Late(self.under_way[place]))
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.under_way.iter().map(Call::deadline).min()
    }

    pub(super) fn clear(&mut self) -> Vec<Call<C>> {
        std::mem::take(&mut self.under_way)
    }

    pub(super) fn asks(&self, contact: C) -> bool {
        self.under_way.iter().any(|call| call.to == contact)
    }

    pub(super) fn with(&self, purpose: Purpose) -> usize {
        self.under_way.iter().filter(|call| call.purpose == purpose).count()
    }
}

impl<C> Call<C> {
    fn deadline(&self) -> Instant {
        self.asked + if self.late { CALL_LIMIT } else { self.patience }
    }
}

/// The round trips of all contacts together, as TCP keeps those of one (RFC 6298).
#[derive(Debug, Clone, Copy, Default)]
struct Usual {
    mean: Option<Duration>,
    deviation: Duration,
}

impl Usual {
    fn measured(&mut self, span: Duration) {
        let Some(mean) = self.mean else {
            (self.mean, self.deviation) = (Some(span), span / 2);
            return;
        };
        let off = span.abs_diff(mean);
        self.deviation = (self.deviation * 3 + off) / 4;
        self.mean = Some((mean * 7 + span) / 8);
    }

    /// Twice a known round trip; of a stranger four deviations beyond what is usual.
    fn patience(&self, known: Option<Duration>) -> Duration {
        let expected = match (known, self.mean) {
            (Some(known), _) => known * 2,
            (None, Some(mean)) => mean + self.deviation * 4,
            (None, None) => PATIENCE_MAX,
        };
        expected.clamp(PATIENCE_MIN, PATIENCE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn who_is_late_is_told_once_and_given_up_at_the_limit() {
        let (mut calls, start) = (Calls::default(), Instant::ZERO);
        let id = calls.begin(7_u32, Purpose::Check, RoundTrip::UNKNOWN, start).unwrap();
        assert_eq!(calls.next(), Some(start + PATIENCE_MAX));
        assert!(
            matches!(calls.take_overdue(start + PATIENCE_MAX), Some(Overdue::Late(call)) if call.id == id)
        );
        assert!(calls.take_overdue(start + PATIENCE_MAX).is_none());
        assert!(matches!(calls.take_overdue(start + CALL_LIMIT), Some(Overdue::Lost(_))));
        assert_eq!(calls.next(), None);
    }

    #[test]
    fn an_answer_counts_only_from_the_one_who_was_asked() {
        let mut calls = Calls::default();
        let id = calls.begin(7_u32, Purpose::Check, RoundTrip::UNKNOWN, Instant::ZERO).unwrap();
        assert!(calls.answered(id, 8, Instant::ZERO + ms(1)).is_none());
        assert!(calls.answered(id, 7, Instant::ZERO + ms(1)).is_some());
    }

    #[test]
    fn patience_follows_the_round_trips_and_stays_within_its_bounds() {
        let mut usual = Usual::default();
        (0..50).for_each(|_| usual.measured(ms(40)));
        assert!(usual.patience(None) < ms(60), "{:?}", usual.patience(None));
        assert_eq!(usual.patience(Some(ms(1))), PATIENCE_MIN);
        assert_eq!(usual.patience(Some(ms(900))), PATIENCE_MAX);
    }
}
