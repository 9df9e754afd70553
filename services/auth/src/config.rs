//! What can be set of auth. Everything but the master's address has a default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::token;

/// Where auth keeps its things, and where others find the master.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The master's folder.
    pub data_dir: PathBuf,
    /// `postgres://...` for replicas; none: one SQLite file in the data directory.
    #[serde(default)]
    pub database_url: Option<String>,
    /// The secret that opens the authority's keys; none: a file in the data directory.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// The token in which authorities' keys are made; none: they are sealed in the store.
    #[serde(default)]
    pub pkcs11: Option<token::Settings>,
    /// `host:port` of the master as devices dial it, best first. The first stands in links.
    pub addresses: Vec<String>,
    /// Domain of `_muster._tcp` SRV records that name the master; empty: none.
    #[serde(default)]
    pub discovery_domain: String,
    /// This replica's name in the audit log; none: the host's name. With one SQLite file there is one replica, `main`.
    #[serde(default)]
    pub replica: Option<String>,
    /// Where EST (RFC 7030) is served; none: nowhere.
    #[serde(default)]
    pub est_listen: Option<SocketAddr>,
    /// Where SCEP (RFC 8894) is served, in the clear as it is meant to be; none: nowhere.
    #[serde(default)]
    pub scep_listen: Option<SocketAddr>,
}

impl Config {
    /// Everything by default: an embedded store below `data_dir`.
    pub fn embedded(data_dir: impl Into<PathBuf>, addresses: Vec<String>) -> Self {
        Self {
            data_dir: data_dir.into(),
            database_url: None,
            secret_file: None,
            pkcs11: None,
            addresses,
            discovery_domain: String::new(),
            replica: None,
            est_listen: None,
            scep_listen: None,
        }
    }

    /// The embedded store's file.
    pub fn database_file(&self) -> PathBuf {
        self.data_dir.join("auth.db")
    }

    pub fn secret_file(&self) -> PathBuf {
        self.secret_file.clone().unwrap_or_else(|| self.data_dir.join("auth.secret"))
    }

    /// Where the link lies that lets `service` join from another process.
    pub fn join_file(&self, service: &str) -> PathBuf {
        join_file(&self.data_dir, service)
    }

    /// Where the credentials of the operator lie who sits at this master.
    pub fn operator_file(&self) -> PathBuf {
        operator_file(&self.data_dir)
    }
}

/// As [`Config::join_file`], for a process that knows only the data directory.
pub fn join_file(data_dir: &Path, service: &str) -> PathBuf {
    data_dir.join("join").join(format!("{service}.link"))
}

/// As [`Config::operator_file`], for a process that knows only the data directory.
pub fn operator_file(data_dir: &Path) -> PathBuf {
    data_dir.join("operator.pem")
}
