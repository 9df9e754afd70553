//! The agent of a managed device.

pub mod inventory;
pub mod journal;
pub mod platform;
pub mod tasks;
