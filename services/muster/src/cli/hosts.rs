//! Which hosts are there: lists, events, labels.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::selection::Selection;

#[derive(Debug, Args)]
pub struct NodesFilter {
    #[command(flatten)]
    pub selection: Selection,
    /// Only hosts in this state; may be given more than once
    #[arg(long = "state", value_enum)]
    pub states: Vec<NodeState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NodeState {
    Online,
    Offline,
    Unreachable,
    /// Enrolled, and not once attached since
    NeverSeen,
    /// Several devices have its identity
    Held,
}

#[derive(Debug, Args)]
pub struct Clone {
    /// Id, the beginning of an id, or host name
    pub node: String,
    /// This device becomes another host: it enrolls anew, by itself
    #[arg(long, value_name = "DEVICE", required_unless_present = "gone", conflicts_with = "gone")]
    pub renew: Option<String>,
    /// All but one of the devices are gone for good
    #[arg(long)]
    pub gone: bool,
}

#[derive(Debug, Args)]
pub struct Forget {
    /// Ids, beginnings of ids, or host names
    #[arg(required = true, value_name = "NODE")]
    pub nodes: Vec<String>,
    /// Go on when so many are forgotten within an hour that the master stops it
    #[arg(long)]
    pub confirm_mass_delete: bool,
}

#[derive(Debug, Args)]
pub struct Watch {
    /// Begin with every host as it is now
    #[arg(long, conflicts_with = "resume")]
    pub all: bool,
    /// Go on from where a watch ended; its JSON carries the token
    #[arg(long, value_name = "TOKEN")]
    pub resume: Option<String>,
}

#[derive(Debug, Args)]
pub struct Refresh {
    #[command(flatten)]
    pub selection: Selection,
    /// How long to wait for the hosts, at most 30s
    #[arg(long, value_parser = humantime::parse_duration, default_value = "5s", value_name = "DURATION")]
    pub timeout: Duration,
}

#[derive(Debug, Args)]
pub struct Ping {
    /// Id, the beginning of an id, or host name
    pub node: String,
    /// Ask so many times, once a second
    #[arg(long, short, default_value = "1", value_name = "NUMBER")]
    pub count: NonZeroU32,
    /// How long to wait for each answer, at most 30s
    #[arg(long, value_parser = humantime::parse_duration, default_value = "5s", value_name = "DURATION")]
    pub timeout: Duration,
}

#[derive(Debug, Args)]
pub struct LabelChange {
    /// Id, the beginning of an id, or host name
    pub node: String,
    /// KEY=VALUE sets, KEY- removes
    #[arg(required = true, value_name = "KEY=VALUE|KEY-")]
    pub changes: Vec<String>,
}
