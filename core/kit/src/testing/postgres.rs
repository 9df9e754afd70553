//! A PostgreSQL of one's own for one test: made in a temporary folder, reached by a socket in it, ended on drop.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Where Debian keeps the server's programs, by version.
const INSTALLATIONS: &str = "/usr/lib/postgresql";
/// A server on an idle disk is up in well under a second.
const START_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// The system's user that Debian's package makes; the server refuses to run as root.
const USER: &str = "postgres";

/// Why there is no database to test with.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error("no PostgreSQL below {INSTALLATIONS}: install Debian's package postgresql")]
    NotInstalled,
    #[error("{program} failed: {output}")]
    Failed { program: &'static str, output: String },
    #[error("the server did not answer within {START_LIMIT:?}; its log: {log}")]
    NotUp { log: String },
    #[error("cannot prepare the server's folder: {0}")]
    Folder(#[from] io::Error),
}

/// A running server with the empty database `postgres`.
pub struct Postgres {
    folder: TempDir,
    server: Child,
}

impl Postgres {
    /// Starts a server and waits until it answers. Blocks; about a second.
    pub fn start() -> Result<Self, PostgresError> {
        let programs = programs()?;
        // Short, and in /tmp: a socket's path has at most 107 bytes.
        let folder = tempfile::Builder::new().prefix("mpg").tempdir_in("/tmp")?;
        let data = folder.path().join("data");
        if is_root() {
            run("chown", Command::new("chown").arg(USER).arg(folder.path()))?;
        }
        let initdb = programs.join("initdb");
        run(
            "initdb",
            as_user(&initdb)
                .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username", USER])
                .arg("--pgdata")
                .arg(&data),
        )?;
        let server = serve(&programs, folder.path())?;
        let mut postgres = Self { folder, server };
        postgres.wait_until_up(&programs.join("pg_isready"))?;
        Ok(postgres)
    }

    /// Ends it at once, as a crash of its host would (what is committed is on its disk), and starts it again.
    pub fn crash_and_restart(&mut self) -> Result<(), PostgresError> {
        let programs = programs()?;
        self.end();
        self.server = serve(&programs, self.folder.path())?;
        self.wait_until_up(&programs.join("pg_isready"))
    }

    /// What sqlx connects to.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The address of another database of this server.
    pub fn url_of(&self, database: &str) -> String {
        let host = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://{USER}@{host}/{database}")
    }

    fn wait_until_up(&mut self, pg_isready: &Path) -> Result<(), PostgresError> {
        let begin = Instant::now();
        loop {
            let answers = Command::new(pg_isready).arg("-q").arg("-h").arg(self.folder.path()).status()?;
            if answers.success() {
                return Ok(());
            }
            if begin.elapsed() > START_LIMIT || self.server.try_wait()?.is_some() {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                return Err(PostgresError::NotUp { log });
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Starts the server on what initdb made in `folder`.
fn serve(programs: &Path, folder: &Path) -> Result<Child, PostgresError> {
    let log = fs::File::create(folder.join("log"))?;
    let mut command = as_user(&programs.join("postgres"));
    command.arg("-D").arg(folder.join("data")).arg("-k").arg(folder);
    command.args(["-c", "listen_addresses="]);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?)
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end();
    }
}

impl Postgres {
    fn end(&mut self) {
        // The first line of postmaster.pid is the server's own id, not that of the program that changed users for it.
        let pid = fs::read_to_string(self.folder.path().join("data/postmaster.pid"))
            .ok()
            .and_then(|text| text.lines().next()?.trim().parse().ok())
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // SIGQUIT: immediate shutdown; nobody needs this data again.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        } else {
            let _ = self.server.kill();
        }
        let _ = self.server.wait();
    }
}

fn programs() -> Result<PathBuf, PostgresError> {
    let versions = fs::read_dir(INSTALLATIONS).map_err(|_| PostgresError::NotInstalled)?;
    let mut found: Vec<(u32, PathBuf)> = versions
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, path)| path.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().map(|(_, path)| path).ok_or(PostgresError::NotInstalled)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The program as it is, or, when we are root, as the server's user.
fn as_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--init-groups", "--"]).arg(program).current_dir("/");
    command
}

fn run(program: &'static str, command: &mut Command) -> Result<(), PostgresError> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(PostgresError::Failed { program, output: String::from_utf8_lossy(&output.stderr).into_owned() })
}
