//! The rules of auth and nothing else: who becomes whom, for how long, by which proof, signed by which key.
//!
//! Synchronous; `now` and randomness are arguments. No RPC, no database, no clock.

pub mod audit;
pub mod authority;
pub mod challenge;
pub mod cooldown;
pub mod enrollment;
pub mod founding;
pub mod label;
pub mod leaf;
pub mod link;
pub mod principal;
pub mod renewal;
pub mod request;
pub mod signer;
pub mod vault;

pub use authority::Authority;
pub use link::Link;
pub use principal::Principal;
