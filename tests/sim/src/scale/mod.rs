//! What befalls a whole fleet: mornings, outages, the death of most LSNs, liars. Each scenario is one run from one seed,
//! and ends with what an onlooker sees: who has an LSN, what the master shows, and who had how much to do.

mod alone;
mod crowd;
mod day;
mod decapitation;
mod detections;
mod liars;
mod outage;
mod revocation;
mod revocations;

use std::time::Duration;

use muster_types::Instant;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::churn::office_link;
use crate::measure::Sample;
use crate::world::{HostId, Life, Setup, World};

pub use alone::Alone;
pub use crowd::Crowd;
pub use day::Day;
pub use decapitation::{Decapitation, Victims};
pub use detections::{Detections, Weather};
pub use liars::Liars;
pub use outage::Outage;
pub use revocation::Revocation;
pub use revocations::Revocations;

/// For a fleet to settle, planned changes of LSN included.
const SETTLE: Duration = Duration::from_secs(60);

/// What came out, line by line, and whether it is as it must be.
#[derive(Debug, Default)]
pub struct Report {
    pub lines: Vec<String>,
    pub failures: Vec<String>,
}

impl Report {
    fn line(&mut self, text: impl Into<String>) {
        self.lines.push(text.into());
    }

    fn sample(&mut self, name: &str, sample: &Sample) {
        let of = |percent| sample.percentile(percent).as_secs_f64();
        let (p50, p95, p99, worst) = (of(50), of(95), of(99), of(100));
        let n = sample.len();
        self.line(format!("{name}: n {n}, p50 {p50:.2} s, p95 {p95:.2} s, p99 {p99:.2} s, max {worst:.2} s"));
    }

    fn demand(&mut self, right: bool, what: impl Into<String>) {
        if !right {
            self.failures.push(what.into());
        }
    }

    /// Every host's load, and the master's.
    fn loads(&mut self, world: &World, is_lsn: &[bool]) {
        let hours = world.now().elapsed().as_secs_f64() / 3_600.0;
        let loads = world.measure().loads.hosts();
        for (role, wanted) in [("node", false), ("LSN", true)] {
            let of_role = || loads.iter().zip(is_lsn).filter(|(_, is)| **is == wanted).map(|(load, _)| load);
            let count = of_role().count().max(1);
            let total: u64 = of_role().map(|load| load.total).sum();
            let peak = of_role().map(|load| load.peak).max().unwrap_or_default();
            let mean = total as f64 / count as f64 / hours / 1_000.0;
            self.line(format!(
                "{role}: sends {mean:.0} kB/h in the mean, {peak} bytes in the busiest minute of any"
            ));
        }
        let (busiest, total) = (world.measure().loads.busiest_second(), world.measure().loads.master_total());
        self.line(format!(
            "master: {} connections let in, {} sent away, {} kB; busiest second {} in, {} away, {} kB",
            total.admitted,
            total.sent_away,
            total.bytes / 1_000,
            busiest.admitted,
            busiest.sent_away,
            busiest.bytes / 1_000
        ));
    }

    /// What an onlooker sees: LSNs that answer a stranger, and the master's picture.
    fn audit(&mut self, world: &mut World) -> Audit {
        let mut audit = Audit { is_lsn: vec![false; world.host_count()], ..Audit::default() };
        for place in 0..world.place_count() {
            let lsns = world.who_is_lsn(place, 0);
            let members: Vec<_> = world.running(place, 0).collect();
            audit.cells += usize::from(!members.is_empty());
            audit.odd_cells += usize::from(!members.is_empty() && lsns.len() != 1);
            lsns.iter().for_each(|&lsn| audit.is_lsn[lsn] = true);
            for host in members {
                audit.running += 1;
                audit.shown += usize::from(world.shown(host).is_some());
            }
        }
        for host in 0..world.host_count() {
            let gone = world.life(host) != Life::Running;
            audit.ghosts += usize::from(gone && world.shown(host).is_some());
        }
        self.line(format!(
            "at the end: {} hosts run in {} cells; {} cells without exactly one LSN; the master shows {} of them, and {} \
             that are not there",
            audit.running, audit.cells, audit.odd_cells, audit.shown, audit.ghosts
        ));
        audit
    }
}

#[derive(Debug, Default)]
struct Audit {
    running: usize,
    cells: usize,
    odd_cells: usize,
    shown: usize,
    ghosts: usize,
    is_lsn: Vec<bool>,
}

fn fleet(nodes: usize, places: usize, seed: u64) -> (World, ChaCha8Rng) {
    let setup = Setup { nodes, places, link: office_link(), rest: true, datagrams: true };
    (World::new(&setup, seed), ChaCha8Rng::seed_from_u64(seed ^ 0x5ca1_ab1e))
}

/// What is going to happen, in its order.
fn agenda<A>(mut acts: Vec<(Duration, A)>) -> Vec<(Duration, A)> {
    acts.sort_by_key(|&(at, _)| at);
    acts
}

/// Switches every host on, within this span from now, and lets the fleet settle.
fn boot_all(world: &mut World, within: Duration, rng: &mut ChaCha8Rng) {
    let begin = world.now();
    let boots = (0..world.host_count()).map(|host| (within.mul_f64(rng.random()), host));
    for (after, host) in agenda(boots.collect()) {
        world.run_until(begin + after);
        world.boot(host);
    }
    world.run_until(begin + within + SETTLE);
}

/// From now on the master does not know where any running host is, until it is told.
fn return_master(world: &mut World) -> Instant {
    let now = world.now();
    world.set_master(true);
    for host in 0..world.host_count() {
        if world.life(host) == Life::Running {
            world.measure.missed(host, now);
        }
    }
    now
}

/// Hosts that answer a stranger as LSNs now.
fn lsns(world: &mut World) -> Vec<HostId> {
    (0..world.place_count()).flat_map(|place| world.who_is_lsn(place, 0)).collect()
}
