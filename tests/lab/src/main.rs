//! `muster-lab`: builds the lab, keeps it, and looks inside.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use muster_lab::program::Binaries;
use muster_lab::roster::RunningLab;
use muster_lab::scenario::{GATHERING_LIMIT, drop_udp};
use muster_lab::stage::{self, Stage};
use muster_lab::{Family, Fleet, Lab};

/// A whole Muster network on one computer: places behind routers, hosts, and a master.
#[derive(Debug, Parser)]
#[command(name = "muster-lab", version)]
struct Cli {
    /// The directory of the lab to look into, if several run.
    #[arg(long, global = true)]
    lab: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the lab and keep it until Ctrl-C.
    Up(Up),
    /// Run a command on one of the lab's machines; without one, a shell.
    Enter {
        machine: String,
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// List the lab's machines and what runs on them.
    Ps,
}

#[derive(Debug, Args)]
struct Up {
    /// How many places, each behind a router of its own; the first two have the same private prefix.
    #[arg(long, default_value_t = 4)]
    places: usize,
    /// How many hosts in each place.
    #[arg(long, default_value_t = 6)]
    agents: usize,
    /// What the places speak.
    #[arg(long, value_enum, default_value_t = Family::V4)]
    family: Family,
    /// Let every host's own firewall drop UDP, so that TCP has to do.
    #[arg(long)]
    tcp_only: bool,
    /// Only the network and its machines, without a master and agents.
    #[arg(long)]
    bare: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("muster-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let cli = Cli::parse();
    match cli.command {
        Command::Up(up) => match stage::entered() {
            Some(_) => stage::perform(keep(up)).map(|()| ExitCode::SUCCESS),
            None => {
                let arguments: Vec<_> = std::env::args_os().skip(1).collect();
                let status = Stage::enter(&arguments)?.wait()?;
                Ok(ExitCode::from(status.code().map_or(1, |code| code as u8)))
            }
        },
        Command::Enter { machine, command } => enter(&running(cli.lab)?, &machine, command),
        Command::Ps => ps(&running(cli.lab)?),
    }
}

async fn keep(up: Up) -> Result<()> {
    let started = std::time::Instant::now();
    let lab = Lab::builder().places(up.places).agents(up.agents).family(up.family).build().await?;
    if up.tcp_only {
        drop_udp(&lab).await?;
    }
    println!("{} places with {} hosts each, built in {:.1?}.", up.places, up.agents, started.elapsed());
    let directory = lab.directory().to_owned();
    let _kept = match up.bare {
        true => (Some(lab), None),
        false => (None, Some(gather(lab).await?)),
    };
    println!("Look inside from another terminal:");
    println!("  muster-lab ps");
    println!("  muster-lab enter p1a1 -- ip address");
    if !up.bare {
        println!("  muster-lab enter master -- {} topology", Binaries::find()?.muster.display());
        println!("  muster-lab enter p1a1 -- {} status", Binaries::find()?.agent.display());
    }
    println!("Files and logs: {}. Ctrl-C ends everything.", directory.display());
    std::future::pending().await
}

async fn gather(lab: Lab) -> Result<Fleet> {
    let started = std::time::Instant::now();
    let fleet = Fleet::start(lab).await?;
    println!("Master and agents run after {:.1?}; waiting until the fleet is whole.", started.elapsed());
    match fleet.until_whole(GATHERING_LIMIT).await {
        Ok(_) => println!("The fleet is whole after {:.1?}.", started.elapsed()),
        Err(error) => eprintln!("The fleet is not whole: {error:#}"),
    }
    Ok(fleet)
}

fn running(directory: Option<PathBuf>) -> Result<RunningLab> {
    directory.map_or_else(RunningLab::find, RunningLab::open)
}

fn enter(lab: &RunningLab, machine: &str, mut command: Vec<String>) -> Result<ExitCode> {
    if command.is_empty() {
        command.push(std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned()));
    }
    Err(lab.enter(machine, &command)?.exec().into())
}

fn ps(lab: &RunningLab) -> Result<ExitCode> {
    println!("{:<10} {:<12} {:<36} PROGRAMS", "MACHINE", "PLACE", "ADDRESSES");
    for (name, entry) in &lab.roster.machines {
        let addresses: Vec<_> = entry.addresses.iter().map(ToString::to_string).collect();
        let programs: Vec<_> =
            lab.programs(name)?.into_iter().map(|(process, line)| format!("{process} {line}")).collect();
        println!("{name:<10} {:<12} {:<36} {}", entry.place, addresses.join(" "), programs.join("; "));
    }
    Ok(ExitCode::SUCCESS)
}
