//! Throw-away certificates and databases, for the tests of whoever depends on this crate.

pub mod nats;
pub mod pki;
pub mod postgres;
