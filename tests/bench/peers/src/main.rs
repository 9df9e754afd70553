//! `muster-peers`: others of our kind and ours under the same load, in one program built with one profile.

mod figures;
mod load;
mod machine;
mod relay;
mod tables;

use std::io::Read;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};

use figures::Figures;
use load::measure;
use tables::{discv5::Ethereum, libp2p::Libp2p, mainline::Mainline, muster::Muster};

#[derive(Debug, Parser)]
#[command(name = "muster-peers", version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One hash table under the load that all get; says a line of JSON. In a network namespace of its own: tests/apart
    Dht {
        system: System,
        #[arg(long, default_value_t = 200)]
        nodes: usize,
        /// How many of each operation
        #[arg(long, default_value_t = 50)]
        operations: usize,
    },
    /// Lines of JSON from stdin as one table
    Table,
    /// Our relay and coturn under the same packets; prints a table. Apart, and on the second core: tests/bench/peers/relay
    Relay {
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Our relay by itself, told who it is on stdin; `relay` starts it
    #[command(hide = true)]
    RelayServe,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum System {
    Muster,
    Mainline,
    Discv5,
    Libp2pTcp,
    Libp2pQuic,
}

fn main() -> Result<()> {
    // Two libraries bring a provider each, so none is the default by itself.
    rustls::crypto::ring::default_provider().install_default().ok().context("a provider of cryptography")?;
    match Arguments::parse().what {
        What::Dht { system, nodes, operations } => {
            let runtime = tokio::runtime::Runtime::new()?;
            let figures = runtime.block_on(dht(system, nodes, operations))?;
            println!("{}", serde_json::to_string(&figures)?);
            // Thousands of tasks need no orderly end.
            std::process::exit(0)
        }
        What::Table => {
            let mut lines = String::new();
            std::io::stdin().read_to_string(&mut lines)?;
            print!("{}", figures::table(&lines)?);
        }
        What::Relay { rounds } => {
            // One core, one thread: the other core is the relays'.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(relay::measure(rounds))?;
        }
        What::RelayServe => tokio::runtime::Runtime::new()?.block_on(relay::serve::run())?,
    }
    Ok(())
}

async fn dht(system: System, nodes: usize, count: usize) -> Result<Figures> {
    match system {
        System::Muster => measure(Muster::new(), "Muster".to_owned(), nodes, count).await,
        System::Mainline => measure(Mainline::default(), "mainline".to_owned(), nodes, count).await,
        System::Discv5 => measure(Ethereum::default(), "discv5".to_owned(), nodes, count).await,
        System::Libp2pTcp => {
            measure(Libp2p::<false>::new(), "libp2p-kad, TCP".to_owned(), nodes, count).await
        }
        System::Libp2pQuic => {
            measure(Libp2p::<true>::new(), "libp2p-kad, QUIC".to_owned(), nodes, count).await
        }
    }
}
