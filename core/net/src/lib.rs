//! Sockets: QUIC over UDP and TCP paths, sealed datagrams, local discovery; drives the hash table, carries everything.

mod accept;
pub mod class;
pub mod config;
mod demux;
pub mod dht;
mod dial;
pub mod discovery;
pub mod endpoint;
pub mod error;
pub mod event;
mod handshake;
pub mod interfaces;
pub mod pacer;
pub mod path;
mod peers;
pub mod queue;
mod quic;
mod reach;
mod routes;
pub mod sealed;
pub mod session;
mod socket;
pub mod stream;
mod tcp;
mod tls;
mod upgrade;
pub mod usage;

pub use class::TrafficClass;
pub use config::{Config, Material};
pub use endpoint::Endpoint;
pub use error::{BindError, CloseCode, CloseReason, DialError, SendError};
pub use event::NetEvent;
pub use path::Path;
pub use quic::{Burst, BurstSocket, Bursts};
pub use session::{Session, Side};
pub use stream::{Stream, StreamHeader};
