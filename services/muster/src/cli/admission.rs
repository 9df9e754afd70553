//! Who is let in, and who no longer: links, revocation, lost devices.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::selection::Label;

#[derive(Debug, Args)]
pub struct Login {
    /// The link; `-` reads it from stdin
    pub link: String,
    /// How to call this master here [default: its host name]
    #[arg(long)]
    pub name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum LinkCommand {
    /// Make a link that works once. It goes to stdout alone
    #[command(after_help = "Examples:\n  \
        muster link create\n  \
        muster link create --label role=till --ttl 7d\n  \
        muster link create --role operator --name ada")]
    Create(LinkCreate),
    /// All links, without their secrets
    List,
    /// An open link stops working; whom it enrolled stays
    Revoke {
        /// Name or id, as `muster link list` shows it
        link: String,
    },
}

#[derive(Debug, Args)]
pub struct LinkCreate {
    /// Whom it is for
    #[arg(long, value_enum, default_value_t)]
    pub role: LinkRole,
    /// Labels that the device will carry
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<Label>,
    /// How long it stays good, at most 30d
    #[arg(long, value_parser = humantime::parse_duration, default_value = "24h", value_name = "DURATION")]
    pub ttl: Duration,
    /// What to call it; a person's or CMDB's link becomes its name
    #[arg(long)]
    pub name: Option<String>,
    /// How many devices it may enroll: for an image
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    pub uses: u32,
    /// Only the device with this host name
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Only the device with this serial number, as its firmware says it
    #[arg(long, value_name = "SERIAL")]
    pub serial: Option<String>,
    /// Only this key: SHA-256 of its SubjectPublicKeyInfo, in hexadecimal
    #[arg(long, value_name = "HASH")]
    pub key: Option<String>,
    /// Each device waits for `muster requests approve`
    #[arg(long)]
    pub approve: bool,
    /// A password for SCEP or EST instead, for a device without our agent, with this common name
    #[arg(long, value_name = "COMMON_NAME", conflicts_with_all = ["name", "uses", "serial", "labels"])]
    pub challenge: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LinkRole {
    /// A device
    #[default]
    Node,
    /// Decides who commands; may all that an operator may
    Admin,
    /// Commands the fleet and lets devices in
    Operator,
    /// Sees everything, the audit log too, and changes nothing
    Auditor,
    /// A program that commands the fleet
    Cmdb,
}

#[derive(Debug, Args)]
pub struct Revoke {
    /// Id, the beginning of an id, or host name; or admins/NAME, operators/NAME, auditors/NAME, cmdbs/NAME
    pub name: String,
    /// Why
    #[arg(long, value_enum, default_value_t)]
    pub reason: RevokeReason,
    /// For the audit log
    #[arg(long, default_value = "", hide_default_value = true)]
    pub comment: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum RevokeReason {
    /// It may no longer do what it was admitted for
    #[default]
    Withdrawn,
    /// Somebody else has its key
    KeyCompromise,
    /// It works for somebody else now
    Moved,
    /// It is out of service
    Ceased,
}

#[derive(Debug, Args)]
pub struct Lost {
    /// Id, the beginning of an id, or host name
    pub node: String,
    /// Lock it whenever it comes back, within 30 days
    #[arg(long)]
    pub lock: bool,
    /// Erase it whenever it comes back, within 30 days
    #[arg(long)]
    pub erase: bool,
    /// Sign with this key of the operators' root
    #[arg(long, value_name = "FILE", env = "MUSTER_SIGN_WITH")]
    pub sign_with: Option<PathBuf>,
    /// For the audit log
    #[arg(long, default_value = "", hide_default_value = true)]
    pub comment: String,
}

#[derive(Debug, Args)]
pub struct Lock {
    /// Id, the beginning of an id, or host name
    pub node: String,
    /// Shown to whoever tries to log in
    #[arg(long, default_value = "", hide_default_value = true)]
    pub message: String,
    /// Let people in again
    #[arg(long)]
    pub release: bool,
    /// Sign with this key of the operators' root
    #[arg(long, value_name = "FILE", env = "MUSTER_SIGN_WITH")]
    pub sign_with: Option<PathBuf>,
}
