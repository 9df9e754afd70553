//! Programs of tasks: started apart from the agent and kept together, so that all of a task's processes end with it.
//!
//! The agent starts itself once more as *launcher* (see [`launcher`]), which joins the task's cgroup, becomes the
//! wanted user and then executes the program. Where no cgroup can be made, the processes of a task are known by their
//! session and by the mark in their environment.

mod cgroup;
mod forker;
pub mod launcher;
mod marked;
mod spare;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;

use tokio::process::{Child, ChildStderr, ChildStdout};

use crate::platform::users::User;
pub use cgroup::CgroupError;
use forker::Forker;
use launcher::Launcher;
use spare::{Posted, Spare};

/// The variable that marks every process of a task.
pub const MARK: &str = "MUSTER_TASK";

/// A program as it is to be started.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program and its arguments; never empty.
    pub argv: Vec<String>,
    /// All of its environment.
    pub environment: Vec<(String, String)>,
    pub directory: PathBuf,
    /// `None`: as the agent itself.
    pub user: Option<User>,
}

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("{program:?} could not be started: {reason}")]
    Program { program: String, reason: String },
    #[error("the launcher {path} failed: {source}")]
    Launcher { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

/// How the launcher is called: this very executable, unless a test says otherwise.
#[derive(Debug, Clone)]
pub struct LauncherCommand {
    pub program: PathBuf,
    pub argument: OsString,
}

impl Default for LauncherCommand {
    fn default() -> Self {
        // The link names what runs, also after an update replaced the file.
        Self { program: "/proc/self/exe".into(), argument: launcher::ARGUMENT.into() }
    }
}

/// Starts programs and keeps each task's processes together.
#[derive(Debug, Clone)]
pub struct Processes {
    forker: Arc<Forker>,
    containment: Containment,
    spare: Arc<Spare>,
}

#[derive(Debug, Clone)]
enum Containment {
    Cgroups(cgroup::Hierarchy),
    Marks { why: String },
}

impl Processes {
    /// Finds out what this host offers. `owner` tells this agent's cgroups from those of another one on the same host.
    /// What an earlier life of this agent left running is killed.
    pub fn detect(owner: &str, launcher: LauncherCommand) -> Self {
        let containment = match cgroup::Hierarchy::open(owner) {
            Ok(hierarchy) => Containment::Cgroups(hierarchy),
            Err(error) => Containment::Marks { why: error.to_string() },
        };
        Self { forker: Arc::new(Forker::new(launcher)), containment, spare: Arc::default() }
    }

    /// Keeps processes by mark, as on a host without cgroups.
    pub fn without_cgroups(launcher: LauncherCommand) -> Self {
        let containment = Containment::Marks { why: "asked to".to_owned() };
        Self { forker: Arc::new(Forker::new(launcher)), containment, spare: Arc::default() }
    }

    /// How processes are kept together, for people.
    pub fn describe(&self) -> String {
        match &self.containment {
            Containment::Cgroups(hierarchy) => format!("cgroup v2 at {}", hierarchy.path().display()),
            Containment::Marks { why } => format!("session and environment mark (no cgroup: {why})"),
        }
    }

    /// Removes what was made for all tasks, once none runs any more.
    pub fn close(&self) {
        self.spare.dismiss();
        if let Containment::Cgroups(hierarchy) = &self.containment {
            hierarchy.remove();
        }
    }

    /// Starts a program. `name` is unique among those that run.
    ///
    /// # Errors
    /// The program cannot be executed as asked, or the launcher or its cgroup cannot be made.
    pub async fn spawn(&self, name: &str, program: &Program) -> Result<Running, SpawnError> {
        let (launcher, tree) = self.launcher(name).await?;
        let mut child = match launcher.obey(&launcher::Order::new(program, name)).await {
            Ok(child) => child,
            Err(error) => {
                tree.remove().await;
                return Err(error);
            }
        };
        let tree = tree.with_leader(child.id());
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        Ok(Running { child, stdout, stderr, tree, killed: false, processes: self.clone() })
    }

    /// The one that waits, or a new one.
    async fn launcher(&self, name: &str) -> Result<(Launcher, Tree), SpawnError> {
        let marked = || Tree::Marked { mark: name.to_owned(), session: None };
        if let Some(Posted { launcher, group, .. }) = self.spare.take() {
            return Ok((launcher, group.map_or_else(marked, Tree::Cgroup)));
        }
        let tree = match &self.containment {
            Containment::Cgroups(hierarchy) => Tree::Cgroup(hierarchy.create(name)?),
            Containment::Marks { .. } => marked(),
        };
        let launcher = self.forker.fork(tree.cgroup_procs()).await;
        Ok((launcher.inspect_err(|_| tree.forget())?, tree))
    }
}

/// The processes of one task.
#[derive(Debug)]
enum Tree {
    Cgroup(cgroup::Group),
    Marked { mark: String, session: Option<marked::Session> },
}

impl Tree {
    fn cgroup_procs(&self) -> Option<PathBuf> {
        match self {
            Self::Cgroup(group) => Some(group.procs()),
            Self::Marked { .. } => None,
        }
    }

    fn with_leader(self, leader: Option<u32>) -> Self {
        match self {
            Self::Marked { mark, .. } => Self::Marked { mark, session: leader.map(marked::Session::of) },
            cgroup => cgroup,
        }
    }

    fn kill(&self) {
        match self {
            Self::Cgroup(group) => group.kill(),
            Self::Marked { mark, session } => marked::kill(mark, *session),
        }
    }

    /// Of a launcher that did not even start.
    fn forget(&self) {
        if let Self::Cgroup(group) = self {
            group.remove_soon();
        }
    }

    async fn remove(self) {
        if let Self::Cgroup(group) = self {
            group.remove().await;
        }
    }
}

/// A program that runs, with everything that it started.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pub stdout: Option<ChildStdout>,
    pub stderr: Option<ChildStderr>,
    tree: Tree,
    /// Nobody of the tree is left.
    killed: bool,
    processes: Processes,
}

impl Running {
    /// Waits for the program itself; what it started may live on until [`Running::finish`].
    ///
    /// # Errors
    /// The system does not tell.
    pub async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Kills the whole tree at once.
    pub fn kill(&mut self) {
        self.tree.kill();
        self.killed = true;
    }

    /// Kills what is left of the tree and removes its traces.
    pub async fn finish(mut self) {
        if !self.killed {
            self.tree.kill();
        }
        if let Err(error) = self.child.wait().await {
            tracing::warn!(%error, "a task's process could not be waited for");
        }
        self.tree.remove().await;
        self.processes.prepare_next();
    }
}
