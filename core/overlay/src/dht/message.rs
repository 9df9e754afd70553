//! What nodes of the table ask and answer each other. Every request is idempotent, fits one datagram and has an answer.

use std::time::Duration;

use muster_types::Key;

use super::record::{Kind, Record};

/// Contacts in one answer at most; the shell sends as many of them as fit, the first first.
pub const CONTACTS: usize = 20;
/// Digests in one offer: 8 bytes each in a datagram of 1,200.
pub const OFFERED: usize = 128;

/// Who speaks, as its session proved, and what it said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender<C> {
    pub contact: C,
    pub service: Service,
}

/// What a node does for the table; said in every message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Asks only.
    Client,
    /// Serves because there are few who must.
    Volunteer,
    /// Serves by its office: LSN, GSN or bootstrap node.
    Office,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    Ping,
    FindNode {
        target: Key,
    },
    FindValue {
        key: Key,
        kind: Kind,
    },
    /// Keep this. `cached`: only a copy on the way to those who hold it, not one of them.
    Store {
        record: Record,
        cached: bool,
    },
    /// I hold the records with these digests; which do you lack?
    Offer {
        digests: Vec<u64>,
    },
    /// Tell me for so long when this changes.
    Listen {
        key: Key,
        kind: Kind,
        lease: Duration,
    },
    /// What was listened for has changed.
    Changed {
        record: Record,
    },
    /// The sender leaves or goes to sleep: do not hand it on.
    Parting,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Answer<C> {
    /// To `Ping`, `Changed` and `Parting`. How many serve by their office, as far as the answerer can tell.
    Pong {
        offices: u32,
    },
    /// The closest that the answerer knows, closest first.
    Nodes {
        closest: Vec<C>,
    },
    /// Newest first.
    Value {
        records: Vec<Record>,
        closest: Vec<C>,
    },
    Stored,
    /// The digests of an offer that the answerer lacks.
    Wanted {
        digests: Vec<u64>,
    },
    Listening {
        lease: Duration,
    },
    Refused(Refusal),
}

/// Why a request was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refusal {
    #[error("the node asked does not serve the table")]
    NotServing,
    #[error("the record is larger than {} bytes", super::record::RECORD_BYTES)]
    TooLarge,
    #[error("the record has expired")]
    Expired,
    #[error("a newer record of this publisher is known")]
    Older,
    #[error("the publisher's share, the set or the store of the node asked is full")]
    Full,
}
