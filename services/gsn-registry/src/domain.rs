//! Rules and state without framework: what proves a candidate, who serves, what a caller is told.

pub mod candidate;
pub mod choice;
pub mod demand;
pub mod locality;
pub mod proof;
pub mod quota;
pub mod record;
pub mod registry;
pub mod relays;
