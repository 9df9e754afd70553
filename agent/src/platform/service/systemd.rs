//! systemd: a unit of our own, enabled and started.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Install, ServiceError, Services};
use crate::platform::users;

/// There only while systemd is the init (sd_booted(3)).
pub(super) const RUNS: &str = "/run/systemd/system";

const UNIT: &str = "muster-agent.service";
const UNIT_PATH: &str = "/etc/systemd/system/muster-agent.service";

#[derive(Debug)]
pub(super) struct Systemd;

impl Services for Systemd {
    fn name(&self) -> &'static str {
        "systemd"
    }

    fn check(&self) -> Result<(), ServiceError> {
        if users::is_root() { Ok(()) } else { Err(ServiceError::NotRoot) }
    }

    fn install(&self, install: &Install) -> Result<(), ServiceError> {
        let path = Path::new(UNIT_PATH);
        fs::write(path, unit(install))
            .map_err(|source| ServiceError::File { path: path.to_owned(), source })?;
        systemctl(&["daemon-reload"])?;
        systemctl(&["enable", "--now", UNIT])
    }

    fn remove(&self) -> Result<(), ServiceError> {
        let path = Path::new(UNIT_PATH);
        if !path.exists() {
            return Ok(());
        }
        systemctl(&["disable", "--now", UNIT])?;
        fs::remove_file(path).map_err(|source| ServiceError::File { path: path.to_owned(), source })?;
        systemctl(&["daemon-reload"])
    }
}

fn systemctl(arguments: &[&str]) -> Result<(), ServiceError> {
    let failed = |reason: String| ServiceError::Command {
        command: format!("systemctl {}", arguments.join(" ")),
        reason,
    };
    let output =
        Command::new("systemctl").args(arguments).output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Every restriction of a unit binds the tasks too, which run as root and may have to change anything. So the unit
/// takes away only what neither the agent nor an administrator's program needs.
fn unit(install: &Install) -> String {
    let config = install.config_file.as_ref();
    let config = config.map_or_else(String::new, |file| format!(" --config {}", quoted(file)));
    format!(
        "[Unit]\n\
         Description=Muster agent: this device in its management network\n\
         After=network-online.target\n\
         Wants=network-online.target\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={executable} run --state-dir {state}{config}\n\
         # Who makes it leave wants it to stay away.\n\
         Restart=on-failure\n\
         RestartSec=1\n\
         WatchdogSec=60\n\
         TimeoutStopSec=20\n\
         # Each task has a cgroup below the unit's; the agent ends them itself, systemd what is left.\n\
         Delegate=yes\n\
         KillMode=mixed\n\
         OOMPolicy=continue\n\
         RuntimeDirectory=muster-agent\n\
         RuntimeDirectoryMode=0700\n\
         UMask=0077\n\
         LimitCORE=0\n\
         LockPersonality=yes\n\
         RestrictRealtime=yes\n\
         KeyringMode=private\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        executable = quoted(&install.executable),
        state = quoted(&install.state_dir),
    )
}

/// As systemd.service(5) wants paths with blanks, and percent signs.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy().replace('%', "%%").replace('\\', "\\\\").replace('"', "\\\"");
    if text.contains(char::is_whitespace) { format!("\"{text}\"") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_runs_the_agent_where_it_was_enrolled() {
        let install = Install {
            executable: "/usr/local/bin/muster-agent".into(),
            state_dir: "/srv/my agent".into(),
            config_file: None,
        };
        let unit = unit(&install);
        assert!(
            unit.contains("\nExecStart=/usr/local/bin/muster-agent run --state-dir \"/srv/my agent\"\n"),
            "{unit}"
        );
        assert!(unit.contains("\nDelegate=yes\n"));
    }
}
