//! Messages to bytes and back: codec, sealed datagrams, signed envelopes. No I/O.

pub mod envelope;
pub mod ticket;
pub mod time;
pub mod trust;

pub use envelope::EnvelopeError;
pub use ticket::NodeTicket;
pub use trust::TrustStore;
