//! The overlay's machines in a simulated world: one seed, one run.
//!
//! [`model`] is what stands between hosts; [`world`] drives the machines over it under a virtual clock; [`churn`] is
//! what happens to them, [`calm`] one thing at a time, [`scale`] what befalls a whole fleet; [`oracle`] judges by what
//! the world shows; [`measure`] keeps the figures. [`meeting`] brings two nodes together across translators. [`dht`] is a
//! world of its own for the hash table's machines, made for a million of them.

pub mod calm;
pub mod churn;
pub mod dht;
pub mod measure;
pub mod meeting;
pub mod model;
pub mod oracle;
pub mod scale;
pub mod world;

pub use churn::{Churn, Outcome};
pub use world::World;
