//! The next task's launcher, at its post before the task comes.
//!
//! To move a process into a cgroup the kernel waits for a grace period of its own, some 10 ms, and executing the agent's
//! file takes some more. Only a host that has just had a task keeps one ready: it is a process, and costs memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::cgroup::Group;
use super::launcher::Launcher;
use super::{Containment, Processes, SpawnError};

/// One that nobody needs ends after this.
const LIFE: Duration = Duration::from_secs(600);

/// After a task's end, so that its result goes out first.
const PAUSE: Duration = Duration::from_millis(2);

/// Where there is one, it is here.
#[derive(Debug, Default)]
pub(super) struct Spare {
    posted: Mutex<Option<Posted>>,
    numbers: AtomicU64,
}

/// A launcher with its group, if this host has any.
#[derive(Debug)]
pub(super) struct Posted {
    number: u64,
    pub(super) launcher: Launcher,
    pub(super) group: Option<Group>,
}

impl Posted {
    fn dismiss(self) {
        let Self { launcher, group, .. } = self;
        // Dropped, it is killed.
        drop(launcher);
        if let Some(group) = group {
            group.kill();
            group.remove_soon();
        }
    }
}

impl Spare {
    fn lock(&self) -> MutexGuard<'_, Option<Posted>> {
        // One assignment under the lock cannot be left half done.
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that waits, if it lives.
    pub(super) fn take(&self) -> Option<Posted> {
        let mut posted = self.lock().take()?;
        if posted.launcher.is_alive() {
            return Some(posted);
        }
        posted.dismiss();
        None
    }

    pub(super) fn dismiss(&self) {
        let posted = self.lock().take();
        posted.into_iter().for_each(Posted::dismiss);
    }

    fn dismiss_if(&self, number: u64) {
        let posted = self.lock().take_if(|posted| posted.number == number);
        posted.into_iter().for_each(Posted::dismiss);
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.dismiss();
    }
}

impl Processes {
    /// Has the next launcher go to its post, unless one is there; beside whatever else happens.
    pub(super) fn prepare_next(&self) {
        if self.spare.lock().is_some() {
            return;
        }
        let processes = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(PAUSE).await;
            let spare = Arc::downgrade(&processes.spare);
            let posted = processes.post().await;
            // Whoever waits here keeps nothing alive.
            drop(processes);
            match posted {
                Ok(number) => {
                    tokio::time::sleep(LIFE).await;
                    if let Some(spare) = spare.upgrade() {
                        spare.dismiss_if(number);
                    }
                }
                Err(error) => tracing::debug!(%error, "the next task's launcher is not prepared"),
            }
        });
    }

    async fn post(&self) -> Result<u64, SpawnError> {
        let number = self.spare.numbers.fetch_add(1, Ordering::Relaxed);
        let group = match &self.containment {
            Containment::Cgroups(hierarchy) => Some(hierarchy.create(&format!("next-{number}"))?),
            Containment::Marks { .. } => None,
        };
        let launcher = self.forker.fork(group.as_ref().map(Group::procs)).await;
        let launcher = launcher.inspect_err(|_| group.iter().for_each(Group::remove_soon))?;
        let before = self.spare.lock().replace(Posted { number, launcher, group });
        before.into_iter().for_each(Posted::dismiss);
        Ok(number)
    }
}
