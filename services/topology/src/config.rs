//! What topology is told when it starts. Everything else has a name and a value in the room it belongs to.

use std::path::PathBuf;

use muster_kit::observe::Pages;
use muster_types::{NetworkId, Version};
use rustls_pki_types::CertificateDer;

use crate::store::Retention;

/// Where the truth is kept.
#[derive(Debug, Clone)]
pub enum StoreConfig {
    /// One file, which is made if it is not there.
    Sqlite(PathBuf),
    /// `postgres://user@host/database`
    Postgres(String),
}

#[derive(Debug, Clone)]
pub struct Config {
    pub store: StoreConfig,
    /// `nats://host:4222`, by which replicas wake each other; `None`: there is only one.
    pub bus: Option<String>,
    pub network: NetworkId,
    /// Where the graph of the network is shown; `None`: nowhere.
    pub pages: Option<Pages>,
    /// DER, the network's pinned roots.
    pub roots: Vec<CertificateDer<'static>>,
    /// Nodes with older software are refused.
    pub minimum_version: Version,
    /// Whether a connection's source address is the one the node is seen from; false behind a balancer that hides it.
    pub source_visible: bool,
    pub retention: Retention,
}

impl Config {
    /// Everything at its default.
    pub fn new(store: StoreConfig, network: NetworkId, roots: Vec<CertificateDer<'static>>) -> Self {
        Self {
            store,
            bus: None,
            pages: None,
            network,
            roots,
            minimum_version: Version { major: 0, minor: 1, patch: 0 },
            source_visible: true,
            retention: Retention::default(),
        }
    }
}
