//! What can be typed to keep a master: founding it, looking after it, bringing it back.

use std::path::PathBuf;

use clap::Args;

use crate::config::Settings;
use crate::target::Target;

#[derive(Debug, Args)]
pub struct Doctor {
    /// Ask this address instead, as a device would
    #[arg(long, value_name = "HOST:PORT")]
    pub master: Option<String>,
    /// The services to be found at --master
    #[arg(long, value_delimiter = ',', default_value = "auth,topology", requires = "master")]
    pub services: Vec<String>,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct Backup {
    /// A folder that holds no backup yet
    pub folder: PathBuf,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// What `muster backup` made
    #[arg(required_unless_present = "reopen")]
    pub folder: Option<PathBuf>,
    /// The database was restored by other means: only open the new epoch
    #[arg(long, conflicts_with = "folder")]
    pub reopen: bool,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct Init {
    #[command(flatten)]
    pub settings: Settings,
    /// The root is kept elsewhere: make the authorities' keys, and print what is to be signed there
    #[arg(long, conflicts_with = "import")]
    pub external_root: bool,
    /// Take in the root and what it signed, in PEM
    #[arg(long, value_name = "FILE")]
    pub import: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Invite {
    /// The service that is to join
    pub service: Target,
    #[command(flatten)]
    pub settings: Settings,
}
