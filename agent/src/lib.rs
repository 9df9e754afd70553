//! The agent of a managed device: it joins once by a link, then keeps itself connected, does what the master signed,
//! and reports back.
//!
//! [`enrollment`] makes an identity, [`driver`] lives by it: [`control`] is its way to the master, [`tasks`] what it
//! is told to do, [`journal`] what it must not forget, [`platform`] the operating system. A program that embeds the
//! agent calls [`launch_if_asked`] first in its `main`, then [`enrollment::enroll`] once and [`run`] always.

pub mod cli;
pub mod config;
pub mod control;
mod donation;
pub mod driver;
pub mod enrollment;
pub mod identity;
pub mod inventory;
pub mod journal;
mod keyring;
pub mod local;
mod meetings;
pub mod platform;
mod post;
mod relays;
mod super_nodes;
pub mod tasks;
mod volunteer;

pub use config::Config;
pub use driver::run;
pub use platform::processes::launcher::run_if_asked as launch_if_asked;
