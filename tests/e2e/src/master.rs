//! A master in a folder and on a port of its own, and the operator's command line beside it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_kit::connect::{AUTH, Master as Way, MasterChannel, TOPOLOGY};
use muster_kit::tls::{ClientTls, Material};
use rustix::process::Signal;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::answer::{Answer, ask};
use crate::binaries;
use crate::fleet::Fleet;
use crate::program::{PATIENCE, Program};

/// What `muster up` says once devices and operators can reach it.
const READY: &str = "/enroll#1.";

/// The operator of the master's own host: key, leaf, intermediates and, last, the root.
const OPERATOR: &str = "operator.pem";

/// Between two looks into the audit log.
const LOOK: Duration = Duration::from_millis(50);

/// What `muster serve` logs then.
const SERVING: &str = "serving";

/// A master, or a part of one. Dropping it kills it and removes its folder.
#[derive(Debug)]
pub struct Master {
    folder: TempDir,
    port: u16,
    /// Command and options, less those that every master here gets.
    words: Vec<String>,
    ready: &'static str,
    program: Option<Program>,
}

/// A TCP port that nobody listens on.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Somebody's certificate and key, from a file that holds them in PEM: key, leaf, intermediates and, last, the root.
///
/// # Errors
/// The file is not there or damaged.
pub fn credentials_in(file: &Path) -> Result<Material> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut chain = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let root = chain.pop().with_context(|| format!("{} has no certificate", file.display()))?;
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes())?;
    Ok(Material { chain, key, roots: vec![root] })
}

