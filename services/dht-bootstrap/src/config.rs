//! What dht-bootstrap is told when it starts.

use std::net::IpAddr;

use muster_kit::database::StoreConfig;
use muster_types::NetworkId;
use rustls_pki_types::CertificateDer;

/// Bootstrap nodes of one service: one may be restarted, one may be attacked, one is left.
pub const NODES: usize = 3;

/// First UDP port that a new node tries; any if it is taken. Kept from then on.
pub const FIRST_PORT: u16 = muster_types::limits::DEFAULT_PORT + 10;

#[derive(Debug, Clone)]
pub struct Config {
    pub store: StoreConfig,
    pub network: NetworkId,
    /// DER, the network's pinned roots.
    pub roots: Vec<CertificateDer<'static>>,
    /// Where the nodes listen.
    pub bind: IpAddr,
    /// The address under which others reach them.
    pub address: IpAddr,
    pub nodes: usize,
    pub first_port: u16,
}

impl Config {
    /// Everything at its default.
    pub fn new(
        store: StoreConfig,
        network: NetworkId,
        roots: Vec<CertificateDer<'static>>,
        address: IpAddr,
    ) -> Self {
        let bind = if address.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        Self { store, network, roots, bind, address, nodes: NODES, first_port: FIRST_PORT }
    }
}
