//! A program that runs on: what it says is kept and can be waited for; it is signalled by its exact process id.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// Lines that are kept of what it says; older ones go.
const LINES: usize = 2_000;

/// Lines that are printed when it is let go of, for whoever reads why a test failed.
const QUOTED: usize = 200;

/// How long it may take to say or do what is waited for, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What it left to be read is read by then, unless somebody who outlived it holds the pipe.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    said: watch::Receiver<VecDeque<String>>,
}

impl Program {
    /// # Errors
    /// It does not start.
    pub fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let (sender, said) = watch::channel(VecDeque::new());
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(listen(stdout, sender.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(listen(stderr, sender));
        }
        Ok(Self { name, child, said })
    }

    /// # Errors
    /// It has ended and was waited for.
    pub fn pid(&self) -> Result<Pid> {
        let id = self.child.id().with_context(|| format!("{} has ended", self.name))?;
        Pid::from_raw(i32::try_from(id)?).context("0 is no process")
    }

    /// Waits for a line, said already or still to come, that holds `text`.
    ///
    /// # Errors
    /// It ends, or the patience does, without that line.
    pub async fn says(&self, text: &str) -> Result<String> {
        let mut said = self.said.clone();
        let heard = said.wait_for(|lines| lines.iter().any(|line| line.contains(text)));
        match tokio::time::timeout(PATIENCE, heard).await {
            Ok(Ok(lines)) => Ok(lines.iter().find(|line| line.contains(text)).cloned().unwrap_or_default()),
            Ok(Err(_)) => bail!("{} ended without saying {text:?}", self.name),
            Err(_) => bail!("{} did not say {text:?}", self.name),
        }
    }

    /// Whether it has said a line that holds `text`.
    pub fn has_said(&self, text: &str) -> bool {
        self.said.borrow().iter().any(|line| line.contains(text))
    }

    /// Sends a signal to this process and no other.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It does not end.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = status.with_context(|| format!("{} does not end", self.name))??;
        // What it said last is still on its way through the pipes.
        let mut said = self.said.clone();
        let _ = tokio::time::timeout(LAST_WORDS, said.wait_for(|_| false)).await;
        Ok(status)
    }

    /// Asks it to end, as a service manager does.
    ///
    /// # Errors
    /// It does not end, or not well.
    pub async fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.ended().await?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }

    /// Kills it as a crash would, and makes sure that it was the kill that ended it.
    ///
    /// # Errors
    /// It had ended before.
    pub async fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.killed().await
    }

    /// Waits until SIGKILL has ended it, whoever sent it.
    ///
    /// # Errors
    /// It does not end, or otherwise.
    pub async fn killed(&mut self) -> Result<()> {
        let status = self.ended().await?;
        let killed = status.signal() == Some(Signal::KILL.as_raw());
        ensure!(killed, "{} ended with {status}", self.name);
        Ok(())
    }
}

/// The runner shows it of a test that failed, and of no other.
impl Drop for Program {
    fn drop(&mut self) {
        if std::env::var_os("NEXTEST").is_none() {
            return;
        }
        let said = self.said.borrow();
        let lines: Vec<_> = said.iter().skip(said.len().saturating_sub(QUOTED)).map(String::as_str).collect();
        println!("{} said last:\n  {}", self.name, lines.join("\n  "));
    }
}

async fn listen(stream: impl AsyncRead + Unpin, said: watch::Sender<VecDeque<String>>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        said.send_modify(|lines| {
            if lines.len() == LINES {
                lines.pop_front();
            }
            lines.push_back(line);
        });
    }
}