impl Master {
    /// `muster up` without an agent of its own, ready.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn up() -> Result<Self> {
        Self::up_with(&["--no-agent"]).await
    }

    /// `muster up` with these options, ready.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn up_with(options: &[&str]) -> Result<Self> {
        let mut master = Self::nowhere()?;
        master.words = [&["up"], options].concat().into_iter().map(str::to_owned).collect();
        master.start(&[]).await?;
        Ok(master)
    }

    /// Becomes a `muster serve` with these options, ready; the rest of the master is at `elsewhere`.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn serve(&mut self, options: &[&str], elsewhere: &str) -> Result<()> {
        let addresses = format!("{},{elsewhere}", self.address());
        let words = [&["serve"], options, &["--address", &addresses]].concat();
        self.words = words.into_iter().map(str::to_owned).collect();
        self.ready = SERVING;
        self.start(&[]).await
    }

    /// Becomes one of several replicas with every service, ready. `elsewhere` are the addresses of the others.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn serve_beside(&mut self, elsewhere: &[String], environment: &[(&str, &str)]) -> Result<()> {
        let addresses = [&[self.address()], elsewhere].concat().join(",");
        self.words = ["serve", "--target", "all", "--address", &addresses].map(str::to_owned).into();
        self.ready = SERVING;
        self.start(environment).await
    }

    /// A folder and a port without a master: a place for an operator who works from elsewhere.
    ///
    /// # Errors
    /// There is no folder or no port.
    pub fn nowhere() -> Result<Self> {
        let words = Vec::new();
        Ok(Self { folder: tempfile::tempdir()?, port: free_port()?, words, ready: READY, program: None })
    }

    /// Starts it (again), with these variables in its environment, and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn start(&mut self, environment: &[(&str, &str)]) -> Result<()> {
        self.spawn(environment)?;
        self.program()?.says(self.ready).await?;
        Ok(())
    }

    /// Starts it (again) without waiting for anything.
    ///
    /// # Errors
    /// It does not start.
    pub fn spawn(&mut self, environment: &[(&str, &str)]) -> Result<()> {
        let address = self.address();
        let mut command = self.bare()?;
        command.arg("--data-dir").arg(self.data_dir()).args(&self.words);
        command.args(["--listen", &address, "--observe", "127.0.0.1:0"]);
        if !self.words.iter().any(|word| word == "--address") {
            command.args(["--address", &address]);
        }
        command.envs(environment.iter().copied());
        self.program = Some(Program::start(command)?);
        Ok(())
    }

    /// Starts it with this command line and environment, and does not wait for anything.
    ///
    /// # Errors
    /// It does not start.
    pub fn spawn_words(&mut self, words: &[&str], environment: &[(&str, &str)]) -> Result<()> {
        self.words = words.iter().map(|word| (*word).to_owned()).collect();
        self.spawn(environment)
    }

    /// The command line with nothing of this user's own.
    fn bare(&self) -> Result<Command> {
        let mut command = Command::new(binaries::find("muster")?);
        command.env_clear().env("HOME", self.folder.path()).env("PATH", "/usr/bin:/bin");
        command.env("XDG_CONFIG_HOME", self.folder.path().join("config"));
        Ok(command)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("master")
    }

    /// `host:port`, as in links.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// # Errors
    /// It does not run.
    pub fn program(&self) -> Result<&Program> {
        self.program.as_ref().context("the master does not run")
    }

    /// # Errors
    /// It does not run.
    pub fn take_program(&mut self) -> Result<Program> {
        self.program.take().context("the master does not run")
    }

    /// Kills it as a crash would.
    ///
    /// # Errors
    /// It had ended before.
    pub async fn kill(&mut self) -> Result<()> {
        self.take_program()?.kill().await
    }

    /// Waits until it has killed itself at a crash point of this name.
    ///
    /// # Errors
    /// It does not reach that point.
    pub async fn dies_at(&mut self, point: &str) -> Result<()> {
        let mut program = self.take_program()?;
        program.says(&format!("crash point {point} hit")).await?;
        program.killed().await
    }

    /// Ends it with SIGTERM, as a service manager does.
    ///
    /// # Errors
    /// It does not end, or not well.
    pub async fn stop(&mut self) -> Result<()> {
        self.take_program()?.stop().await
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.program()?.signal(signal)
    }

    /// Runs the command line of this host's own operator to its end.
    ///
    /// # Errors
    /// It does not start or end.
    pub async fn muster(&self, arguments: &[&str]) -> Result<Answer> {
        self.muster_with(&[], arguments).await
    }

    /// Waits until the audit log names each of these deeds: services hand theirs to it by and by. Answers the log.
    ///
    /// # Errors
    /// One of them does not come.
    pub async fn until_audited(&self, deeds: &[&str]) -> Result<String> {
        let begun = Instant::now();
        loop {
            let log = self.muster(&["audit", "export"]).await?.expect(0)?.stdout;
            if deeds.iter().all(|deed| log.contains(deed)) {
                return Ok(log);
            }
            ensure!(begun.elapsed() < PATIENCE, "not all of {deeds:?} are in the audit log: {log}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The same with these variables in its environment.
    ///
    /// # Errors
    /// It does not start or end.
    pub async fn muster_with(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Result<Answer> {
        let mut command = self.bare()?;
        command.envs(environment.iter().copied());
        command.arg("--data-dir").arg(self.data_dir()).args(arguments);
        ask(command, "").await
    }

    /// Runs the command line of an operator who has no master here, with `input` on its stdin.
    ///
    /// # Errors
    /// It does not start or end.
    pub async fn muster_elsewhere(&self, arguments: &[&str], input: &str) -> Result<Answer> {
        let mut command = self.bare()?;
        command.args(arguments);
        ask(command, input).await
    }

    /// The same with these variables in its environment, without waiting for its end.
    ///
    /// # Errors
    /// It does not start.
    pub fn muster_elsewhere_on(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Result<Program> {
        let mut command = self.bare()?;
        command.envs(environment.iter().copied()).args(arguments);
        Program::start(command)
    }

    /// Starts a command line that goes on, such as `watch`.
    ///
    /// # Errors
    /// It does not start.
    pub fn muster_on(&self, arguments: &[&str]) -> Result<Program> {
        let mut command = self.bare()?;
        command.arg("--data-dir").arg(self.data_dir()).args(arguments);
        Program::start(command)
    }

    /// A new enrollment link.
    ///
    /// # Errors
    /// The master makes none.
    pub async fn link(&self, arguments: &[&str]) -> Result<String> {
        let created = self.muster(&[&["link", "create"], arguments].concat()).await?;
        Ok(created.expect(0)?.stdout.trim().to_owned())
    }

    /// The nodes, as `muster nodes` lists them.
    ///
    /// # Errors
    /// It does not.
    pub async fn nodes(&self) -> Result<Vec<Value>> {
        let listed = self.muster(&["nodes", "--output", "json"]).await?.expect(0)?;
        let mut document = listed.document("Nodes")?;
        serde_json::from_value(document["nodes"].take()).context("nodes are a list")
    }

    /// What the master's own operator shows and believes.
    ///
    /// # Errors
    /// The file is not there or damaged.
    pub fn operator(&self) -> Result<Material> {
        credentials_in(&self.data_dir().join(OPERATOR))
    }

    /// A way to topology with somebody's certificate.
    ///
    /// # Errors
    /// The certificate cannot be used.
    pub fn topology_as(&self, material: Material) -> Result<MasterChannel> {
        Ok(Way::new([self.address()], ClientTls::new(material)?).service(TOPOLOGY))
    }

    /// The Fleet API of whichever of these masters answers, as this one's operator.
    ///
    /// # Errors
    /// The operator's file is damaged.
    pub fn fleet_of(&self, addresses: &[String]) -> Result<Fleet> {
        let tls = ClientTls::new(self.operator()?)?;
        Ok(Fleet::new(Way::new(addresses.iter().cloned(), tls).service(TOPOLOGY)))
    }

    /// A way to auth with somebody's certificate.
    ///
    /// # Errors
    /// The certificate cannot be used.
    pub fn auth_as(&self, material: Material) -> Result<MasterChannel> {
        Ok(Way::new([self.address()], ClientTls::new(material)?).service(AUTH))
    }

    /// The Fleet API, as the operator.
    ///
    /// # Errors
    /// The operator's file is damaged.
    pub fn fleet(&self) -> Result<Fleet> {
        Ok(Fleet::new(self.topology_as(self.operator()?)?))
    }
}
