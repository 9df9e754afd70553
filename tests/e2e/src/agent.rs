//! An agent in a folder of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use data_encoding::{BASE64, HEXLOWER};
use muster_kit::tls::{Material, validity};
use muster_proto::auth::v1::Credentials;
use muster_types::Timestamp;
use prost::Message;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::answer::{Answer, ask};
use crate::binaries;
use crate::fleet::is_online;
use crate::master::Master;
use crate::program::Program;

/// The file whose presence is what "enrolled" means.
pub const IDENTITY: &str = "identity.json";

/// A device. Dropping it kills its agent and removes its folder.
#[derive(Debug)]
pub struct Agent {
    folder: TempDir,
    program: Option<Program>,
}

impl Agent {
    /// A device that belongs to no network yet.
    ///
    /// # Errors
    /// No folder can be made.
    pub fn new() -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir()?, program: None })
    }

    /// A device that belongs to `master`'s network, its agent running and seen online.
    ///
    /// # Errors
    /// It does not get there.
    pub async fn of(master: &Master) -> Result<Self> {
        let mut agent = Self::enrolled(master, &[]).await?;
        agent.start(&[])?;
        agent.until_online(master).await?;
        Ok(agent)
    }

    /// A device that belongs to `master`'s network by a link with these arguments; its agent does not run.
    ///
    /// # Errors
    /// It does not get there.
    pub async fn enrolled(master: &Master, link: &[&str]) -> Result<Self> {
        let agent = Self::new()?;
        let link = master.link(link).await?;
        agent.enroll(&link).await?.expect(0)?;
        Ok(agent)
    }

    /// # Errors
    /// The command line does not start or end.
    pub async fn enroll(&self, link: &str) -> Result<Answer> {
        self.says(&["enroll", "--no-service", link], "").await
    }

    /// Runs the agent's command line to its end, with `input` on its stdin.
    ///
    /// # Errors
    /// It does not start or end.
    pub async fn says(&self, arguments: &[&str], input: &str) -> Result<Answer> {
        let mut command = self.bare(&[])?;
        command.args(arguments);
        ask(command, input).await
    }

    /// Starts the agent's command line with these variables in its environment, and does not wait for its end.
    ///
    /// # Errors
    /// It does not start.
    pub fn says_on(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Program> {
        let mut command = self.bare(environment)?;
        command.args(arguments);
        Program::start(command)
    }

    /// Starts the agent (again), with these variables in its environment.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&mut self, environment: &[(&str, &str)]) -> Result<()> {
        let mut command = self.bare(environment)?;
        command.args(["run", "--port", "0"]);
        self.program = Some(Program::start(command)?);
        Ok(())
    }

    fn bare(&self, environment: &[(&str, &str)]) -> Result<Command> {
        let mut command = Command::new(binaries::find("muster-agent")?);
        command.env_clear().env("HOME", self.folder.path()).env("PATH", "/usr/bin:/bin");
        command.env("MUSTER_AGENT_TEMPORARY_DIR", self.folder.path());
        command.env("MUSTER_AGENT_TELEMETRY__LOG", "info,muster_agent=debug");
        command.envs(environment.iter().copied());
        command.arg("--state-dir").arg(self.state_dir());
        Ok(command)
    }

    /// A folder that belongs to the test and not to the agent.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// `nodes/{id}`
    ///
    /// # Errors
    /// It is not enrolled.
    pub fn name(&self) -> Result<String> {
        Ok(format!("nodes/{}", HEXLOWER.encode(&self.credentials()?.0.node_id)))
    }

    /// The identity's file as it is.
    ///
    /// # Errors
    /// It is not enrolled.
    pub fn kept_identity(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.state_dir().join(IDENTITY))?)
    }

    /// What auth attested, and the TLS key.
    fn credentials(&self) -> Result<(Credentials, Vec<u8>)> {
        let kept: Value = serde_json::from_str(&self.kept_identity()?)?;
        let bytes = |value: &Value| -> Result<Vec<u8>> {
            Ok(BASE64.decode(value.as_str().context("no text")?.as_bytes())?)
        };
        Ok((Credentials::decode(&bytes(&kept["credentials"])?[..])?, bytes(&kept["keys"]["tls"])?))
    }

    /// What this device shows and believes, in the wrong hands.
    ///
    /// # Errors
    /// It is not enrolled.
    pub fn stolen_credentials(&self) -> Result<Material> {
        let (credentials, key) = self.credentials()?;
        let ders = |list: &[prost::bytes::Bytes]| -> Vec<CertificateDer<'static>> {
            list.iter().map(|der| CertificateDer::from(der.to_vec())).collect()
        };
        let roots = credentials.trust_bundle.as_ref().map(|bundle| ders(&bundle.roots)).unwrap_or_default();
        let key = PrivatePkcs8KeyDer::from(key).into();
        Ok(Material { chain: ders(&credentials.certificate_chain), key, roots })
    }

    /// When its certificate runs out.
    ///
    /// # Errors
    /// It is not enrolled.
    pub fn certificate_ends(&self) -> Result<Timestamp> {
        let chain = self.stolen_credentials()?.chain;
        Ok(validity(chain.first().context("it has no certificate")?)?.1)
    }

    /// # Errors
    /// It does not run.
    pub fn program(&self) -> Result<&Program> {
        self.program.as_ref().context("the agent does not run")
    }

    /// # Errors
    /// It does not run.
    pub fn take_program(&mut self) -> Result<Program> {
        self.program.take().context("the agent does not run")
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

    /// Waits until the master sees it online.
    ///
    /// # Errors
    /// It does not come.
    pub async fn until_online(&self, master: &Master) -> Result<()> {
        let name = self.name()?;
        master.fleet()?.until_node(&name, is_online).await.map(drop)
    }

    /// Waits until the master does not see it online any more.
    ///
    /// # Errors
    /// It stays.
    pub async fn until_offline(&self, master: &Master) -> Result<()> {
        master.fleet()?.until_node(&self.name()?, |node| !is_online(node)).await?;
        Ok(())
    }

    /// What `muster-agent status` says.
    ///
    /// # Errors
    /// The agent does not answer.
    pub async fn status(&self) -> Result<Value> {
        let status = self.says(&["status", "--output", "json"], "").await?.expect(0)?;
        let status: Value = serde_json::from_str(&status.stdout)?;
        ensure!(status["schema"] == "muster.agent.status/v1", "of another schema: {status}");
        Ok(status)
    }

    /// Names of what lies in the state directory.
    pub fn kept(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.state_dir()).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}
