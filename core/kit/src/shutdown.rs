//! One word that ends a program in order: triggered once, heard by every task, waited for until all have finished.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks that were still running when the time to drain was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{tasks} tasks had not finished after {limit:?}")]
pub struct NotDrained {
    pub tasks: usize,
    pub limit: Duration,
}

/// Ends what hangs on it. Clones are the same shutdown; a [`Shutdown::child`] ends with its parent, or alone before it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// Triggered by SIGINT or SIGTERM. A second signal ends the process at once: who asks twice does not want to wait.
    pub fn on_signals() -> std::io::Result<Self> {
        let shutdown = Self::new();
        let mut signals = Signals::listen()?;
        let token = shutdown.token.clone();
        tokio::spawn(async move {
            let first = signals.next().await;
            tracing::info!(signal = first, "draining; a second signal ends at once");
            token.cancel();
            signals.next().await;
            std::process::exit(EXIT_BY_SIGNAL);
        });
        Ok(shutdown)
    }

    /// Runs `task` as one that [`Self::wait_drained`] waits for. The task itself listens for [`Self::triggered`].
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    pub fn trigger(&self) {
        self.token.cancel();
    }

    pub fn is_triggered(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Completes once the shutdown is triggered; at once if it was before.
    pub async fn triggered(&self) {
        self.token.cancelled().await;
    }

    /// The same as [`Self::triggered`], for tasks that outlive this handle.
    pub fn into_triggered(self) -> impl Future<Output = ()> + Send + 'static {
        self.token.cancelled_owned()
    }

    /// A shutdown for a part of the program. The parent's [`Self::wait_drained`] waits for the part's tasks too.
    pub fn child(&self) -> Self {
        let child = Self { token: self.token.child_token(), tasks: TaskTracker::new() };
        let Self { token, tasks } = child.clone();
        self.tasks.spawn(async move {
            token.cancelled().await;
            tasks.close();
            tasks.wait().await;
        });
        child
    }

    /// Waits until the shutdown is triggered and every task has finished, but after the trigger not longer than `limit`.
    pub async fn wait_drained(&self, limit: Duration) -> Result<(), NotDrained> {
        self.token.cancelled().await;
        self.tasks.close();
        tokio::time::timeout(limit, self.tasks.wait())
            .await
            .map_err(|_| NotDrained { tasks: self.tasks.len(), limit })
    }
}

/// 128 + SIGINT, as shells report it.
const EXIT_BY_SIGNAL: i32 = 130;

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_parent_waits_for_the_tasks_of_its_child() {
        let parent = Shutdown::new();
        let child = parent.child();
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        child.spawn(async move { finished.await.ok() });
        parent.trigger();
        assert!(child.is_triggered());
        let short = Duration::from_millis(20);
        assert_eq!(parent.wait_drained(short).await, Err(NotDrained { tasks: 1, limit: short }));
        finish.send(()).unwrap();
        assert_eq!(parent.wait_drained(SOON).await, Ok(()));
    }

    #[tokio::test]
    async fn a_child_may_end_before_its_parent() {
        let parent = Shutdown::new();
        let child = parent.child();
        child.trigger();
        assert_eq!(child.wait_drained(SOON).await, Ok(()));
        assert!(!parent.is_triggered());
    }
}
