//! Who has which core, and what the master uses.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::process;

const GENERATOR: usize = 0;
const MASTER: &str = "1";

/// Descriptors beside those of the streams.
const OTHER_FILES: u64 = 1_000;

/// This process stays on the first core; before its runtime is made, which then has one thread.
pub(crate) fn take_one_core() -> Result<()> {
    let mut core = CpuSet::new();
    core.set(GENERATOR)?;
    sched_setaffinity(Pid::from_raw(0), &core).context("stay on one core")
}

/// A stream is a descriptor here and one in the master, which inherits the limit.
pub(super) fn allow_files(streams: usize) -> Result<()> {
    let wanted = streams as u64 + OTHER_FILES;
    let allowed = getrlimit(Resource::Nofile);
    if allowed.current.is_some_and(|allowed| allowed < wanted) {
        let maximum = allowed.maximum.map(|most| most.max(wanted));
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
            .with_context(|| format!("{wanted} open files: ulimit -n allows {:?}", allowed.maximum))?;
    }
    Ok(())
}

/// The master as the kernel counts it, on a core of its own.
pub(super) struct Meter(u32);

impl Meter {
    pub(super) fn of(master: rustix::process::Pid) -> Result<Self> {
        let master = master.as_raw_nonzero().get();
        let moved = Command::new("taskset").args(["-a", "-c", "-p", MASTER, &master.to_string()]).output()?;
        ensure!(moved.status.success(), "the master stays: {}", String::from_utf8_lossy(&moved.stderr));
        Ok(Self(u32::try_from(master)?))
    }

    pub(super) fn processor(&self) -> Result<Duration> {
        process::processor_time(self.0)
    }

    pub(super) fn resident(&self) -> Result<u64> {
        Ok(process::memory(self.0)?.resident)
    }
}
