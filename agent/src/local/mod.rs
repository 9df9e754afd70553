//! The agent for its own host: LocalService over a unix socket that only its owner may open.

mod client;
mod server;
mod table;

pub use client::{LocalError, connect};
pub use server::{Request, serve};
