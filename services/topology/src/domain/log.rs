//! What happened in a task, in order: what WatchTask tells and ListTaskOutput keeps.

use muster_types::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use super::opaque::Opaque;
use super::target::{Ending, TargetState};
use super::task::TaskId;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogKind {
    State = 1,
    Output,
    Progress,
}

impl LogKind {
    pub fn number(self) -> i64 {
        self as i64
    }
}

/// A target as it stood after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub state: TargetState,
    pub ending: Option<Ending>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogBody {
    State(Standing),
    Output(Opaque),
    Progress(Opaque),
}

impl LogBody {
    pub fn kind(&self) -> LogKind {
        match self {
            Self::State(_) => LogKind::State,
            Self::Output(_) => LogKind::Output,
            Self::Progress(_) => LogKind::Progress,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub task: TaskId,
    pub node: NodeId,
    pub at: Timestamp,
    pub body: LogBody,
}
