//! `muster-agent enroll`: the whole way of a device into its network.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use muster_kit::connect::kept_proxy;
use muster_types::EnrollmentLink;
use muster_types::link::LinkError;

use super::{Places, load, run_agent, runtime};
use crate::config::Config;
use crate::enrollment::{EnrollError, enroll};
use crate::identity::{Identity, StateDir};
use crate::platform::service::{self, Install};

/// A link has some 150 bytes.
const LINK_BYTES: u64 = 4096;

/// Join a network with an enrollment link, and start the agent as a service.
///
/// A link on the command line can be seen by other users of this host while this runs; `-` reads it from standard
/// input, and --file (or @FILE) from a file:
///
///   muster-agent enroll 'https://master.example.org:27431/enroll#1....'
///   echo "$LINK" | muster-agent enroll -
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Enroll {
    /// The link, `-` for standard input, or @FILE
    #[arg(value_name = "LINK", required_unless_present = "file")]
    link: Option<String>,
    /// Read the link from this file
    #[arg(long, value_name = "FILE", conflicts_with = "link")]
    file: Option<PathBuf>,
    /// Do not install a service; keep running here
    #[arg(long)]
    foreground: bool,
    /// Do not install a service and do not run; something else will start `muster-agent run`
    #[arg(long, conflicts_with = "foreground")]
    no_service: bool,
}

impl Enroll {
    pub(super) fn run(&self, places: &Places) -> anyhow::Result<ExitCode> {
        let config = load(places)?;
        let manager = service::manager();
        let install = !self.foreground && !self.no_service;
        let link = match self.read() {
            Ok(link) => link,
            Err(error) => return Ok(told(&error)),
        };
        // Before the link is used up.
        if install {
            manager.check()?;
        }
        let identity = match join(&link, &config) {
            Ok(identity) => identity,
            Err(error) => return Ok(told(&error)),
        };
        println!("Enrolled as nodes/{} in network {}.", identity.node, identity.network);
        if self.foreground {
            return run_agent(config);
        }
        if install {
            manager.install(&Install {
                executable: std::env::current_exe()?,
                state_dir: config.state_dir()?,
                config_file: places.config.clone().map(std::path::absolute).transpose()?,
            })?;
            println!(
                "The agent runs, and starts with this host ({}). See `muster-agent status`.",
                manager.name()
            );
        } else {
            println!("Start it with `muster-agent run`.");
        }
        Ok(ExitCode::SUCCESS)
    }

    fn read(&self) -> Result<EnrollmentLink, EnrollError> {
        let text = match (&self.file, self.link.as_deref()) {
            (Some(file), _) => read_file(file)?,
            (None, Some("-")) => bounded(std::io::stdin(), "standard input")?,
            (None, Some(link)) => match link.strip_prefix('@') {
                Some(file) => read_file(Path::new(file))?,
                None => link.to_owned(),
            },
            (None, None) => return Err(LinkError::Scheme.into()),
        };
        Ok(text.parse::<EnrollmentLink>()?)
    }
}

fn told(error: &EnrollError) -> ExitCode {
    eprintln!("muster-agent: {error}");
    ExitCode::from(error.exit_code())
}

fn join(link: &EnrollmentLink, config: &Config) -> Result<Identity, EnrollError> {
    let internal = |error: String| EnrollError::Internal(error);
    let state = StateDir::new(config.state_dir().map_err(|error| internal(error.to_string()))?);
    let runtime = runtime().map_err(|error| internal(error.to_string()))?;
    let proxies = Arc::new(config.proxies().map_err(|error| internal(error.to_string()))?);
    let identity = runtime.block_on(enroll(link, &state, proxies))?;
    if let Some(variables) = kept_proxy() {
        state.keep_proxy(&variables)?;
    }
    Ok(identity)
}

fn read_file(path: &Path) -> Result<String, EnrollError> {
    let from = path.display().to_string();
    match std::fs::File::open(path) {
        Ok(file) => bounded(file, &from),
        Err(source) => Err(EnrollError::Unreadable { from, source }),
    }
}

fn bounded(reader: impl Read, from: &str) -> Result<String, EnrollError> {
    let mut text = String::new();
    let read = reader.take(LINK_BYTES).read_to_string(&mut text);
    read.map_err(|source| EnrollError::Unreadable { from: from.to_owned(), source })?;
    Ok(text)
}
