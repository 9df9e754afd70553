//! What can be asked of the registry of super nodes.

use clap::Subcommand;

/// Global super nodes.
#[derive(Debug, Subcommand)]
pub enum GsnCommand {
    /// Every host that offered to be one, how it stands, and why
    List {
        /// Only those in this state
        #[arg(long, value_enum)]
        state: Option<GsnState>,
    },
}

/// How a candidate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum GsnState {
    Unwilling,
    Unproven,
    Spare,
    Serving,
    Gone,
}
