//! Task type `run`: a program or a script, its output streamed, its whole process tree killed at its end.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use muster_kit::crash;
use muster_proto::task::v1::{OutputStream, RunArguments};
use prost::Message;
use tokio::process::{ChildStderr, ChildStdout};
use tokio::time::Instant;

use crate::platform::processes::{Processes, Program, Running};
use crate::platform::users::{self, User, UserError};
use crate::tasks::output::Capture;
use crate::tasks::progress::{self, Listener};
use crate::tasks::{Context, Job, Outcome, TaskType};

/// An execution whose order names no limit.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);

/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// After a program's end its output is read to the end, unless somebody who escaped holds it open.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// The type, with what it needs of the host.
#[derive(Debug, Clone)]
pub struct Run {
    processes: Arc<Processes>,
    /// Where each execution's own directory is made.
    temporary: PathBuf,
    /// Tells this agent's directories from those of another one on the same host.
    owner: String,
}

impl Run {
    pub fn new(processes: Arc<Processes>, temporary: PathBuf, owner: String) -> Self {
        Self { processes, temporary, owner }
    }
}

impl TaskType for Run {
    fn name(&self) -> &'static str {
        "run"
    }

    fn default_timeout(&self) -> Duration {
        DEFAULT_TIMEOUT
    }

    fn prepare(&self, arguments: Bytes) -> Result<Box<dyn Job>, String> {
        let arguments = RunArguments::decode(arguments).map_err(|error| error.to_string())?;
        check(&arguments)?;
        Ok(Box::new(Execution { run: self.clone(), arguments }))
    }
}

fn check(arguments: &RunArguments) -> Result<(), String> {
    let program = arguments.argv.first().is_some_and(|program| !program.is_empty());
    if program != arguments.script.is_empty() {
        return Err("exactly one of argv and script is needed".to_owned());
    }
    let texts =
        arguments.argv.iter().chain(&arguments.script_arguments).chain(arguments.environment.values());
    if texts.chain([&arguments.interpreter]).any(|text| text.contains('\0')) {
        return Err("a NUL byte in an argument or a variable".to_owned());
    }
    match arguments.environment.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
        Some(name) => Err(format!("{name:?} is no variable's name")),
        None => Ok(()),
    }
}

struct Execution {
    run: Run,
    arguments: RunArguments,
}

impl Job for Execution {
    fn run<'a>(self: Box<Self>, context: &'a mut Context) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            match self.execute(context).await {
                Ok(outcome) => outcome,
                Err((code, reason)) => Outcome::failed(code, reason),
            }
        })
    }
}

