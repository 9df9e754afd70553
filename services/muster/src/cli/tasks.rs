//! What hosts are to do, and what became of it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::selection::{Label, Selection};

#[derive(Debug, Args)]
pub struct Tasks {
    /// Only those that have not ended everywhere
    #[arg(long)]
    pub running: bool,
    /// How many to show
    #[arg(long, default_value_t = 20)]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct Task {
    /// Id of the task, or its beginning
    pub task: String,
    /// What the hosts wrote, as far as it is kept
    #[arg(long, conflicts_with = "follow")]
    pub logs: bool,
    /// Watch it until it has ended everywhere
    #[arg(long)]
    pub follow: bool,
}

#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub selection: Selection,
    #[command(flatten)]
    pub patience: Patience,
    /// Ends the command on a host, with all it started, after this long
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub timeout: Option<Duration>,
    /// Send this file and run it with its #! interpreter, else /bin/sh; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Run as this user of the host [default: as the agent, which is root]
    #[arg(long)]
    pub user: Option<String>,
    /// Set in the command's otherwise clean environment
    #[arg(long = "env", value_name = "KEY=VALUE")]
    pub environment: Vec<Label>,
    /// One after another with other exclusive tasks of a host, as installations want it
    #[arg(long)]
    pub exclusive: bool,
    /// Only the hosts can read the command, only the master what they write
    #[arg(long)]
    pub confidential: bool,
    /// Sign with this key of the operators' root, as networks that require it want
    #[arg(long, value_name = "FILE", env = "MUSTER_SIGN_WITH")]
    pub sign_with: Option<PathBuf>,
    /// Say what would run, and where, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Leave at once; `muster task ID --follow` watches it later
    #[arg(long)]
    pub detach: bool,
    /// The command with its arguments, or the script's arguments
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// What becomes of hosts that are away.
#[derive(Debug, Clone, Args)]
pub struct Patience {
    /// Hosts that are away do it when they come back within this time, at most 30d [default: 1h]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION", conflicts_with = "skip_offline")]
    pub queue_for: Option<Duration>,
    /// Leave out hosts that are away
    #[arg(long)]
    pub skip_offline: bool,
}

#[derive(Debug, Args)]
pub struct Inventory {
    #[command(flatten)]
    pub selection: Selection,
    #[command(flatten)]
    pub patience: Patience,
    /// Only this part; may be given more than once
    #[arg(long = "section", value_enum)]
    pub sections: Vec<Section>,
    /// One document a line, as GLPI's inventory format has it: for GLPI itself and for whatever else takes it
    #[arg(long)]
    pub glpi: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Section {
    Host,
    Hardware,
    Packages,
}
