//! The operators' own authority, kept offline.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum OperatorRootCommand {
    /// Make an operators' root. Keep its folder offline
    Init {
        /// Its folder
        dir: PathBuf,
    },
    /// Make a key that signs tasks for one operator
    Sign(OperatorRootSign),
    /// Say whom devices shall believe, signed by the root
    Policy(OperatorRootPolicy),
    /// Let the master of this host hand a policy to devices
    Install {
        /// As `operator-root policy` wrote it
        policy: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct OperatorRootSign {
    /// The root's folder
    pub dir: PathBuf,
    /// Of the operator
    #[arg(long)]
    pub name: String,
    /// Key and certificate go here
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// How long it is good
    #[arg(long, value_parser = humantime::parse_duration, default_value = "365d", value_name = "DURATION")]
    pub ttl: Duration,
}

#[derive(Debug, Args)]
pub struct OperatorRootPolicy {
    /// The root's folder
    pub dir: PathBuf,
    /// The network's id, or any of its enrollment links
    #[arg(long, value_name = "ID|LINK")]
    pub network: String,
    /// Devices refuse tasks that no operator signed
    #[arg(long = "require")]
    pub require: bool,
    /// An operator's key that counts no longer; may be given more than once
    #[arg(long, value_name = "KEY-ID")]
    pub withdraw: Vec<String>,
    /// The policy goes here
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}
