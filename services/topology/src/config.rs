//! What topology is told when it starts. Everything else has a name and a value in the room it belongs to.

use std::path::{Path, PathBuf};

use muster_kit::database::StoreConfig;
use muster_kit::observe::Pages;
use muster_types::{NetworkId, Version};
use rustls_pki_types::CertificateDer;

use crate::store::Retention;

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
    /// Topology's own X25519 secret, made if it is not there: what confidential tasks report is sealed to it. Replicas share it.
    pub sealing_key_file: PathBuf,
    /// The operators' policy, if there is one: handed to nodes.
    pub operator_policy_file: PathBuf,
    /// Who may have what done where, in TOML, if that is limited.
    pub task_policy_file: PathBuf,
}

impl Config {
    /// Everything at its default.
    pub fn new(
        store: StoreConfig,
        data_dir: &Path,
        network: NetworkId,
        roots: Vec<CertificateDer<'static>>,
    ) -> Self {
        Self {
            store,
            bus: None,
            pages: None,
            network,
            roots,
            minimum_version: Version { major: 0, minor: 1, patch: 0 },
            source_visible: true,
            retention: Retention::default(),
            sealing_key_file: data_dir.join("topology-sealing.key"),
            operator_policy_file: data_dir.join("operator-policy"),
            task_policy_file: data_dir.join("task-policy.toml"),
        }
    }
}
