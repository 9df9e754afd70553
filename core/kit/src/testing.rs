//! Throw-away certificates, databases and a proxy, for the tests of whoever depends on this crate.

pub mod earlier;
pub mod nats;
pub mod pki;
pub mod postgres;
pub mod tinyproxy;
