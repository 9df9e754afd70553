//! What the journal takes and gives.

use std::fmt;

use bytes::Bytes;
use muster_types::Timestamp;

/// A UUIDv7, drawn by the master.
pub type TaskId = [u8; 16];

/// Bytes of an occurrence's name.
const OCCURRENCE_BYTES: usize = 128;

/// One execution of one task: what is never started twice.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskKey {
    pub task: TaskId,
    pub occurrence: String,
}

impl TaskKey {
    /// `None` if the id is not 16 bytes, or the occurrence's name too long.
    pub fn new(task: &[u8], occurrence: &str) -> Option<Self> {
        let task = task.try_into().ok()?;
        (occurrence.len() <= OCCURRENCE_BYTES).then(|| Self { task, occurrence: occurrence.to_owned() })
    }
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", uuid::Uuid::from_bytes(self.task))?;
        if self.occurrence.is_empty() { Ok(()) } else { write!(f, "/{}", self.occurrence) }
    }
}

impl fmt::Debug for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How far a task came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Delivered,
    Started,
    Finished,
    /// Its cancellation came before its order.
    Cancelled,
}

impl Stage {
    pub(crate) fn from_column(value: i64) -> Self {
        match value {
            1 => Self::Delivered,
            2 => Self::Started,
            4 => Self::Cancelled,
            // An unknown stage is a later version's: whatever it means, it is not "start it".
            _ => Self::Finished,
        }
    }

    pub(crate) fn column(self) -> i64 {
        match self {
            Self::Delivered => 1,
            Self::Started => 2,
            Self::Finished => 3,
            Self::Cancelled => 4,
        }
    }
}

/// A verified order with the bytes it came in.
#[derive(Debug, Clone)]
pub struct Offer {
    pub key: TaskKey,
    /// The encoded `TaskOffer`.
    pub bytes: Bytes,
    /// Reports made with the admission: DELIVERED, and STARTED if it starts at once, or one that refuses.
    pub reports: Vec<Report>,
}

/// The journal's answer to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    New,
    Known(Stage),
}

/// One signed report of one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub key: TaskKey,
    pub sequence: u64,
    /// The wire's number of its traffic class.
    pub class: i32,
    /// The encoded envelope.
    pub envelope: Bytes,
    /// It finishes its task.
    pub terminal: bool,
    /// Of the trace it belongs to; not kept.
    pub traceparent: String,
}

/// What an earlier life of the agent left behind.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Started, and no result: lost. With the next free sequence number.
    pub interrupted: Vec<(TaskKey, u64)>,
    /// Accepted, not started: encoded offers in order of arrival.
    pub waiting: Vec<(TaskKey, u64, Bytes)>,
}

/// Something to tell the master until it acknowledged it.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub id: String,
    pub made: Timestamp,
    /// The encoded `UpstreamItem`.
    pub body: Bytes,
}
