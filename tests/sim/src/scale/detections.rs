//! How often somebody who lives is taken for dead: nothing happens but packets that get lost, and nothing rests.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Report, SETTLE, agenda};
use crate::churn::office_link;
use crate::model::link::{Loss, Shape};
use crate::world::{Setup, World};

/// At most so many in a thousand days of a host, at 1 % independent loss.
const ALLOWED: f64 = 1.0;

/// What each host's link does to packets, each way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weather {
    /// Each packet is lost by itself: two links of half of it make up the whole.
    Independent(f64),
    /// Now and then nothing comes through, for 300 ms in the mean.
    Bursts { every: Duration },
}

#[derive(Debug, Clone)]
pub struct Detections {
    pub nodes: usize,
    pub places: usize,
    pub hours: u32,
    pub weather: Weather,
}

impl Detections {
    pub fn run(&self, seed: u64) -> Report {
        let loss = match self.weather {
            Weather::Independent(share) => Loss::Independent(share / 2.0),
            Weather::Bursts { every } => Loss::Bursts {
                good: every,
                bad: Duration::from_millis(300),
                loss_when_good: 0.0,
                loss_when_bad: 1.0,
            },
        };
        let link = Shape { loss, ..office_link() };
        let mut world = World::new(
            &Setup { nodes: self.nodes, places: self.places, link, rest: false, datagrams: true },
            seed,
        );
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let boots = (0..self.nodes).map(|host| (SETTLE.mul_f64(rng.random()), host)).collect();
        for (at, host) in agenda(boots) {
            world.run_until(muster_types::Instant::ZERO + at);
            world.boot(host);
        }
        world.run_for(2 * SETTLE);
        let before = world.measure().false_detections + world.measure().false_departures;
        world.run_for(Duration::from_secs(3_600) * self.hours);
        let measure = world.measure();
        let found = measure.false_detections + measure.false_departures - before;
        let host_days = self.nodes as f64 * f64::from(self.hours) / 24.0;
        let rate = found as f64 / host_days * 1_000.0;
        let mut report = Report::default();
        report.line(format!(
            "{:?}: {found} false detections in {host_days:.0} host-days, {rate:.2} in 1,000 ({} claims against a living LSN, \
             {} living children given up)",
            self.weather, measure.false_detections, measure.false_departures
        ));
        if matches!(self.weather, Weather::Independent(_)) {
            report.demand(rate <= ALLOWED, format!("{rate:.2} false detections in 1,000 host-days"));
        }
        report
    }
}
