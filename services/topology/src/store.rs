//! The truth: what is kept of nodes, cells, tasks and events, and the one transaction that changes it.
//!
//! Rows carry revisions: a write names the revision it read, and loses with [`StoreError::Conflict`] when another
//! was faster. Feeds are read in commit order, from a [`Position`] on. Replicas hold leases.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use muster_types::{NodeId, SubnetKey, Timestamp};

use crate::domain::attachment::Attachment;
use crate::domain::cell::{Cell, CellId};
use crate::domain::deed::Deed;
use crate::domain::event::EventBody;
use crate::domain::filter::NodeFilter;
use crate::domain::ledger::{Changes, Request};
use crate::domain::log::LogBody;
use crate::domain::node::Node;
use crate::domain::opaque::Opaque;
use crate::domain::table::Stored;
use crate::domain::target::{Target, TargetState};
use crate::domain::task::{Task, TaskId};
use crate::domain::tasks::Overdue;

pub mod postgres;
pub mod sqlite;

/// Rows of one kind that one read returns at most.
pub const READ_ROWS: i64 = 1_000;

/// What is kept, and for how long (design, sections 3 and 9).
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    pub outputs: Duration,
    pub output_bytes: u64,
    pub tasks: Duration,
    pub events: Duration,
    /// Rows removed by one transaction, so that no writer waits long.
    pub batch: i64,
}

impl Default for Retention {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        Self { outputs: days(7), output_bytes: 1 << 30, tasks: days(90), events: days(7), batch: 500 }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("another writer was faster")]
    Conflict,
    #[error("the store failed: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the store's schema cannot be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("the store holds what this version cannot read: {0}")]
    Corrupt(String),
}

/// A place in a feed. On PostgreSQL the transaction comes first: numbers are drawn before commits, and a reader
/// that went by numbers alone would pass one that commits late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    pub transaction: i64,
    pub number: i64,
}

/// A task, where it stands.
#[derive(Debug, Clone)]
pub struct TaskSummary {
    pub task: Task,
    pub cancelled: Option<Timestamp>,
    pub cancellation: Opaque,
    pub open: u32,
    pub counts: BTreeMap<TargetState, u32>,
}

/// Which past the event feed has. A restored store opens another epoch: tokens of an earlier one lead nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feed {
    pub epoch: i64,
    /// Events up to here have been purged.
    pub forgotten: Position,
}

/// What happened in a task behind some place, and how it stood at the same moment.
#[derive(Debug, Clone)]
pub struct TaskLog {
    /// Targets that have not ended.
    pub open: u32,
    /// The last committed entry, be it shown yet or not.
    pub end: Position,
    pub rows: Vec<TaskHappening>,
    /// Host names of the rows' nodes; of those that were deleted none.
    pub host_names: BTreeMap<NodeId, String>,
}

#[derive(Debug, Clone)]
pub struct TaskHappening {
    pub position: Position,
    pub node: NodeId,
    pub at: Timestamp,
    pub body: LogBody,
}

#[derive(Debug, Clone)]
pub struct Event {
    pub position: Position,
    pub at: Timestamp,
    pub body: EventBody,
}

/// Deeds that wait for the audit log, some 10 MB of them. Beyond that what hosts did is counted, and people have to wait: a
/// busy day of a large network, or auth away for a weekend.
pub const DEEDS: i64 = 10_000;

/// A deed that the audit log does not have yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingDeed {
    pub number: i64,
    /// UUID; the log takes each once.
    pub id: String,
    pub deed: Deed,
}

/// What is to go down one carrier's stream, as far as the store knows; each list holds [`READ_ROWS`] at most.
#[derive(Debug, Clone, Default)]
pub struct Due {
    /// Queued targets of living tasks whose nodes are online under this carrier.
    pub offers: Vec<Offer>,
    /// Cancelled tasks that have not ended on nodes under this carrier.
    pub cancellations: Vec<(TaskId, NodeId)>,
}

/// An order that waits for a node whose presence comes by one carrier.
#[derive(Debug, Clone)]
pub struct Offer {
    pub task: TaskId,
    pub part: u32,
    pub node: NodeId,
    pub traceparent: String,
}

/// A stream whose replica's lease has ended.
#[derive(Debug, Clone)]
pub struct OrphanedStream {
    pub node: NodeId,
    pub replica: String,
    pub renewed: Timestamp,
}

