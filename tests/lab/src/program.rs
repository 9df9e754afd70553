//! One of our own programs on a machine: started with a log of its own, signalled by its exact process id, started again.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::machine::Machine;

/// The agent's seam for tests, who cannot send a host to sleep: a file with the seconds slept so far.
const SLEEP_SEAM: &str = "MUSTER_SLEEP_SEAM";

/// Where the two binaries of Muster lie.
#[derive(Debug, Clone)]
pub struct Binaries {
    pub muster: PathBuf,
    pub agent: PathBuf,
}

impl Binaries {
    /// Finds them beside this program, where one build puts them all.
    pub fn find() -> Result<Self> {
        let own = std::env::current_exe()?;
        let beside = |name: &str| {
            let mut candidates = own.ancestors().skip(1).take(2).map(|directory| directory.join(name));
            candidates.find(|path| path.is_file()).with_context(|| {
                format!("{name} is not beside {}: cargo build --workspace --bins", own.display())
            })
        };
        Ok(Self { muster: beside("muster")?, agent: beside("muster-agent")? })
    }
}

/// A program that is meant to run on until it is told to end.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Program {
    /// Starts it on a machine; what it writes goes to a log in the machine's directory.
    pub async fn start(machine: &Machine, path: PathBuf, arguments: &[&str]) -> Result<Self> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let log = machine.home().join(format!("{name}.log"));
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let program = Self { path, arguments, log, child: Mutex::new(None) };
        program.start_again(machine).await?;
        Ok(program)
    }

    /// Starts it again after its end.
    pub async fn start_again(&self, machine: &Machine) -> Result<()> {
        let mut running = self.child.lock().await;
        ensure!(running.is_none(), "{} runs already on {}", self.path.display(), machine.name());
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.path);
        command.env(SLEEP_SEAM, self.log.with_extension("slept"));
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        *running = Some(machine.spawn(command).await?);
        Ok(())
    }

    /// Lets the program's clock find, when it next looks, that the host slept for `span` more than it has.
    pub fn sleep(&self, span: Duration) -> Result<()> {
        let seam = self.log.with_extension("slept");
        let before: u64 =
            std::fs::read_to_string(&seam).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Ok(std::fs::write(&seam, (before + span.as_secs()).to_string())?)
    }

    pub async fn is_running(&self) -> bool {
        match self.child.lock().await.as_mut() {
            Some(child) => child.try_wait().is_ok_and(|status| status.is_none()),
            None => false,
        }
    }

    /// Its process id, as the lab numbers it.
    pub async fn process(&self) -> Option<u32> {
        self.child.lock().await.as_ref().and_then(Child::id)
    }

    /// Sends a signal to this process and no other.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        let process =
            self.process().await.with_context(|| format!("{} does not run", self.path.display()))?;
        Ok(kill(Pid::from_raw(i32::try_from(process)?), signal)?)
    }

    /// Sends a signal that ends it, and waits for the end.
    pub async fn end(&self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal).await?;
        self.reap().await
    }

    /// Waits for its end.
    pub async fn reap(&self) -> Result<ExitStatus> {
        let mut running = self.child.lock().await;
        let child = running.as_mut().with_context(|| format!("{} does not run", self.path.display()))?;
        let status = child.wait().await?;
        *running = None;
        Ok(status)
    }

    /// Kills it, as a crash would; the kernel's word that the signal did it is asked for.
    pub async fn kill(&self) -> Result<()> {
        let status = self.end(Signal::SIGKILL).await?;
        ensure!(status.signal() == Some(Signal::SIGKILL as i32), "it had ended before: {status}");
        Ok(())
    }

    /// What it wrote, in all its lives.
    pub fn log(&self) -> &std::path::Path {
        &self.log
    }

    /// The end of its log, for messages.
    pub fn last_words(&self) -> String {
        const LINES: usize = 12;
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}
