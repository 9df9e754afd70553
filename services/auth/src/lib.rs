//! The auth service: certificate authority, links, renewal, signing.

pub mod domain;
pub mod store;
