//! The agent as a service of the host: one module for each service manager, and what all of them do.

mod none;
mod systemd;

use std::path::{Path, PathBuf};

/// A service manager of some kind.
pub trait Services {
    /// Its name, for people.
    fn name(&self) -> &'static str;

    /// Whether a service can be installed here and now.
    ///
    /// # Errors
    /// Why not, and what to do instead.
    fn check(&self) -> Result<(), ServiceError>;

    /// Installs the agent with its configuration's file, if one was named, starts it, and has it start at every boot.
    ///
    /// # Errors
    /// What failed.
    fn install(&self, install: &Install) -> Result<(), ServiceError>;

    /// Stops and removes it. Nothing to remove is fine.
    ///
    /// # Errors
    /// What failed.
    fn remove(&self) -> Result<(), ServiceError>;
}

/// What a service needs to know.
#[derive(Debug, Clone)]
pub struct Install {
    pub executable: PathBuf,
    pub state_dir: PathBuf,
    pub config_file: Option<PathBuf>,
}

/// Why there is no service.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(
        "this host does not run systemd, the only service manager that the agent installs itself into.\nEnroll with --foreground to keep the agent running right here, or with --no-service and let your own supervisor run `muster-agent run`."
    )]
    NoManager,
    #[error("a service can only be installed by root.\nTry again with sudo, or with --foreground.")]
    NotRoot,
    #[error("{path} cannot be written or removed: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("`{command}` failed: {reason}")]
    Command { command: String, reason: String },
}

/// The service manager of this host.
pub fn manager() -> Box<dyn Services> {
    if Path::new(systemd::RUNS).is_dir() { Box::new(systemd::Systemd) } else { Box::new(none::None) }
}

/// Tells the service manager, if one started us, that the agent runs.
pub fn ready() {
    notify(&[sd_notify::NotifyState::Ready]);
}

/// Tells the service manager's watchdog that the loop turns.
pub fn alive() {
    notify(&[sd_notify::NotifyState::Watchdog]);
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager was not told");
    }
}
