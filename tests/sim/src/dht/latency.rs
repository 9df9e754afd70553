//! How long a packet is on its way: places lie on a square, with the way between two of them and some jitter.

use std::time::Duration;

use rand::{Rng, RngCore};

/// Across the whole side of the square, one way.
const ACROSS: f64 = 45.0;
/// Access at both ends, one way.
const ACCESS: f64 = 4.0;
/// Within one place.
const LOCAL: f64 = 0.3;
/// Standard deviation of the logarithm: the 95th percentile is 1.8 times the median.
const JITTER: f64 = 0.35;

#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    x: f32,
    y: f32,
}

impl Position {
    pub(super) fn random(rng: &mut impl RngCore) -> Self {
        Self { x: rng.random(), y: rng.random() }
    }
}

pub(super) fn one_way(from: Position, to: Position, same_place: bool, rng: &mut impl RngCore) -> Duration {
    let (x, y) = (f64::from(from.x - to.x), f64::from(from.y - to.y));
    let usual = if same_place { LOCAL } else { ACCESS + ACROSS * x.hypot(y) };
    // The sum of four uniform numbers is nearly normal (Irwin-Hall), with a variance of a third.
    let uniform: f64 = rng.random::<[u16; 4]>().into_iter().map(|part| f64::from(part) / 65_536.0).sum();
    let normal = (uniform - 2.0) * 3.0_f64.sqrt();
    Duration::from_nanos((usual * 1e6 * (JITTER * normal).exp()) as u64)
}
