//! The command line: what people and unit files call.
//!
//! Answers go to stdout, messages and logs to stderr. Exit codes: 0 done; 1 failed; 2 not understood; 3 the master
//! refused; 4 the master was not reached; 5 whoever answered is not to be trusted; 6 enrolled already; 7 not enrolled
//! or not running.

mod dht;
mod enroll;
mod letters;
mod network;
mod status;
mod uninstall;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use muster_kit::shutdown::Shutdown;
use muster_kit::telemetry;
use tokio::runtime::Runtime;

use crate::config::Config;
use crate::driver;
use crate::identity::StateError;

/// The agent waits for others nearly all of its life; two threads are plenty and keep it small.
const WORKER_THREADS: usize = 2;
/// Threads for what blocks: files, name lookups, an inventory.
const BLOCKING_THREADS: usize = 4;

const NOT_HERE: u8 = 7;

/// The Muster agent: makes this device a member of its management network.
///
/// A device joins once, with a link that an operator made on the master:
///
///   muster link create                     (on the master; prints the link)
///   sudo muster-agent enroll 'https://...'  (here; joins and installs the service)
///   sudo muster-agent status
///
/// From then on it keeps itself connected, does what the master signed, and reports
/// back. Nothing needs to be configured; what can be is in /etc/muster/agent.toml, in
/// MUSTER_AGENT_* and in the flags of `run`.
#[derive(Debug, Parser)]
#[command(name = "muster-agent", version, propagate_version = true, verbatim_doc_comment)]
struct Arguments {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Args)]
struct Places {
    /// Where keys and journal are kept [default: /var/lib/muster-agent for root]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Read settings from this file [default: /etc/muster/agent.toml if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Join a network with an enrollment link, and start the agent as a service
    Enroll(enroll::Enroll),
    /// Run the agent of an enrolled device in the foreground (what the service starts)
    Run(Run),
    /// Show how the agent of this device is doing
    Status(status::Status),
    /// Open a session with any node of the network, and show by which path and what was tried
    Ping(network::Ping),
    /// Send a letter of at most 16 KiB to any node, which gets it once; the master need not be there
    Send(letters::Send),
    /// Show the letters that came for this host, or take the oldest
    Inbox(letters::Inbox),
    /// Show how this host is seen from outside, and what that means
    Netcheck(network::Netcheck),
    /// Look into the hash table from this node
    #[command(subcommand)]
    Dht(dht::Dht),
    /// Leave the network and remove the service, the keys and everything else
    Uninstall(uninstall::Uninstall),
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
struct Run {
    /// UDP and TCP port of the overlay; any other is taken if it is not free
    #[arg(long)]
    port: Option<u16>,
    /// Try this address of the master first; may be repeated
    #[arg(long = "master", value_name = "HOST:PORT")]
    masters: Vec<String>,
    /// What to log, as in `info` or `info,muster_agent=debug`
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    /// For people
    #[default]
    Text,
    /// For programs; the field `schema` names its version
    Json,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("muster-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let places = arguments.places;
    match arguments.command {
        Command::Enroll(enroll) => enroll.run(&places),
        Command::Run(run) => run_agent(with_flags(load(&places)?, run)),
        Command::Status(status) => status.run(&load(&places)?),
        Command::Ping(ping) => ping.run(&load(&places)?),
        Command::Send(send) => send.run(&load(&places)?),
        Command::Inbox(inbox) => inbox.run(&load(&places)?),
        Command::Netcheck(netcheck) => netcheck.run(&load(&places)?),
        Command::Dht(command) => dht::run(&command, &load(&places)?),
        Command::Uninstall(uninstall) => uninstall.run(&load(&places)?),
        Command::Version => {
            println!("muster-agent {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn load(places: &Places) -> anyhow::Result<Config> {
    let mut config = Config::load(places.config.as_deref())?;
    if let Some(state_dir) = &places.state_dir {
        config.state_dir = Some(std::path::absolute(state_dir)?);
    }
    Ok(config)
}

fn with_flags(mut config: Config, run: Run) -> Config {
    config.port = run.port.unwrap_or(config.port);
    config.telemetry.log = run.log.unwrap_or(config.telemetry.log);
    if !run.masters.is_empty() {
        config.master_addresses = run.masters;
    }
    config
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("muster-agent")
        .enable_all()
        .build()
}

fn run_agent(config: Config) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async {
        let _telemetry = telemetry::init("muster-agent", &config.telemetry)?;
        let shutdown = Shutdown::on_signals()?;
        match driver::run(config, shutdown).await {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error @ driver::RunError::State(StateError::NotEnrolled(_))) => {
                eprintln!("muster-agent: {error}.\nEnroll it with `muster-agent enroll LINK`.");
                Ok(ExitCode::from(NOT_HERE))
            }
            Err(error) => Err(error.into()),
        }
    })
}
