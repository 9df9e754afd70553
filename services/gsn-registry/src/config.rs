//! What gsn-registry is told when it starts.

use std::net::IpAddr;

use muster_kit::database::StoreConfig;
use muster_types::NetworkId;
use rustls_pki_types::CertificateDer;

#[derive(Debug, Clone)]
pub struct Config {
    pub store: StoreConfig,
    pub network: NetworkId,
    /// DER, the network's pinned roots.
    pub roots: Vec<CertificateDer<'static>>,
    /// Where probes leave this host; empty: every address of its default route. Only those count to which a candidate
    /// has sent nothing, so an address that serves nothing else by UDP is worth more than one that does.
    pub probe_from: Vec<IpAddr>,
    /// False: something in front hides where callers come from; nothing is concluded from their addresses then.
    pub source_visible: bool,
}

impl Config {
    /// Everything at its default.
    pub fn new(store: StoreConfig, network: NetworkId, roots: Vec<CertificateDer<'static>>) -> Self {
        Self { store, network, roots, probe_from: Vec::new(), source_visible: true }
    }
}
