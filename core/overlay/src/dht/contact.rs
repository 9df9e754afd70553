//! What a table keeps of one contact, in few bytes: at a million nodes in one process each of them counts.

use std::fmt::Debug;
use std::time::Duration;

use muster_types::Instant;

use super::timing::{FAILURES, FORGOTTEN};

/// Stands for a contact: small, and told apart by its value alone.
pub trait Handle: Copy + Ord + Debug {}

impl<C: Copy + Ord + Debug> Handle for C {}

/// A round trip in one byte: 16 steps to a doubling, from 100 µs to 6 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RoundTrip(u8);

const SHORTEST_MICROS: f32 = 100.0;
const STEPS: f32 = 16.0;
/// An exponentially moving average, as TCP's (RFC 6298): the new one counts an eighth.
const SMOOTHING: f32 = 0.125;

impl RoundTrip {
    pub(super) const UNKNOWN: Self = Self(u8::MAX);

    fn of(span: Duration) -> Self {
        let doublings = (span.as_micros() as f32 / SHORTEST_MICROS).max(1.0).log2();
        Self((doublings * STEPS).min(f32::from(u8::MAX - 1)) as u8)
    }

    pub(super) fn span(self) -> Option<Duration> {
        let micros = SHORTEST_MICROS * (f32::from(self.0) / STEPS).exp2();
        (self != Self::UNKNOWN).then(|| Duration::from_micros(micros as u64))
    }

    fn measured(&mut self, span: Duration) {
        *self = Self::of(match self.span() {
            Some(usual) => usual.mul_f32(1.0 - SMOOTHING) + span.mul_f32(SMOOTHING),
            None => span,
        });
    }
}

/// A contact of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<C> {
    pub(super) contact: C,
    /// Minutes and hours of the machine's clock; they wrap, and are only compared with others that are recent.
    seen: u16,
    since: u16,
    pub(super) round_trip: RoundTrip,
    /// Of 255 requests it answers so many, recent ones counting more.
    answers: u8,
    failures: u8,
    pub(super) office: bool,
}

/// Marks a contact that said it leaves.
const PARTED: u8 = u8::MAX;

impl<C: Handle> Entry<C> {
    pub(super) fn new(contact: C, office: bool, now: Instant) -> Self {
        let round_trip = RoundTrip::UNKNOWN;
        let (seen, since) = (minutes(now), hours(now));
        Self { contact, seen, since, round_trip, answers: u8::MAX, failures: 0, office }
    }

    /// It lives: any authenticated message shows that.
    pub(super) fn heard(&mut self, now: Instant) {
        (self.seen, self.failures) = (minutes(now), 0);
    }

    pub(super) fn answered(&mut self, round_trip: Duration) {
        self.round_trip.measured(round_trip);
        self.answers = self.answers.saturating_add((u8::MAX - self.answers).div_ceil(8));
    }

    /// It has not answered, or it is late.
    pub(super) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.answers -= self.answers / 8;
    }

    /// Known from elsewhere, or late: not to be handed on before it has answered.
    pub(super) fn doubt(&mut self) {
        self.failures = self.failures.max(1);
    }

    pub(super) fn parted(&mut self) {
        self.failures = PARTED;
    }

    /// Has answered when it was last asked.
    pub(super) fn is_good(&self) -> bool {
        self.failures == 0
    }

    /// Asleep or gone, for all we know: kept, and asked again now and then.
    pub(super) fn is_away(&self) -> bool {
        self.failures >= FAILURES
    }

    pub(super) fn unheard(&self, now: Instant) -> Duration {
        Duration::from_secs(60 * u64::from(minutes(now).wrapping_sub(self.seen)))
    }

    pub(super) fn is_forgotten(&self, now: Instant) -> bool {
        self.unheard(now) > FORGOTTEN
    }

    pub(super) fn reliability(&self, now: Instant) -> Reliability {
        Reliability {
            known: Duration::from_secs(3_600 * u64::from(hours(now).wrapping_sub(self.since))),
            unheard: self.unheard(now),
            answered: f32::from(self.answers) / f32::from(u8::MAX),
            round_trip: self.round_trip.span(),
            away: self.is_away(),
        }
    }
}

fn minutes(now: Instant) -> u16 {
    (now.elapsed().as_secs() / 60) as u16
}

fn hours(now: Instant) -> u16 {
    (now.elapsed().as_secs() / 3_600) as u16
}

/// What has been learnt of a contact by dealing with it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reliability {
    /// In the table for so long, to the hour.
    pub known: Duration,
    /// To the minute.
    pub unheard: Duration,
    /// Of the requests to it, recent ones counting more.
    pub answered: f32,
    pub round_trip: Option<Duration>,
    pub away: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_is_kept_to_a_twentieth() {
        for micros in [150, 900, 20_000, 250_000, 1_400_000] {
            let span = Duration::from_micros(micros);
            let kept = RoundTrip::of(span).span().unwrap().as_secs_f64();
            assert!((kept / span.as_secs_f64() - 1.0).abs() < 0.05, "{micros} µs are kept as {kept} s");
        }
    }

    #[test]
    fn a_contact_of_a_simulator_takes_twelve_bytes() {
        assert_eq!(size_of::<Entry<u32>>(), 12);
    }

    #[test]
    fn ages_are_right_after_the_counters_have_wrapped() {
        let late = Instant::from_elapsed(Duration::from_secs(60 * 65_530));
        let entry = Entry::new(1_u32, false, late);
        assert_eq!(entry.unheard(late + Duration::from_secs(600)), Duration::from_secs(600));
    }
}
