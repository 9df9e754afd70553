//! What the event feed tells.

use std::time::Duration;

use muster_types::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use super::node::{Node, Presence};
use super::task::TaskId;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventBody {
    NodeChanged {
        node: Box<Node>,
        place: String,
        changed: Vec<String>,
        previous: Option<Presence>,
        reason: String,
        deleted: bool,
    },
    TaskChanged {
        task: TaskId,
    },
    OperationFailed {
        node: NodeId,
        operation: String,
        reason_code: String,
        reason: String,
    },
    Disconnection {
        node: NodeId,
        begin: Timestamp,
        duration: Duration,
        /// As in the contract.
        reason: i32,
        detail: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    pub at: Timestamp,
    pub body: EventBody,
    /// Two events of one key are one: its sender repeated it.
    pub key: Option<String>,
}
