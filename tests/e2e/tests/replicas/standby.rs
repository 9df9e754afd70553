//! A second PostgreSQL server that follows the first, synchronously, and can take its place.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

/// The system's user of the server, and its user in the database.
const USER: &str = "postgres";

/// An empty database is copied in well under a second.
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

pub(crate) struct Standby {
    folder: TempDir,
    server: Child,
}

impl Standby {
    /// Copies the server with its socket in `primary`. When this returns, that one acknowledges no commit that is not on
    /// this one's disk too. Blocks.
    pub(crate) fn of(primary: &Path) -> Result<Self> {
        let programs = programs()?;
        let folder = tempfile::Builder::new().prefix("mpg").tempdir_in("/tmp")?;
        let data = folder.path().join("data");
        if geteuid().is_root() {
            ensure!(Command::new("chown").arg(USER).arg(folder.path()).status()?.success(), "chown");
        }
        let mut copy = as_user(&programs.join("pg_basebackup"));
        copy.args(["--wal-method=stream", "--checkpoint=fast", "--write-recovery-conf", "--username", USER]);
        let copied = copy.arg("--host").arg(primary).arg("--pgdata").arg(&data).output()?;
        ensure!(copied.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&copied.stderr));
        let mut serve = as_user(&programs.join("postgres"));
        serve.arg("-D").arg(&data).arg("-k").arg(folder.path());
        serve.args(["-c", "listen_addresses="]);
        let server = serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let standby = Self { folder, server };
        until(|| {
            Ok(sql(primary, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")? == "1")
        })?;
        sql(primary, "ALTER SYSTEM SET synchronous_standby_names = '*'")?;
        sql(primary, "SELECT pg_reload_conf()")?;
        until(|| Ok(sql(primary, "SELECT sync_state FROM pg_stat_replication")? == "sync"))?;
        Ok(standby)
    }

    /// Where its socket is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// From now on it takes writes. Blocks.
    pub(crate) fn promote(&self) -> Result<()> {
        let promoted = sql(self.folder(), "SELECT pg_promote(true, 60)")?;
        ensure!(promoted == "t", "it was not promoted");
        Ok(())
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        // Its children end with it.
        let _ = kill(self.folder.path());
        let _ = self.server.wait();
    }
}

/// Kills the server in this folder, as the loss of its host would.
pub(crate) fn kill(folder: &Path) -> Result<()> {
    let text = std::fs::read_to_string(folder.join("data/postmaster.pid"))?;
    let pid = text.lines().next().and_then(|line| line.trim().parse().ok()).and_then(Pid::from_raw);
    Ok(kill_process(pid.context("no process id")?, Signal::KILL)?)
}

fn sql(server: &Path, statement: &str) -> Result<String> {
    let mut psql = Command::new(programs()?.join("psql"));
    psql.args([
        "--username",
        USER,
        "--dbname",
        "postgres",
        "--no-align",
        "--tuples-only",
        "--command",
        statement,
    ]);
    let answer = psql.arg("--host").arg(server).stdin(Stdio::null()).output()?;
    ensure!(answer.status.success(), "{statement}: {}", String::from_utf8_lossy(&answer.stderr));
    Ok(String::from_utf8_lossy(&answer.stdout).trim().to_owned())
}

fn until(mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !holds()? {
        if begin.elapsed() > LIMIT {
            bail!("the standby does not follow within {LIMIT:?}");
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").context("Debian's package postgresql")?;
    let mut found: Vec<_> = versions.flatten().map(|entry| entry.path().join("bin")).collect();
    found.sort();
    found.pop().context("Debian's package postgresql")
}

fn as_user(program: &Path) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--init-groups", "--"]).arg(program).current_dir("/");
    command
}
