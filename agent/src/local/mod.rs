//! The agent for its own host: LocalService over a unix socket that only its owner may open.

mod client;
mod letters;
mod network;
mod server;
mod table;

pub use client::{LocalError, connect};
pub(crate) use server::{Request, serve};
