//! What can be set of an agent; everything has a default, and most devices set nothing.
//!
//! Later wins: defaults, one TOML file, `MUSTER_AGENT_*` in the environment, flags.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use muster_kit::connect::{Proxies, ProxyConfig};
use muster_kit::dirs;
use muster_kit::telemetry::TelemetryConfig;
use muster_types::limits::DEFAULT_PORT;
use serde::{Deserialize, Serialize};

use crate::identity::PROXY;

/// The file that is read if it exists.
pub const FILE: &str = "/etc/muster/agent.toml";

/// Where the local control socket lies when the state is in its usual place.
const RUN_DIR: &str = "/run/muster-agent";

const SOCKET: &str = "agent.sock";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Keys and journal. Default: `/var/lib/muster-agent` for root, else `$XDG_STATE_HOME/muster-agent`.
    pub state_dir: Option<PathBuf>,
    /// The local control socket. Default: `/run/muster-agent` for root, else `run` in the state directory.
    pub run_dir: Option<PathBuf>,
    /// Where tasks get their own temporary directories.
    pub temporary_dir: PathBuf,
    /// UDP and TCP port of the overlay; any other if it is taken.
    pub port: u16,
    /// `host:port` of the master, tried before all others.
    pub master_addresses: Vec<String>,
    /// The domain whose `_muster._tcp` SRV records name the master. Default: what the network says.
    pub discovery_domain: Option<String>,
    /// The HTTP proxy on the way to the master.
    pub proxy: ProxyConfig,
    pub super_node: SuperNodeConfig,
    pub lock: LockConfig,
    pub erase: EraseConfig,
    pub telemetry: TelemetryConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: None,
            run_dir: None,
            temporary_dir: std::env::temp_dir(),
            port: DEFAULT_PORT,
            master_addresses: Vec::new(),
            discovery_domain: None,
            proxy: ProxyConfig::default(),
            super_node: SuperNodeConfig::default(),
            lock: LockConfig::default(),
            erase: EraseConfig::default(),
            telemetry: TelemetryConfig::default(),
        }
    }
}

/// What this host does for others when anybody can reach it, and only on mains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SuperNodeConfig {
    /// Whether it offers itself as a global super node. The master has it probed before it believes that.
    pub offer: bool,
    /// Where others reach it, if that is not an address of its own: behind a translator that hands on its port.
    pub addresses: Vec<IpAddr>,
    /// What it gives at most to bring others together.
    pub signalling_bytes_per_second: u64,
    /// What it relays at most between nodes that cannot meet, all of them together; 0: nothing.
    pub relaying_bytes_per_second: u64,
    /// Nodes that it relays for at once.
    pub relayed_nodes: u32,
}

impl Default for SuperNodeConfig {
    fn default() -> Self {
        Self {
            offer: true,
            addresses: Vec::new(),
            signalling_bytes_per_second: 5_000,
            relaying_bytes_per_second: 10_000,
            relayed_nodes: 64,
        }
    }
}

/// How logins are blocked when this device is locked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LockConfig {
    /// While it exists pam_nologin(8) lets nobody in but root.
    pub file: PathBuf,
    /// Run in place of ending every session by loginctl(1).
    pub command: Vec<String>,
}

impl Default for LockConfig {
    fn default() -> Self {
        Self { file: "/etc/nologin".into(), command: Vec::new() }
    }
}

/// What is destroyed when this device is erased. Nothing, unless this says so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EraseConfig {
    /// Run first; that of a disk's keys, for instance, makes the rest unreadable at once.
    pub command: Vec<String>,
    /// Absolute; removed with all that is in them.
    pub paths: Vec<PathBuf>,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration is not understood: {0}.\n`muster-agent run --help` names every setting.")]
    Unreadable(Box<figment::Error>),
    #[error("no place for the agent's state is known: {0}")]
    NoHome(#[from] dirs::NoHome),
}

impl Config {
    /// Reads the file (the usual one if none is named) and the environment.
    ///
    /// # Errors
    /// A setting is unknown or has a wrong value; the error names it and where it stands.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let toml = match file {
            Some(named) => Toml::file_exact(named),
            None => Toml::file(FILE),
        };
        Figment::from(Serialized::defaults(Self::default()))
            .merge(toml)
            .merge(Env::prefixed("MUSTER_AGENT_").split("__"))
            .extract()
            .map_err(|error| ConfigError::Unreadable(Box::new(error)))
    }

    /// # Errors
    /// None is set and the home directory is unknown.
    pub fn state_dir(&self) -> Result<PathBuf, ConfigError> {
        self.state_dir.clone().map_or_else(|| Ok(dirs::agent_state_dir()?), Ok)
    }

    /// Where a proxy may be named; last of all in the environment that this device was enrolled with.
    ///
    /// # Errors
    /// As [`Config::state_dir`].
    pub fn proxies(&self) -> Result<Proxies, ConfigError> {
        Ok(Proxies::new(self.proxy.clone()).or_kept_in(self.state_dir()?.join(PROXY)))
    }

    /// # Errors
    /// As [`Config::state_dir`].
    pub fn run_dir(&self) -> Result<PathBuf, ConfigError> {
        if let Some(run) = &self.run_dir {
            return Ok(run.clone());
        }
        let state = self.state_dir()?;
        let usual = dirs::agent_state_dir().is_ok_and(|usual| usual == state);
        if usual && crate::platform::users::is_root() { Ok(RUN_DIR.into()) } else { Ok(state.join("run")) }
    }

    /// # Errors
    /// As [`Config::state_dir`].
    pub fn socket(&self) -> Result<PathBuf, ConfigError> {
        Ok(self.run_dir()?.join(SOCKET))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_with_its_own_state_has_its_own_socket() {
        let config = Config { state_dir: Some("/tmp/a".into()), ..Config::default() };
        assert_eq!(config.socket().unwrap(), PathBuf::from("/tmp/a/run/agent.sock"));
    }

    #[test]
    fn a_misspelt_setting_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        std::fs::write(&file, "prot = 1\n").unwrap();
        assert!(Config::load(Some(&file)).unwrap_err().to_string().contains("prot"));
    }
}
