//! Dates and spans to protobuf's well-known types and back.

use std::time::Duration;

use muster_types::Timestamp;

const MICROS: i64 = 1_000_000;

pub fn to_wire(date: Timestamp) -> prost_types::Timestamp {
    let micros = date.as_micros();
    let nanos = i32::try_from(micros.rem_euclid(MICROS) * 1_000).unwrap_or_default();
    prost_types::Timestamp { seconds: micros.div_euclid(MICROS), nanos }
}

/// `None` if it lies beyond what microseconds in 64 bits can hold, or its nanoseconds are out of range.
pub fn from_wire(date: prost_types::Timestamp) -> Option<Timestamp> {
    let nanos = u32::try_from(date.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    let micros = date.seconds.checked_mul(MICROS)?.checked_add(i64::from(nanos / 1_000))?;
    Some(Timestamp::from_micros(micros))
}

pub fn span_to_wire(span: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    prost_types::Duration { seconds, nanos: i32::try_from(span.subsec_nanos()).unwrap_or_default() }
}

/// `None` if it is negative or out of range.
pub fn span_from_wire(span: prost_types::Duration) -> Option<Duration> {
    let nanos = u32::try_from(span.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(span.seconds).ok()?, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_survive_the_wire_before_and_after_1970() {
        for micros in [0, 1, -1, 1_795_000_000_123_456, -1_234_567] {
            let date = Timestamp::from_micros(micros);
            assert_eq!(from_wire(to_wire(date)), Some(date));
        }
    }

    #[test]
    fn spans_that_are_negative_or_absurd_are_refused() {
        assert_eq!(span_from_wire(prost_types::Duration { seconds: -1, nanos: 0 }), None);
        assert_eq!(span_from_wire(prost_types::Duration { seconds: 0, nanos: -1 }), None);
        assert_eq!(from_wire(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), None);
    }
}
