//! The hash table at scale: up to a million of its machines under the virtual clock, in one thread, beside a sorted list that
//! knows the truth.
//!
//! [`names`] interns the nodes and holds the truth, [`network`] drives the machines, [`load`] lets nodes use the table
//! and counts what comes of it; [`scale`], [`day`] and [`events`] are what is tried, [`tune`] tries it over and
//! over, and [`command`] says how it went.

pub mod command;
pub mod day;
pub mod events;
pub mod load;
pub mod names;
pub mod network;
pub mod scale;
pub mod tune;

mod cost;
mod latency;

pub use names::Ids;
pub use network::{Network, Setup};
