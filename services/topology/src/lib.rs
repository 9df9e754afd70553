//! The topology service: cells, presence, control channel, tasks, events.

pub mod domain;
pub mod store;
