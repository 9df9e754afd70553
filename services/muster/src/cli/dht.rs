//! What can be asked of the hash table.

use clap::Subcommand;

/// The hash table's own commands.
#[derive(Debug, Subcommand)]
pub enum DhtCommand {
    /// What stands under a key
    Get {
        key: String,
        #[arg(long, value_enum, default_value_t = DhtKind::Opaque)]
        kind: DhtKind,
    },
    /// Store a value, published by a bootstrap node for a day
    Put {
        key: String,
        /// Text; `-` reads it from stdin. Less than about 550 bytes fit beside signature and ticket
        value: String,
    },
    /// The nodes closest to a key
    Find { key: String },
    /// How the bootstrap nodes are doing
    Stats,
    /// Walk the whole table now: its size, and how well its nodes know each other
    Crawl,
}

/// Kinds of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DhtKind {
    Contact,
    Subnet,
    Holders,
    NodeKeys,
    Root,
    Gsn,
    Revocations,
    Opaque,
}
