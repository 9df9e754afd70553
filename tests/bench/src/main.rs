//! `muster-bench`: what it costs and how fast it is, measured with the real programs in the lab.

mod caller;
mod disk;
mod poller;
mod process;
mod row;
mod scenes;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use futures::FutureExt;
use futures::future::BoxFuture;
use muster_lab::stage::{self, Stage};

use row::Row;
use scenes::{command, dht, healing, idle, load, poller as polling, revocation};

/// Measures Muster with its real programs, in a lab of network namespaces on this computer.
///
/// Each line of the answer is one figure over n events: where it was measured (lab: namespaces with routers between
/// them; loopback: one host), whether programs and connections were cold (just started) or warm, and what is aimed at.
/// Every figure is a difference on one clock. Build the programs first:
///
///   cargo build --workspace --bins
///   cargo run -p muster-bench -- lsn-crash --repeat 20
///   cargo run -p muster-bench -- all
#[derive(Debug, Parser)]
#[command(name = "muster-bench", version, verbatim_doc_comment)]
struct Arguments {
    /// How often an event is made to happen
    #[arg(long, global = true, default_value_t = 10)]
    repeat: usize,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// Everything below, one after another
    All,
    /// SIGKILL of an LSN, until the master sees each node of its place under the new one
    LsnCrash,
    /// A host's network comes up, until the master sees it under its LSN
    Join,
    /// SIGTERM of an LSN, until the master sees each node of its place under the new one
    Part,
    /// A host comes to another place, until the master sees it under the LSN there
    Move,
    /// `muster revoke`, until the last session with the host is cut: LSNs, children, children whose LSN dies just then
    Revoke,
    /// Bytes that an idle place of 30 sends over its WAN and its LAN, and what they are
    Idle {
        /// How long they are counted, after two minutes in which the place comes to rest
        #[arg(long, default_value_t = 5)]
        minutes: u64,
    },
    /// A command's round trip: one host and all of the lab, warm
    Command,
    /// Memory and processor time of idle agents and their master
    Memory,
    /// Ours beside the poller of old on the same hosts: bytes, connections, a command's latency
    Poller,
    /// The hash table on loopback: put, get, full lookup, join, idle, and with 30 % killed; in a network of its own:
    /// `tests/apart cargo run -p muster-bench -- dht`
    Dht {
        #[arg(long, default_value_t = 300)]
        nodes: usize,
    },
    /// One master on one core and the streams of many LSNs: attaching, memory, presence, tasks, one task for all; in a
    /// network of its own: `tests/apart cargo run -p muster-bench -- master-load`
    MasterLoad {
        /// Control streams, each with a TLS session of its own
        #[arg(long, default_value_t = 10_000)]
        streams: usize,
        /// Hosts in all; those that are not LSNs come under them
        #[arg(long, default_value_t = 30_000)]
        hosts: usize,
    },
    /// Calls a master from its own machine; the bench starts this itself
    #[command(hide = true)]
    Caller(caller::Caller),
    /// The poller's server, its client, and its operator; the bench starts these itself
    #[command(hide = true)]
    PollServer(poller::Server),
    #[command(hide = true)]
    PollClient(poller::Client),
    #[command(hide = true)]
    PollOrder(poller::Operator),
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("muster-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(part) = part(&arguments.what) {
        tokio::runtime::Runtime::new()?.block_on(part)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let What::Dht { nodes } = arguments.what {
        let rows = tokio::runtime::Runtime::new()?.block_on(dht::measure(nodes, arguments.repeat))?;
        println!("{}", Row::HEAD);
        rows.iter().for_each(|row| println!("{row}"));
        return Ok(ExitCode::SUCCESS);
    }
    if let What::MasterLoad { streams, hosts } = arguments.what {
        load::take_one_core()?;
        let size = load::Size { streams, hosts };
        let rows = tokio::runtime::Runtime::new()?.block_on(load::measure(size, arguments.repeat))?;
        println!("{}", Row::HEAD);
        rows.iter().for_each(|row| println!("{row}"));
        return Ok(ExitCode::SUCCESS);
    }
    if stage::entered().is_some() {
        stage::perform(measure(arguments))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !matches!(arguments.what, What::All) {
        return enter(std::env::args_os().skip(1).collect());
    }
    // A lab for each, so that none inherits what another left behind.
    println!("{}", Row::HEAD);
    let parts = ["lsn-crash", "join", "part", "move", "revoke", "command", "memory", "idle"];
    let mut worst = ExitCode::SUCCESS;
    for part in parts {
        let code = enter(vec![part.into(), "--repeat".into(), arguments.repeat.to_string().into()])?;
        if code != ExitCode::SUCCESS {
            eprintln!("muster-bench: {part} could not be measured");
            worst = code;
        }
    }
    Ok(worst)
}

/// What the bench has its own program do on the lab's machines.
fn part(what: &What) -> Option<BoxFuture<'static, Result<()>>> {
    Some(match what.clone() {
        What::Caller(caller) => caller.run().boxed(),
        What::PollServer(server) => server.run().boxed(),
        What::PollClient(client) => client.run().boxed(),
        What::PollOrder(operator) => operator.run().boxed(),
        _ => return None,
    })
}

fn enter(arguments: Vec<std::ffi::OsString>) -> Result<ExitCode> {
    let status = Stage::enter(&arguments)?.wait()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(Arguments { repeat, what }: Arguments) -> Result<()> {
    let rows = match what {
        What::LsnCrash => healing::crash(repeat).await?,
        What::Part => healing::part(repeat).await?,
        What::Join => healing::join(repeat).await?,
        What::Move => healing::change_of_place(repeat).await?,
        What::Revoke => revocation::revoke(repeat).await?,
        What::Idle { minutes } => idle::traffic(minutes).await?,
        What::Memory => idle::memory_and_processor().await?,
        What::Command => command::round_trips().await?,
        What::Poller => polling::beside_ours().await?,
        // Done before, and not in a lab.
        _ => Vec::new(),
    };
    rows.iter().for_each(|row| println!("{row}"));
    Ok(())
}
