//! Attested uptime: how much of the last 14 days topology saw a node connected, counted by day.

use std::collections::BTreeMap;

use muster_types::Timestamp;
use serde::{Deserialize, Serialize};

/// Days that count (specification, section 4; design, section 2).
const DAYS: i64 = 14;

/// What a day weighs against the day after it.
const DECAY: f64 = 0.8;

const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;

/// Connected all the time, in basis points.
const FULL: f64 = 10_000.0;

/// Connected time of each of the last days, and the interval that is still open.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Uptime {
    /// Day since 1970 -> connected microseconds; at most [`DAYS`] + 1 entries.
    days: BTreeMap<i64, i64>,
    since: Option<Timestamp>,
}

impl Uptime {
    /// The node is connected from `at` on.
    pub fn begin(&mut self, at: Timestamp) {
        self.since.get_or_insert(at);
    }

    /// The node was connected until `at`.
    pub fn end(&mut self, at: Timestamp) {
        if let Some(since) = self.since.take() {
            credit(&mut self.days, since, at);
        }
    }

    /// The weighted share up to `now`, 0 to 10,000.
    pub fn basis_points(&self, now: Timestamp) -> u16 {
        let mut days = self.days.clone();
        if let Some(since) = self.since {
            credit(&mut days, since, now);
        }
        let today = now.as_micros().div_euclid(DAY_MICROS);
        let (mut connected, mut possible, mut weight) = (0.0, 0.0, 1.0);
        for age in 0..DAYS {
            let length = if age == 0 { now.as_micros().rem_euclid(DAY_MICROS) } else { DAY_MICROS };
            connected += weight * days.get(&(today - age)).map_or(0, |micros| *micros.min(&length)) as f64;
            possible += weight * length as f64;
            weight *= DECAY;
        }
        (FULL * connected / possible).round() as u16
    }
}

/// Adds the interval to its days and forgets the days that no longer count.
fn credit(days: &mut BTreeMap<i64, i64>, since: Timestamp, until: Timestamp) {
    let last = until.as_micros().div_euclid(DAY_MICROS);
    let first = since.as_micros().div_euclid(DAY_MICROS).max(last - DAYS);
    for day in first..=last {
        let from = since.as_micros().max(day * DAY_MICROS);
        let to = until.as_micros().min((day + 1) * DAY_MICROS);
        if to > from {
            *days.entry(day).or_default() += to - from;
        }
    }
    days.retain(|day, _| *day > last - DAYS);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i64, hour: i64) -> Timestamp {
        Timestamp::from_micros(day * DAY_MICROS + hour * 3_600_000_000)
    }

    #[test]
    fn a_node_connected_for_a_fortnight_has_full_uptime() {
        let mut uptime = Uptime::default();
        uptime.begin(at(100, 5));
        assert_eq!(uptime.basis_points(at(120, 7)), 10_000);
    }

    #[test]
    fn a_new_node_starts_low_however_long_its_first_hour() {
        let mut uptime = Uptime::default();
        uptime.begin(at(100, 1));
        assert!(uptime.basis_points(at(100, 2)) < 150);
    }

    #[test]
    fn yesterday_weighs_more_than_last_week() {
        let connected_on = |day| {
            let mut uptime = Uptime::default();
            uptime.begin(at(day, 0));
            uptime.end(at(day + 1, 0));
            uptime.basis_points(at(121, 0))
        };
        assert!(connected_on(120) > connected_on(114));
        assert_eq!(connected_on(100), 0);
    }

    #[test]
    fn counters_stay_small_whatever_the_interval() {
        let mut uptime = Uptime::default();
        uptime.begin(at(0, 0));
        uptime.end(at(10_000, 3));
        assert!(uptime.days.len() <= DAYS as usize);
        assert!(uptime.basis_points(at(10_000, 3)) > 9_999);
    }
}
