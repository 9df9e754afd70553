//! What can be typed of enrollment requests, the certificate authority and the audit log.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub enum RequestsCommand {
    /// All of them, the waiting ones first
    List,
    /// Let one go on
    Approve {
        /// Name or id, as `muster requests list` shows it
        request: String,
    },
    /// End one
    Deny {
        /// Name or id, as `muster requests list` shows it
        request: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Roots, authorities, and requests that wait for a signature, in PEM
    Show,
    /// A new authority, or new signing keys, beside the old; both are trusted, and nothing stops
    Rotate {
        #[arg(value_enum)]
        tier: CaTier,
    },
    /// New signing keys in place of leaked ones: nothing that those signed, at any time, counts any more
    Withdraw {
        /// What the leaked keys signed; `muster ca rotate signers` replaces keys that are only old
        #[arg(value_enum, required = true)]
        purposes: Vec<SignerPurpose>,
    },
    /// Take in what a root that is kept elsewhere has signed, in PEM
    Import { file: PathBuf },
    /// A root's key and certificate, for a computer that stays off the network
    MakeRoot {
        /// Where the certificate goes
        #[arg(long, value_name = "FILE", default_value = "root.pem")]
        out: PathBuf,
        /// Where the key goes
        #[arg(long, value_name = "FILE", default_value = "root.key")]
        key: PathBuf,
    },
    /// Sign a master's requests (stdin) by a root that is here; root and certificates go to stdout
    Sign {
        #[arg(long, value_name = "FILE", default_value = "root.pem")]
        root: PathBuf,
        #[arg(long, value_name = "FILE", default_value = "root.key")]
        key: PathBuf,
        /// Vouch for this root as well: while it is replaced by ours, or the other way round
        #[arg(long, value_name = "FILE")]
        old_root: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CaTier {
    Issuing,
    Root,
    /// The keys that sign tasks, tickets and receipts
    Signers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SignerPurpose {
    /// Orders and cancellations: hosts refuse those that wait, which are to be made again
    Tasks,
    /// Nodes' keys, uptimes, revocations, relays: devices fetch new ones
    Tickets,
    /// Topology's word on who is shown, and the audit log's ends
    Receipts,
}

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// The log as JSON lines, and at the end the signed ends of its chains
    Export {
        /// Only what came after this revision
        #[arg(long, default_value_t = 0, value_name = "REVISION")]
        after: u64,
    },
    /// Whether an export, from its first entry, is whole and unchanged
    Verify { file: PathBuf },
}
