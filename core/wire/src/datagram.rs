//! Sealed datagrams: small idempotent requests and their answers between nodes, one round trip even on first
//! contact. Noise_IK_25519_ChaChaPoly_BLAKE2s, framed like WireGuard (<https://www.wireguard.com/papers/wireguard.pdf>,
//! section 5): receiver index, 64-bit counter, replay window, mac1 always, a cookie under load. No I/O.
//!
//! [`Exchange`] is the machine. Bytes from the socket go in; datagrams to send, requests to answer and answers to
//! own requests come out.

mod challenge;
mod exchange;
mod flight;
mod frame;
mod handshake;
mod message;
mod peer;
mod pending;
mod reader;
mod replay;
mod session;
mod table;

pub use exchange::{Counts, Exchange, Limits};
pub use frame::Kind;
pub use handshake::Own;
pub use message::{Event, Reply, RequestError, RequestId};
pub use peer::{NoiseKey, Peer, PeerAddress};
pub(crate) use reader::Reader;

#[cfg(test)]
mod tests;
