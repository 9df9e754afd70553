//! The overlay protocol: every state machine, no I/O.

pub mod claim;
pub mod input;
pub mod intent;
pub mod message;
pub mod standing;

pub use claim::Claim;
pub use input::Input;
pub use intent::Intent;