type Failure = (&'static str, String);

impl Execution {
    async fn execute(&self, context: &mut Context) -> Result<Outcome, Failure> {
        let user = self.user().map_err(|error| ("BAD_USER", error.to_string()))?;
        let path = self.run.temporary.join(format!("muster-{}-{}", self.run.owner, context.name));
        let place = Place::create(path, user.as_ref())
            .map_err(|error| ("NO_DIRECTORY", format!("no temporary directory could be made: {error}")))?;
        let listener = Listener::create(&place.progress())
            .map_err(|error| ("NO_DIRECTORY", format!("no progress FIFO could be made: {error}")))?;
        let program = self.program(&place, user)?;
        let spawned = self.run.processes.spawn(&context.name, &program).await;
        let running = spawned.map_err(|error| ("SPAWN_FAILED", error.to_string()))?;
        crash::point("process.spawned");
        Ok(attend(running, listener, context).await)
    }

    fn user(&self) -> Result<Option<User>, UserError> {
        let wanted = &self.arguments.user;
        if wanted.is_empty() {
            return Ok(None);
        }
        let user = users::find(wanted)?;
        let own = users::own().uid;
        if user.uid == own {
            Ok(None)
        } else if users::is_root() {
            Ok(Some(user))
        } else {
            Err(UserError::NotRoot { own, wanted: wanted.clone() })
        }
    }

    fn program(&self, place: &Place, user: Option<User>) -> Result<Program, Failure> {
        let arguments = &self.arguments;
        let argv = if arguments.script.is_empty() {
            arguments.argv.clone()
        } else {
            let script = place.write_script(&arguments.script);
            let script = script
                .map_err(|error| ("NO_DIRECTORY", format!("the script could not be written: {error}")))?;
            let interpreter = match arguments.interpreter.as_str() {
                "" => "/bin/sh",
                named => named,
            };
            [interpreter.to_owned(), script].into_iter().chain(arguments.script_arguments.clone()).collect()
        };
        let account = user.clone().unwrap_or_else(users::own);
        let directory = if account.home.is_dir() { account.home.clone() } else { "/".into() };
        let mut environment = base_environment(&account, place);
        environment.retain(|(name, _)| !arguments.environment.contains_key(name));
        environment.extend(arguments.environment.clone());
        Ok(Program { argv, environment, directory, user })
    }
}

fn base_environment(account: &User, place: &Place) -> Vec<(String, String)> {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let entries = [
        ("PATH", PATH.to_owned()),
        ("HOME", path(&account.home)),
        ("USER", account.name.clone()),
        ("LOGNAME", account.name.clone()),
        ("SHELL", account.shell.clone()),
        ("LANG", "C.UTF-8".to_owned()),
        ("TMPDIR", path(&place.temporary())),
        (progress::VARIABLE, path(&place.progress())),
    ];
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Carries output and progress out, until the program ends or must end.
async fn attend(mut running: Running, mut listener: Listener, context: &mut Context) -> Outcome {
    let mut stdout: Capture<ChildStdout> = Capture::new(OutputStream::Stdout, running.stdout.take());
    let mut stderr: Capture<ChildStderr> = Capture::new(OutputStream::Stderr, running.stderr.take());
    let mut ended: Option<Ended> = None;
    let mut deadline: Option<Instant> = None;
    while ended.is_none() || stdout.is_open() || stderr.is_open() {
        let due = [stdout.due(), stderr.due(), listener.due()].into_iter().flatten().min();
        tokio::select! {
            biased;
            stop = context.stopped(), if ended.is_none() => {
                ended = Some(Ended::Stopped(stop));
            }
            () = at(due) => {
                let now = Instant::now();
                if stdout.due().is_some_and(|due| due <= now) { stdout.flush(&mut context.reporter).await; }
                if stderr.due().is_some_and(|due| due <= now) { stderr.flush(&mut context.reporter).await; }
                if listener.due().is_some_and(|due| due <= now) && let Some(progress) = listener.take() {
                    context.reporter.progress(progress).await;
                }
            }
            () = at(deadline) => break,
            () = stdout.read(), if stdout.is_open() => {}
            () = stderr.read(), if stderr.is_open() => {}
            () = listener.read(), if ended.is_none() => {}
            status = running.wait(), if ended.is_none() => ended = Some(Ended::Exited(status)),
        }
        if ended.is_some() && deadline.is_none() {
            // What it left behind would keep its output open.
            running.kill();
            deadline = Some(Instant::now() + LAST_OUTPUT);
        }
    }
    running.finish().await;
    if let Some(progress) = listener.last() {
        context.reporter.progress(progress).await;
    }
    let mut outcome = ended.map_or_else(Outcome::succeeded, Ended::outcome);
    let out = stdout.finish(&mut context.reporter).await;
    let err = stderr.finish(&mut context.reporter).await;
    let finished = &mut outcome.finished;
    (finished.stdout_bytes, finished.stdout_truncated) = (out.bytes, out.truncated);
    (finished.stderr_bytes, finished.stderr_truncated) = (err.bytes, err.truncated);
    outcome
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

enum Ended {
    Exited(std::io::Result<ExitStatus>),
    Stopped(crate::tasks::Stop),
}

impl Ended {
    fn outcome(self) -> Outcome {
        match self {
            Self::Stopped(stop) => Outcome::stopped(stop),
            Self::Exited(Ok(status)) => of_status(status),
            Self::Exited(Err(error)) => Outcome::failed("WAIT_FAILED", error.to_string()),
        }
    }
}

fn of_status(status: ExitStatus) -> Outcome {
    let mut outcome = match (status.code(), status.signal()) {
        (Some(0), _) => Outcome::succeeded(),
        (Some(code), _) => Outcome::failed("EXIT_CODE", format!("it exited with code {code}")),
        (None, Some(signal)) => Outcome::failed("SIGNAL", format!("signal {signal} ended it")),
        (None, None) => Outcome::failed("WAIT_FAILED", "the system does not say how it ended"),
    };
    outcome.finished.exit_code = status.code();
    outcome.finished.signal = status.signal();
    outcome
}

/// The own directory of one execution; removed with everything in it when dropped.
struct Place(PathBuf);

impl Place {
    fn create(path: PathBuf, user: Option<&User>) -> std::io::Result<Self> {
        // Left by an earlier life; only its owner or root could have made it, or this fails.
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let make = |path: &Path| std::fs::DirBuilder::new().mode(0o700).create(path);
        make(&path)?;
        let place = Self(path);
        make(&place.temporary())?;
        if let Some(user) = user {
            chown(place.temporary(), Some(user.uid), Some(user.gid))?;
            chown(&place.0, Some(user.uid), Some(user.gid))?;
        }
        Ok(place)
    }

    fn temporary(&self) -> PathBuf {
        self.0.join("tmp")
    }

    fn progress(&self) -> PathBuf {
        self.0.join("progress")
    }

    fn write_script(&self, script: &str) -> std::io::Result<String> {
        let path = self.0.join("script");
        std::fs::write(&path, script)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(path.to_string_lossy().into_owned())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a task's directory could not be removed");
        }
    }
}
