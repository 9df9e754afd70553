//! Messages to bytes and back: codec, sealed datagrams, signed envelopes. No I/O.

pub mod beat;
pub mod call;
pub mod datagram;
pub mod dht;
pub mod discovery;
pub mod envelope;
pub mod error;
mod field;
pub mod frame;
pub mod gsn;
pub mod hello;
pub mod kind;
pub mod letter;
pub mod meeting;
mod neighbors;
pub mod operator;
pub mod pack;
pub mod probe;
pub mod record;
pub mod relay;
pub mod revocation;
pub mod roots;
pub mod sealed;
pub mod sealing;
pub mod session;
pub mod signer;
pub mod stun;
#[cfg(feature = "testing")]
pub mod testing;
pub mod ticket;
pub mod time;
pub mod trust;
pub mod verifier;
pub mod window;

pub use envelope::EnvelopeError;
pub use error::WireError;
pub use hello::Hello;
pub use kind::Kind;
pub use operator::OperatorPolicy;
pub use revocation::Revocations;
pub use signer::Signer;
pub use ticket::NodeTicket;
pub use trust::TrustStore;
pub use verifier::Verifier;
