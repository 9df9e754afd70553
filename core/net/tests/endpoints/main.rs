//! Endpoints that meet on loopback.

mod house;
mod session;
