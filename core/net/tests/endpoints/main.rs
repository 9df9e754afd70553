//! Endpoints that meet on loopback.

mod cost;
mod discovery;
mod hostile;
mod house;
mod session;
