//! One calm place: what its network carries when nothing happens, and how long it takes to get over one thing at a time.

use std::time::Duration;

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::churn::office_link;
use crate::measure::{Measure, Traffic};
use crate::world::{HostId, Setup, World};

/// For a place to settle after anything, pre-emption included.
const REST: Duration = Duration::from_secs(60);
/// Over which quiet traffic is counted.
const QUIET: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub struct Calm {
    /// Of the quiet minutes alone.
    pub lan: Traffic,
    pub wan: Traffic,
    pub quiet: Duration,
    pub measure: Measure,
}

/// Boots a place, listens to its silence, then kills its LSN so many times, and lets it take its leave as often.
pub fn run(nodes: usize, rounds: usize, seed: u64) -> Calm {
    let setup = Setup { nodes, places: 1, link: office_link(), rest: false, datagrams: true };
    let mut world = World::new(&setup, seed);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for host in 0..nodes {
        world.run_for(Duration::from_millis(rng.random_range(0..200)));
        world.boot(host);
    }
    world.run_for(REST);
    let (lan, wan) = (world.measure().lan, world.measure().wan);
    world.run_for(QUIET);
    let (lan, wan) = (world.measure().lan.since(&lan), world.measure().wan.since(&wan));
    for _ in 0..rounds {
        for announced in [false, true] {
            // Beats do not know when an LSN dies.
            world.run_for(Duration::from_millis(rng.random_range(0..1_000)));
            if let &[lsn] = world.who_is_lsn(0, 0).as_slice() {
                strike(&mut world, lsn, announced);
            }
        }
    }
    Calm { lan, wan, quiet: QUIET, measure: world.into_measure() }
}

fn strike(world: &mut World, lsn: HostId, announced: bool) {
    let (children, now) = (world.children_of(lsn), world.now());
    world.measure.lsn_gone(lsn, children, announced, now);
    if announced {
        world.leave(lsn);
    } else {
        world.kill(lsn);
    }
    world.run_for(REST);
    world.boot(lsn);
    world.run_for(REST);
}
