//! Tasks: from a signed order to signed reports.
//!
//! An offer goes through [`admission`] (genuine, ours, in time, understood), the journal (never twice), a lane
//! (`lanes`) and its [`TaskType`]; what happens goes out through a [`reporter::Reporter`]. [`engine`] holds the loop.

pub mod admission;
pub mod engine;
pub mod erase;
mod execution;
pub mod inventory;
mod lanes;
pub mod lock;
mod output;
mod progress;
pub mod reporter;
pub mod run;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use muster_proto::task::v1::{Content, Finished, TaskState};
use tokio::sync::watch;

pub use engine::{Engine, Tasks};
use reporter::Reporter;

/// A kind of work. New kinds are added to the [`Registry`]; nothing else knows them.
pub trait TaskType: Send + Sync {
    /// As in `TaskSpec.type`.
    fn name(&self) -> &'static str;

    /// Limit of one execution whose order names none.
    fn default_timeout(&self) -> Duration;

    /// Understands the arguments, before anything is accepted.
    ///
    /// # Errors
    /// What is wrong with them, for the person who sent them.
    fn prepare(&self, arguments: Bytes) -> Result<Box<dyn Job>, String>;
}

/// One execution, understood and ready to begin.
pub trait Job: Send {
    /// Does the work. It ends soon after [`Context::stop`] says so.
    fn run<'a>(self: Box<Self>, context: &'a mut Context) -> BoxFuture<'a, Outcome>;
}

/// What an execution has to work with.
pub struct Context {
    /// Unique among all executions of all agents on this host; fit for a file's name.
    pub name: String,
    pub reporter: Reporter,
    pub stop: watch::Receiver<Option<Stop>>,
}

impl Context {
    /// Completes when the execution must end.
    pub async fn stopped(&mut self) -> Stop {
        stopped(&mut self.stop).await
    }
}

async fn stopped(stop: &mut watch::Receiver<Option<Stop>>) -> Stop {
    match stop.wait_for(Option::is_some).await {
        Ok(reason) => reason.unwrap_or(Stop::Shutdown),
        // Nobody is left to say anything else.
        Err(_) => Stop::Shutdown,
    }
}

/// Why an execution must end before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    TimedOut,
    Cancelled,
    /// The agent ends.
    Shutdown,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    pub finished: Finished,
}

impl Outcome {
    pub fn succeeded() -> Self {
        Self { finished: Finished { state: TaskState::Succeeded.into(), ..Finished::default() } }
    }

    /// Anything but success, with its reason for people and for programs.
    pub fn ended(state: TaskState, reason_code: &'static str, reason: impl Into<String>) -> Self {
        let reason_code = reason_code.to_owned();
        let reason = reason.into();
        Self { finished: Finished { state: state.into(), reason, reason_code, ..Finished::default() } }
    }

    pub fn failed(reason_code: &'static str, reason: impl Into<String>) -> Self {
        Self::ended(TaskState::Failed, reason_code, reason)
    }

    pub fn stopped(stop: Stop) -> Self {
        match stop {
            Stop::TimedOut => Self::ended(
                TaskState::TimedOut,
                "TIMED_OUT",
                "its time was over; it and all it started were killed",
            ),
            Stop::Cancelled => Self::ended(
                TaskState::Cancelled,
                "CANCELLED",
                "it was cancelled; it and all it started were killed",
            ),
            Stop::Shutdown => Self::failed(
                "AGENT_STOPPED",
                "the agent was stopped while it ran; it and all it started were killed",
            ),
        }
    }

    pub fn with_result(mut self, result: Content) -> Self {
        self.finished.result = Some(result);
        self
    }
}

/// The kinds of work that this agent knows.
#[derive(Clone, Default)]
pub struct Registry(BTreeMap<&'static str, Arc<dyn TaskType>>);

impl Registry {
    pub fn with(mut self, kind: impl TaskType + 'static) -> Self {
        self.0.insert(kind.name(), Arc::new(kind));
        self
    }

    pub fn find(&self, name: &str) -> Option<&Arc<dyn TaskType>> {
        self.0.get(name)
    }

    /// Names, in order; they are also the agent's capabilities.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }
}
