//! The rules of auth and nothing else: who becomes whom, for how long, by which proof, signed by which key.
//!
//! Synchronous; `now` and randomness are arguments. No RPC, no database, no clock.

pub mod approval;
pub mod audit;
pub mod authority;
pub mod challenge;
pub mod cooldown;
pub mod crl;
pub mod custody;
pub mod device;
pub mod enrollment;
pub mod founding;
pub mod key;
pub mod label;
pub mod leaf;
pub mod link;
pub mod offline;
pub mod principal;
pub mod renewal;
pub mod request;
pub mod revocation;
pub mod rotation;
pub mod server;
pub mod signer;
pub mod vault;

pub use authority::Authority;
pub use link::Link;
pub use principal::Principal;
