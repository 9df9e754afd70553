//! The overlay protocol: every state machine, no I/O.
//!
//! [`Node`] is the machine; [`Input`] is what can happen to it, [`Intent`] what it wants. Inside, each state is
//! a room: searching, joining, membership of a child, the office of an LSN. [`dht`] is the other machine: the hash
//! table; [`meeting`] brings two nodes together whatever lies between, [`relay`] carries them where nothing else does, [`post`]
//! passes small letters on by super nodes.

pub mod claim;
pub mod dht;
pub mod input;
pub mod intent;
pub mod meeting;
pub mod message;
pub mod node;
pub mod office;
pub mod post;
pub mod relay;
pub mod standing;
pub mod timer;
pub mod timing;

mod answers;
mod joining;
mod line;
mod losses;
mod membership;
mod search;
mod step;
mod turn;
mod watch;

pub use claim::Claim;
pub use input::Input;
pub use intent::Intent;
pub use node::{Config, Node};
pub use timer::Timer;