#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// All of it, durably, or nothing.
    async fn commit(&self, changes: &Changes, now: Timestamp) -> Result<(), StoreError>;

    async fn nodes_by_id(&self, ids: &[NodeId]) -> Result<Vec<Stored<Node>>, StoreError>;
    async fn nodes_by_carrier(&self, carriers: &[NodeId]) -> Result<Vec<Stored<Node>>, StoreError>;
    /// Nodes that bear one of these host names, two of each name at most: the second tells that it is ambiguous.
    async fn ids_by_host_name(&self, names: &[&str]) -> Result<Vec<(String, NodeId)>, StoreError>;
    /// In the order of ids, at most [`READ_ROWS`].
    async fn nodes_after(&self, after: Option<NodeId>) -> Result<Vec<Stored<Node>>, StoreError>;

    /// Nodes that a filter may mean, as [`Self::nodes_after`]: all it means are among them, but for the ids it names.
    /// `cells` are those that bear one of the filter's places as a name.
    async fn nodes_like(
        &self,
        filter: &NodeFilter,
        cells: &[CellId],
        after: Option<NodeId>,
    ) -> Result<Vec<Stored<Node>>, StoreError>;

    /// How the database does [`Self::nodes_like`], in its own words.
    async fn plan(&self, filter: &NodeFilter, cells: &[CellId]) -> Result<Vec<String>, StoreError>;

    async fn cells(&self) -> Result<Vec<Stored<Cell>>, StoreError>;
    async fn cells_by_id(&self, ids: &[CellId]) -> Result<Vec<Stored<Cell>>, StoreError>;
    async fn cells_by_lineage(&self, lineages: &[u64]) -> Result<Vec<Stored<Cell>>, StoreError>;
    async fn cells_by_key(&self, keys: &[SubnetKey]) -> Result<Vec<Stored<Cell>>, StoreError>;
    async fn count_nodes(&self) -> Result<usize, StoreError>;
    async fn count_nodes_of(&self, cell: CellId) -> Result<usize, StoreError>;

    async fn attachments(&self, nodes: &[NodeId]) -> Result<Vec<Stored<Attachment>>, StoreError>;
    /// Lost streams whose nodes are not judged yet.
    async fn unsettled(&self) -> Result<Vec<NodeId>, StoreError>;
    async fn orphaned(&self, now: Timestamp) -> Result<Vec<OrphanedStream>, StoreError>;
    async fn renew_lease(&self, replica: &str, now: Timestamp, until: Timestamp) -> Result<(), StoreError>;
    async fn end_lease(&self, replica: &str) -> Result<(), StoreError>;

    /// Other replicas whose leases live, and when they were renewed.
    async fn others(&self, replica: &str, now: Timestamp) -> Result<Vec<(String, Timestamp)>, StoreError>;
    /// Takes or prolongs the lease on what one replica does for all; `false` while another holds it.
    async fn take_job(
        &self,
        job: &str,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError>;

    async fn feed(&self) -> Result<Feed, StoreError>;
    /// After a restore, before anything serves: leases end, and `token`, which nobody knows, becomes that of every
    /// stream. Answers the new epoch.
    async fn open_epoch(&self, token: &Opaque, now: Timestamp) -> Result<i64, StoreError>;

    async fn request(&self, request: &Request) -> Result<Option<TaskId>, StoreError>;
    async fn task(&self, id: TaskId) -> Result<Option<TaskSummary>, StoreError>;
    /// Newest first, before the given one.
    async fn tasks_before(
        &self,
        before: Option<TaskId>,
        only_running: bool,
        limit: i64,
    ) -> Result<Vec<TaskSummary>, StoreError>;
    async fn order(&self, task: TaskId, part: u32) -> Result<Option<Opaque>, StoreError>;
    /// Those of these nodes.
    async fn targets(&self, task: TaskId, nodes: &[NodeId]) -> Result<Vec<Stored<Target>>, StoreError>;
    async fn targets_after(
        &self,
        task: TaskId,
        after: Option<NodeId>,
        limit: i64,
    ) -> Result<Vec<Target>, StoreError>;
    async fn open_targets_of(&self, node: NodeId) -> Result<Vec<Stored<Target>>, StoreError>;
    /// The node's targets, newest task first.
    async fn targets_of(
        &self,
        node: NodeId,
        before: Option<TaskId>,
        limit: i64,
    ) -> Result<Vec<Target>, StoreError>;
    async fn due(&self, carrier: NodeId, now: Timestamp) -> Result<Due, StoreError>;
    /// Whose streams lead to open targets of a task.
    async fn carriers_of(&self, task: TaskId) -> Result<Vec<NodeId>, StoreError>;
    async fn overdue(&self, now: Timestamp, limit: i64) -> Result<Vec<Overdue>, StoreError>;

    /// Of one snapshot: what ended the task is behind `after` or among the rows, unless it lies beyond `limit` or the horizon.
    async fn task_log(
        &self,
        task: TaskId,
        after: Position,
        limit: i64,
    ) -> Result<Option<TaskLog>, StoreError>;
    async fn outputs(
        &self,
        task: TaskId,
        node: NodeId,
        after: Position,
        limit: i64,
    ) -> Result<Vec<TaskHappening>, StoreError>;

    async fn events(&self, after: Position, limit: i64) -> Result<Vec<Event>, StoreError>;
    /// How far another service's feed was read; 0 of one that was not.
    async fn cursor(&self, feed: &str) -> Result<u64, StoreError>;
    async fn keep_cursor(&self, feed: &str, position: u64) -> Result<(), StoreError>;

    /// What the audit log is still to be told, in the order of commits.
    async fn deeds(&self, limit: i64) -> Result<Vec<WaitingDeed>, StoreError>;
    async fn forget_deeds(&self, numbers: &[i64]) -> Result<(), StoreError>;

    async fn waiting_deeds(&self) -> Result<i64, StoreError>;
    /// Puts one deed in the place of those that found no room, and says how many these were.
    async fn confess_omissions(&self, now: Timestamp) -> Result<u64, StoreError>;

    async fn events_end(&self) -> Result<Position, StoreError>;

    /// Removes one batch of what is too old or too much, and says how many rows.
    async fn purge(&self, now: Timestamp, retention: Retention) -> Result<u64, StoreError>;
}
