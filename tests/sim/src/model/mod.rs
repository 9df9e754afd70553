//! What stands between two hosts, as pure machines: links that delay and lose, address translators and firewalls that
//! map, filter and forget. Time and randomness are passed in; the simulator feeds them flows, the lab real packets.

pub mod firewall;
pub mod flow;
pub mod link;
pub mod nat;
pub mod packet;
mod permits;

pub use firewall::Firewall;
pub use flow::{Flow, Protocol, Refusal, Signal};
pub use link::{Fate, Link, Loss, Shape};
pub use nat::{Behaviour, Dependence, Nat, Outbound, Ports};
pub use permits::{Refresh, Timeouts};
