//! A task: what is to be done, on which frozen set of hosts, for how long.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use muster_types::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::opaque::Opaque;

/// Lifetime of a task that names none (contract of CreateTaskRequest).
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(3_600);

/// How long the master waits for the word of a host that may hold the task, after the task expired or was
/// cancelled: an offer without DELIVERED is repeated after as long.
pub const WORD_AFTER: Duration = Duration::from_secs(30);

/// How long after a task's end a host that had it may still report; laptops come back after a weekend.
pub const REPORT_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Types of tasks that a lost device is handed, and nothing else.
pub const OF_THE_LOST: [&str; 2] = ["lock", "erase"];

/// UUIDv7: rises with the time of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub Uuid);

impl TaskId {
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TaskId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// What becomes of hosts that are away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OfflinePolicy {
    Queue,
    Skip,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub id: TaskId,
    /// The specification as it stands in the signed orders.
    pub spec: Opaque,
    pub kind: String,
    pub offline: OfflinePolicy,
    pub created: Timestamp,
    pub expires: Timestamp,
    pub creator: String,
    pub display_name: String,
    pub target_count: u32,
    /// W3C trace context of its creation.
    pub traceparent: String,
    #[serde(default)]
    pub approval: Approval,
}

/// Whether a second person must agree before hosts hear of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    #[default]
    NotWanted,
    Wanted,
    Given {
        by: String,
        at: Timestamp,
    },
}

/// Why the master ends a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MasterEnding {
    Away,
    LifetimeOver,
    CancelledBeforeDelivery,
    NoWord,
    NodeDeleted,
}

impl MasterEnding {
    pub fn code(self) -> &'static str {
        match self {
            Self::Away => "NODE_AWAY",
            Self::LifetimeOver => "LIFETIME_OVER",
            Self::CancelledBeforeDelivery => "CANCELLED_BEFORE_DELIVERY",
            Self::NoWord => "NO_WORD_FROM_NODE",
            Self::NodeDeleted => "NODE_DELETED",
        }
    }

    pub fn reason(self) -> &'static str {
        match self {
            Self::Away => "the node was away and the task skips those",
            Self::LifetimeOver => "the task's lifetime ended before the node took it",
            Self::CancelledBeforeDelivery => "the task was cancelled before the node took it",
            Self::NoWord => "the node took the task and never said how it ended",
            Self::NodeDeleted => "the node was deleted",
        }
    }
}
