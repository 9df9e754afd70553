//! Where a program keeps its things when nobody says otherwise: the platform's convention.

use std::env;
use std::path::PathBuf;

/// Neither an administrator's place nor a home is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no home directory is known: set HOME, or name the folder")]
pub struct NoHome;

/// The master's keys and stores: `/var/lib/muster` for root, else `$XDG_DATA_HOME/muster`.
pub fn master_data_dir() -> Result<PathBuf, NoHome> {
    place("muster", "XDG_DATA_HOME", ".local/share")
}

/// The agent's keys and journal: `/var/lib/muster-agent` for root, else `$XDG_STATE_HOME/muster-agent`.
pub fn agent_state_dir() -> Result<PathBuf, NoHome> {
    place("muster-agent", "XDG_STATE_HOME", ".local/state")
}

/// An operator's contexts and certificates: `$XDG_CONFIG_HOME/muster`, root's too.
pub fn operator_config_dir() -> Result<PathBuf, NoHome> {
    if cfg!(target_os = "macos") {
        return home().map(|home| home.join("Library/Application Support/muster"));
    }
    if cfg!(windows) {
        return absolute("APPDATA").map(|folder| folder.join("muster")).ok_or(NoHome);
    }
    xdg("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("muster"))
}

fn place(name: &str, variable: &str, below_home: &str) -> Result<PathBuf, NoHome> {
    if cfg!(windows) {
        return absolute("ProgramData").map(|folder| folder.join(name)).ok_or(NoHome);
    }
    let system = if cfg!(target_os = "macos") { "/Library/Application Support" } else { "/var/lib" };
    if is_root() {
        return Ok(PathBuf::from(system).join(name));
    }
    if cfg!(target_os = "macos") {
        return home().map(|home| home.join("Library/Application Support").join(name));
    }
    xdg(variable, below_home).map(|folder| folder.join(name))
}

/// The XDG base directory specification: a relative path in the variable is to be ignored.
fn xdg(variable: &str, below_home: &str) -> Result<PathBuf, NoHome> {
    absolute(variable).map_or_else(|| home().map(|home| home.join(below_home)), Ok)
}

fn home() -> Result<PathBuf, NoHome> {
    absolute("HOME").ok_or(NoHome)
}

fn absolute(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn master_and_agent_of_one_host_do_not_share_a_folder() {
        let (Ok(master), Ok(agent)) = (master_data_dir(), agent_state_dir()) else { return };
        assert_ne!(master, agent);
        assert!(master.is_absolute() && agent.is_absolute());
    }
}
