//! Every parser of network bytes, as targets that a fuzzer can feed.
//!
//! What lies behind a signature is fed to the signer first: a fuzzer never guesses signatures, an enrolled node that
//! turned bad makes them at will.

pub mod mutate;
pub mod seeds;
pub mod target;
pub mod world;

pub use target::{TARGETS, Target};
pub use world::World;
