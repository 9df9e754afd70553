//! The second life of this executable: between fork and exec of a task's program.
//!
//! The agent tells it its post and hands it an order on its standard input, a socket. It joins the cgroup, leads a session
//! of its own, becomes the user and executes the program. The socket closes by itself when that succeeds; else the reason comes
//! back through it. So nothing unsafe runs between fork and exec, and no secret stands in an argument.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Signal, set_parent_process_death_signal, setsid, umask};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;

use super::{LauncherCommand, MARK, Program, SpawnError};
use crate::platform::users::User;

/// The one argument that makes this executable a launcher.
pub const ARGUMENT: &str = "__launch";

/// The launcher's own exit code; nobody but the agent sees it.
const FAILED: i32 = 127;

/// What the launcher answers at most.
const ANSWER_BYTES: u64 = 4096;

/// New files of a task may be read by all and written by their owner.
const UMASK: u32 = 0o022;

/// Where the launcher waits for its order.
#[derive(Debug, Serialize, Deserialize)]
struct Post {
    cgroup_procs: Option<PathBuf>,
}

/// What the agent asks of the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    argv: Vec<String>,
    environment: Vec<(String, String)>,
    directory: PathBuf,
    user: Option<User>,
}

impl Order {
    pub(super) fn new(program: &Program, mark: &str) -> Self {
        let mut environment = program.environment.clone();
        environment.push((MARK.to_owned(), mark.to_owned()));
        let Program { argv, directory, user, .. } = program.clone();
        Self { argv, environment, directory, user }
    }
}

/// A launcher that has no order yet.
#[derive(Debug)]
pub(super) struct Launcher {
    child: Child,
    socket: UnixStream,
    path: PathBuf,
}

impl Launcher {
    /// Starts it and sends it to its post; does not wait until it is there.
    pub(super) fn start(
        command: &LauncherCommand,
        cgroup_procs: Option<PathBuf>,
    ) -> Result<Self, SpawnError> {
        let broken = |source| SpawnError::Launcher { path: command.program.clone(), source };
        let (mut socket, theirs) = UnixStream::pair().map_err(broken)?;
        let child = tokio::process::Command::new(&command.program)
            .arg(&command.argument)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(broken)?;
        // One short line fits into the socket, whether it is read yet or not.
        line(&Post { cgroup_procs }).and_then(|line| socket.write_all(&line)).map_err(broken)?;
        Ok(Self { child, socket, path: command.program.clone() })
    }

    /// Whether it can still take an order.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Gives it its order; returns once the program runs in its place.
    pub(super) async fn obey(self, order: &Order) -> Result<Child, SpawnError> {
        let Self { mut child, socket, path } = self;
        let broken = |source| SpawnError::Launcher { path: path.clone(), source };
        match ask(socket, order).await.map_err(broken)? {
            reason if reason.is_empty() => Ok(child),
            reason => {
                child.wait().await.map_err(broken)?;
                let program = order.argv.first().cloned().unwrap_or_default();
                Err(SpawnError::Program { program, reason })
            }
        }
    }
}

fn line(message: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

async fn ask(socket: UnixStream, order: &Order) -> std::io::Result<String> {
    socket.set_nonblocking(true)?;
    let mut socket = tokio::net::UnixStream::from_std(socket)?;
    let sent = socket.write_all(&line(order)?).await;
    let mut answer = String::new();
    socket.take(ANSWER_BYTES).read_to_string(&mut answer).await?;
    // One that could not go to its post says why, and reads no order.
    if answer.is_empty() {
        sent?;
    }
    Ok(answer)
}

/// What `main` calls first: becomes the launcher if that is what this process was started for.
pub fn run_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == ARGUMENT) && arguments.next().is_none() {
        std::process::exit(run());
    }
}

fn run() -> i32 {
    let Ok(socket) = std::io::stdin().as_fd().try_clone_to_owned() else { return FAILED };
    let mut socket = UnixStream::from(socket);
    let mut lines = BufReader::new(&socket);
    let order = next(&mut lines).and_then(|post| go_to(&post)).and_then(|()| next(&mut lines));
    let reason = match order {
        Ok(order) => become_program(&order),
        Err(reason) => reason,
    };
    // If even this fails, the agent sees the exit code.
    let _ = socket.write_all(reason.as_bytes());
    FAILED
}

fn next<T: serde::de::DeserializeOwned>(lines: &mut impl BufRead) -> Result<T, String> {
    let mut line = String::new();
    lines.read_line(&mut line).map_err(|error| format!("the launcher's socket: {error}"))?;
    serde_json::from_str(&line)
        .map_err(|error| format!("the launcher does not understand its order: {error}"))
}

fn go_to(post: &Post) -> Result<(), String> {
    let Some(procs) = &post.cgroup_procs else { return Ok(()) };
    std::fs::write(procs, "0").map_err(|error| format!("its cgroup {}: {error}", procs.display()))
}

/// Returns only when it fails, with the reason.
fn become_program(order: &Order) -> String {
    if let Err(reason) = prepare(order) {
        return reason;
    }
    let Some((program, arguments)) = order.argv.split_first() else { return "it has no name".to_owned() };
    let environment = order.environment.iter().map(|(name, value)| (name, value));
    let path = order.environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_str());
    let found = resolve(program, path.unwrap_or_default());
    Command::new(found)
        .arg0(program)
        .args(arguments)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::null())
        .exec()
        .to_string()
}

/// Where the task's own PATH leads; names with a slash are paths already.
fn resolve(program: &str, path: &str) -> PathBuf {
    let candidates = std::env::split_paths(path).map(|folder| folder.join(program));
    let executable =
        |file: &PathBuf| file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok();
    if program.contains('/') {
        return program.into();
    }
    // Not found: a path that certainly is not there gives the system's own words.
    candidates.into_iter().find(executable).unwrap_or_else(|| PathBuf::from("/nonexistent").join(program))
}

fn prepare(order: &Order) -> Result<(), String> {
    setsid().map_err(|error| format!("a session of its own: {error}"))?;
    umask(rustix::fs::Mode::from_raw_mode(UMASK));
    if let Some(user) = &order.user {
        switch_to(user).map_err(|error| format!("becoming user {}: {error}", user.name))?;
    }
    // Only after the change of user, which clears it (prctl(2)).
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| format!("prctl: {error}"))?;
    std::env::set_current_dir(&order.directory)
        .map_err(|error| format!("its directory {}: {error}", order.directory.display()))
}

/// This process has one thread, so changing the thread changes the process.
fn switch_to(user: &User) -> rustix::io::Result<()> {
    let groups: Vec<_> = user.groups.iter().map(|gid| rustix::process::Gid::from_raw(*gid)).collect();
    let gid = rustix::process::Gid::from_raw(user.gid);
    let uid = rustix::process::Uid::from_raw(user.uid);
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}
