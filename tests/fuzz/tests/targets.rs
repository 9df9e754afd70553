//! A short run of every target on every change; the long, coverage-guided one is `tests/fuzz/libfuzzer`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use muster_fuzz::mutate::mutate;
use muster_fuzz::{TARGETS, World};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Inputs fed to each target.
const INPUTS: usize = 5_000;

#[test]
fn every_seed_is_taken_to_its_last_field() {
    let world = World::default();
    for target in TARGETS {
        let seeds = (target.seeds)(&world);
        assert!(!seeds.is_empty(), "{} has no seed", target.name);
        for seed in seeds {
            assert!((target.feed)(&world, &seed), "{} refuses its seed {seed:02x?}", target.name);
        }
    }
}

#[test]
fn no_target_panics_on_relatives_of_its_seeds() {
    let world = World::default();
    let seed: u64 = rand::rng().random();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for target in TARGETS {
        let seeds = (target.seeds)(&world);
        let mut refused = 0;
        for _ in 0..INPUTS {
            let input = mutate(&seeds, &mut rng);
            let fed = catch_unwind(AssertUnwindSafe(|| (target.feed)(&world, &input)));
            match fed {
                Ok(taken) => refused += usize::from(!taken),
                Err(_) => panic!("{} panics on {input:02x?} (seed {seed})", target.name),
            }
        }
        assert!(refused > 0, "{} takes everything: it cannot fail", target.name);
    }
}
