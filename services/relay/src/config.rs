//! What the relay is told when it starts.

use muster_overlay::relay::Limits;
use muster_types::NetworkId;
use muster_types::limits::DEFAULT_PORT;
use rustls_pki_types::CertificateDer;

/// Two hundred thousand channels at most: some 50 MB. A small machine's line, half of it.
const LIMITS: Limits = Limits { seats: 10_000, channels: 64, bytes_per_second: 50_000_000 };

/// The UDP port that a relay takes if it is free; sessions are told which one it is.
pub const UDP_PORT: u16 = DEFAULT_PORT + 20;

#[derive(Debug, Clone)]
pub struct Config {
    /// As tickets name this relay; each replica has its own.
    pub name: String,
    pub network: NetworkId,
    /// DER, the network's pinned roots.
    pub roots: Vec<CertificateDer<'static>>,
    pub limits: Limits,
}

impl Config {
    /// Everything at its default.
    pub fn new(name: String, network: NetworkId, roots: Vec<CertificateDer<'static>>) -> Self {
        Self { name, network, roots, limits: LIMITS }
    }
}
