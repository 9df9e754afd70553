//! libFuzzer's entry: `MUSTER_FUZZ_TARGET` names the target. `tests/fuzz/libfuzzer` builds and runs it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use muster_fuzz::{TARGETS, Target, World};

static WORLD: LazyLock<World> = LazyLock::new(World::default);

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("MUSTER_FUZZ_TARGET").expect("MUSTER_FUZZ_TARGET names a target");
    TARGETS.iter().find(|target| target.name == name).expect("a target of muster-fuzz")
});

fuzz_target!(|bytes: &[u8]| {
    (TARGET.feed)(&WORLD, bytes);
});
