//! The agent of a managed device.

pub mod enrollment;
pub mod identity;
pub mod inventory;
pub mod journal;
pub mod platform;
pub mod tasks;
