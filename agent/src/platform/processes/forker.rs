//! The one thread that forks launchers.
//!
//! A task's program dies with its parent, and to the kernel the parent is the thread that forked it, not the process
//! (`PR_SET_PDEATHSIG`, prctl(2)). Threads of a pool end when they have had nothing to do for a while, and would take
//! with them the tasks that they forked; this one lives as long as anything that it started may.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::launcher::Launcher;
use super::{LauncherCommand, SpawnError};

/// Requests that wait for the thread; whoever comes with more waits too.
const WAITING: usize = 16;

/// Asks the thread, which begins with the first request and ends when this is dropped.
#[derive(Debug)]
pub(super) struct Forker {
    command: LauncherCommand,
    thread: Mutex<Option<mpsc::Sender<Request>>>,
}

#[derive(Debug)]
struct Request {
    cgroup_procs: Option<PathBuf>,
    /// Learns when the launcher ends.
    runtime: Handle,
    answer: oneshot::Sender<Result<Launcher, SpawnError>>,
}

impl Forker {
    pub(super) fn new(command: LauncherCommand) -> Self {
        Self { command, thread: Mutex::default() }
    }

    /// Starts a launcher and sends it to its post.
    ///
    /// # Errors
    /// The thread or the launcher cannot be started.
    pub(super) async fn fork(&self, cgroup_procs: Option<PathBuf>) -> Result<Launcher, SpawnError> {
        let broken = |source| SpawnError::Launcher { path: self.command.program.clone(), source };
        let ended = || broken(io::Error::other("the thread that forks has ended"));
        let thread = self.thread().map_err(broken)?;
        let (answer, answered) = oneshot::channel();
        let request = Request { cgroup_procs, runtime: Handle::current(), answer };
        thread.send(request).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    fn thread(&self) -> io::Result<mpsc::Sender<Request>> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(requests) = &*thread {
            return Ok(requests.clone());
        }
        let (requests, inbox) = mpsc::channel(WAITING);
        let command = self.command.clone();
        std::thread::Builder::new().name("muster-forker".to_owned()).spawn(move || serve(&command, inbox))?;
        Ok(thread.insert(requests).clone())
    }
}

fn serve(command: &LauncherCommand, mut inbox: mpsc::Receiver<Request>) {
    while let Some(Request { cgroup_procs, runtime, answer }) = inbox.blocking_recv() {
        let _inside = runtime.enter();
        // Who gave up meanwhile needs none: dropped, it is killed.
        let _ = answer.send(Launcher::start(command, cgroup_procs));
    }
}
