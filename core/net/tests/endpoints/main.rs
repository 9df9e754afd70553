//! Endpoints that meet on loopback.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod cost;
mod discovery;
mod hostile;
mod house;
mod relayed;
mod session;
