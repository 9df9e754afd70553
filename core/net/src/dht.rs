//! The hash table's machine with sockets around it: one task a node. Sealed datagrams come in, are opened and read; the
//! machine decides; its requests are sealed and sent. [`Dht`] is the handle by which the rest of the program asks.

mod book;
mod handle;
mod operations;
mod shell;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;
use muster_overlay::dht::Settings;
use muster_types::Instant;
use muster_wire::TrustStore;
use muster_wire::datagram::{self, Limits};

pub use handle::{Dht, DhtError, DhtEvent, Got};
pub use muster_overlay::dht::{Care, Effort, Kept, Kind, Record, Refusal, Service, Standing, Stats, Wish};

use crate::config::DateClock;

/// Measures time; runs on while the host sleeps.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// What a node of the table is started with.
pub struct DhtConfig {
    /// Its key and ticket, for sessions.
    pub own: datagram::Own,
    /// Its hand, for records.
    pub signer: muster_wire::Signer,
    pub trust: Arc<ArcSwap<TrustStore>>,
    pub clock: Clock,
    /// The date by the master's clock.
    pub dates: DateClock,
    pub settings: Settings,
    pub limits: Limits,
}
