//! A machine is a thread with its own network, mount and host-name namespaces. Work sent to it happens there: sockets
//! opened stay there, programs started live there. The namespaces end with the thread and its programs.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

const NOTHING: Option<&str> = None;

/// Where a machine's programs put what is temporary, in its own directory.
const TEMPORARY: &str = "tmp";

type Job = Box<dyn FnOnce() + Send>;

/// A machine's handle. Dropping it switches the machine off.
#[derive(Debug)]
pub struct Machine {
    name: String,
    thread_id: i32,
    home: PathBuf,
    jobs: mpsc::Sender<Job>,
}

impl Machine {
    /// Starts a machine whose files lie in `home`, with `resolver` as its /etc/resolv.conf.
    pub async fn start(name: &str, home: &Path, resolver: &str) -> Result<Self> {
        std::fs::create_dir_all(home.join(TEMPORARY))?;
        std::fs::write(home.join("resolv.conf"), resolver)?;
        let (jobs, received) = mpsc::channel::<Job>();
        let (ready, started) = oneshot::channel();
        let (thread_name, thread_home) = (name.to_owned(), home.to_owned());
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let outcome = settle(&thread_name, &thread_home);
            let failed = outcome.is_err();
            if ready.send(outcome).is_err() || failed {
                return;
            }
            received.iter().for_each(|job| job());
        })?;
        let thread_id = started.await?.with_context(|| format!("set up the machine {name}"))?;
        let machine = Self { name: name.to_owned(), thread_id, home: home.to_owned(), jobs };
        // Nobody else can have our addresses: waiting a second for a duplicate's word would only slow the lab down.
        machine.sysctl("net.ipv6.conf.all.accept_dad", "0").await?;
        machine.sysctl("net.ipv6.conf.default.accept_dad", "0").await?;
        machine.ip("link set dev lo up").await?;
        Ok(machine)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The thread's id within the lab, by which `ip` and `nsenter` find the namespaces.
    pub fn thread_id(&self) -> i32 {
        self.thread_id
    }

    /// The directory for this machine's files.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Does `job` on this machine.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (done, result) = oneshot::channel();
        let runtime = Handle::current();
        let job: Job = Box::new(move || {
            let _context = runtime.enter();
            // The caller may have lost interest.
            let _ = done.send(job());
        });
        self.jobs.send(job).map_err(|_| anyhow!("the machine {} is off", self.name))?;
        result.await.with_context(|| format!("the machine {} panicked", self.name))
    }

    /// Starts a program here. It is killed when its handle is dropped.
    pub async fn spawn(&self, mut command: Command) -> Result<tokio::process::Child> {
        command.kill_on_drop(true).env("TMPDIR", self.home.join(TEMPORARY));
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let child = self.run(move || command.spawn()).await?;
        child.with_context(|| format!("start {program} on {}", self.name))
    }

    /// Runs a program here to its end and returns what it wrote to stdout; failing is an error with its stderr.
    pub async fn exec(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program.as_ref());
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = self.spawn(command).await?.wait_with_output().await?;
        if !output.status.success() {
            bail!(
                "{} {} on {}: {}, {}{}",
                program.as_ref().display(),
                arguments.join(" "),
                self.name,
                output.status,
                String::from_utf8_lossy(&output.stderr).trim(),
                String::from_utf8_lossy(&output.stdout).trim()
            );
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs `ip` here on a batch of its commands, one a line.
    pub async fn ip(&self, batch: &str) -> Result<()> {
        self.feed("ip", &["-batch", "-"], batch).await
    }

    /// Runs `nft` here on a rule set.
    pub async fn nft(&self, rules: &str) -> Result<()> {
        self.feed("nft", &["-f", "-"], rules).await
    }

    /// Writes a kernel setting, such as `net.ipv4.ip_forward`.
    pub async fn sysctl(&self, setting: &str, value: &'static str) -> Result<()> {
        let path = format!("/proc/sys/{}", setting.replace('.', "/"));
        self.run(move || std::fs::write(&path, value).with_context(|| format!("write {value} to {path}")))
            .await?
    }

    async fn feed(&self, program: &str, arguments: &[&str], input: &str) -> Result<()> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = self.spawn(command).await?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} on {}: {}\nin:\n{input}", self.name, said.trim());
        Ok(())
    }
}

/// Where programs keep their state by default: every machine has its own layer over this computer's.
const OWN_DIRECTORIES: [&str; 2] = ["/var/lib", "/run"];

/// Leaves the shared namespaces for new ones and dresses them as a machine; returns the thread's id.
fn settle(name: &str, home: &Path) -> Result<i32> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS)?;
    nix::unistd::sethostname(name)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), NOTHING).context("mount /sys")?;
    let resolver =
        std::fs::canonicalize("/etc/resolv.conf").context("/etc/resolv.conf, which the lab covers")?;
    for directory in OWN_DIRECTORIES {
        own_layer(directory, home).with_context(|| format!("lay a machine's own files over {directory}"))?;
    }
    mount(Some(&home.join("resolv.conf")), &resolver, NOTHING, MsFlags::MS_BIND, NOTHING)
        .context("cover /etc/resolv.conf")?;
    Ok(nix::unistd::gettid().as_raw())
}

/// Reads from this computer's directory, writes to the machine's.
fn own_layer(directory: &str, home: &Path) -> Result<()> {
    let name = directory.trim_start_matches('/').replace('/', "-");
    let (upper, work) = (home.join(&name), home.join(format!(".{name}")));
    std::fs::create_dir_all(&upper)?;
    std::fs::create_dir_all(&work)?;
    let (upper, work) = (upper.display(), work.display());
    let options = format!("lowerdir={directory},upperdir={upper},workdir={work},userxattr");
    mount(Some("overlay"), directory, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    Ok(())
}
