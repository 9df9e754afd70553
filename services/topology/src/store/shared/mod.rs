//! Queries that both databases understand, compiled once for each: `super` says which, and in what they differ.

mod batch;
mod decode;
mod deeds;
mod epoch;
mod feeds;
mod fleet;
mod purge;
mod select;
mod tasks;
mod write;

use async_trait::async_trait;
use muster_types::{NodeId, SubnetKey, Timestamp};

use super::ThisStore;
use crate::domain::attachment::Attachment;
use crate::domain::cell::{Cell, CellId};
use crate::domain::filter::NodeFilter;
use crate::domain::ledger::{Changes, Request};
use crate::domain::node::Node;
use crate::domain::opaque::Opaque;
use crate::domain::table::Stored;
use crate::domain::target::Target;
use crate::domain::task::TaskId;
use crate::domain::tasks::Overdue;
use crate::store::{
    Due, Event, Feed, OrphanedStream, Position, Retention, Store, StoreError, TaskHappening, TaskLog,
    TaskSummary, WaitingDeed,
};

#[async_trait]
impl Store for ThisStore {
    async fn commit(&self, changes: &Changes, now: Timestamp) -> Result<(), StoreError> {
        self.write(changes, now).await
    }

    async fn nodes_by_id(&self, ids: &[NodeId]) -> Result<Vec<Stored<Node>>, StoreError> {
        self.read_nodes_by_id(ids).await
    }

    async fn nodes_by_carrier(&self, carriers: &[NodeId]) -> Result<Vec<Stored<Node>>, StoreError> {
        self.read_nodes_by_carrier(carriers).await
    }

    async fn ids_by_host_name(&self, names: &[&str]) -> Result<Vec<(String, NodeId)>, StoreError> {
        self.read_ids_by_host_name(names).await
    }

    async fn nodes_after(&self, after: Option<NodeId>) -> Result<Vec<Stored<Node>>, StoreError> {
        self.read_nodes_after(after).await
    }

    async fn nodes_like(
        &self,
        filter: &NodeFilter,
        cells: &[CellId],
        after: Option<NodeId>,
    ) -> Result<Vec<Stored<Node>>, StoreError> {
        self.read_nodes_like(filter, cells, after).await
    }

    async fn plan(&self, filter: &NodeFilter, cells: &[CellId]) -> Result<Vec<String>, StoreError> {
        self.read_plan(filter, cells).await
    }

    async fn cells(&self) -> Result<Vec<Stored<Cell>>, StoreError> {
        self.read_cells().await
    }

    async fn cells_by_id(&self, ids: &[CellId]) -> Result<Vec<Stored<Cell>>, StoreError> {
        self.read_cells_by_id(ids).await
    }

    async fn cells_by_lineage(&self, lineages: &[u64]) -> Result<Vec<Stored<Cell>>, StoreError> {
        self.read_cells_by_lineage(lineages).await
    }

    async fn cells_by_key(&self, keys: &[SubnetKey]) -> Result<Vec<Stored<Cell>>, StoreError> {
        self.read_cells_by_key(keys).await
    }

    async fn count_nodes(&self) -> Result<usize, StoreError> {
        self.read_count_nodes().await
    }

    async fn count_nodes_of(&self, cell: CellId) -> Result<usize, StoreError> {
        self.read_count_nodes_of(cell).await
    }

    async fn attachments(&self, nodes: &[NodeId]) -> Result<Vec<Stored<Attachment>>, StoreError> {
        self.read_attachments(nodes).await
    }

    async fn unsettled(&self) -> Result<Vec<NodeId>, StoreError> {
        self.read_unsettled().await
    }

    async fn orphaned(&self, now: Timestamp) -> Result<Vec<OrphanedStream>, StoreError> {
        self.read_orphaned(now).await
    }

    async fn renew_lease(&self, replica: &str, now: Timestamp, until: Timestamp) -> Result<(), StoreError> {
        self.write_lease(replica, now, until).await
    }

    async fn end_lease(&self, replica: &str) -> Result<(), StoreError> {
        self.write_lease_end(replica).await
    }

    async fn others(&self, replica: &str, now: Timestamp) -> Result<Vec<(String, Timestamp)>, StoreError> {
        self.read_others(replica, now).await
    }

    async fn take_job(
        &self,
        job: &str,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write_job(job, holder, now, until).await
    }

    async fn feed(&self) -> Result<Feed, StoreError> {
        self.read_feed().await
    }

    async fn open_epoch(&self, token: &Opaque, now: Timestamp) -> Result<i64, StoreError> {
        self.write_epoch(token, now).await
    }

    async fn request(&self, request: &Request) -> Result<Option<TaskId>, StoreError> {
        self.read_request(request).await
    }

    async fn task(&self, id: TaskId) -> Result<Option<TaskSummary>, StoreError> {
        self.read_task(id).await
    }

    async fn tasks_before(
        &self,
        before: Option<TaskId>,
        only_running: bool,
        limit: i64,
    ) -> Result<Vec<TaskSummary>, StoreError> {
        self.read_tasks_before(before, only_running, limit).await
    }

    async fn order(&self, task: TaskId, part: u32) -> Result<Option<Opaque>, StoreError> {
        self.read_order(task, part).await
    }

    async fn targets(&self, task: TaskId, nodes: &[NodeId]) -> Result<Vec<Stored<Target>>, StoreError> {
        self.read_targets(task, nodes).await
    }

    async fn targets_after(
        &self,
        task: TaskId,
        after: Option<NodeId>,
        limit: i64,
    ) -> Result<Vec<Target>, StoreError> {
        self.read_targets_after(task, after, limit).await
    }

    async fn open_targets_of(&self, node: NodeId) -> Result<Vec<Stored<Target>>, StoreError> {
        self.read_open_targets_of(node).await
    }

    async fn targets_of(
        &self,
        node: NodeId,
        before: Option<TaskId>,
        limit: i64,
    ) -> Result<Vec<Target>, StoreError> {
        self.read_targets_of(node, before, limit).await
    }

    async fn due(&self, carrier: NodeId, now: Timestamp) -> Result<Due, StoreError> {
        self.read_due(carrier, now).await
    }

    async fn carriers_of(&self, task: TaskId) -> Result<Vec<NodeId>, StoreError> {
        self.read_carriers_of(task).await
    }

    async fn overdue(&self, now: Timestamp, limit: i64) -> Result<Vec<Overdue>, StoreError> {
        self.read_overdue(now, limit).await
    }

    async fn task_log(
        &self,
        task: TaskId,
        after: Position,
        limit: i64,
    ) -> Result<Option<TaskLog>, StoreError> {
        self.read_task_log(task, after, limit).await
    }

    async fn outputs(
        &self,
        task: TaskId,
        node: NodeId,
        after: Position,
        limit: i64,
    ) -> Result<Vec<TaskHappening>, StoreError> {
        self.read_outputs(task, node, after, limit).await
    }

    async fn events(&self, after: Position, limit: i64) -> Result<Vec<Event>, StoreError> {
        self.read_events(after, limit).await
    }

    async fn cursor(&self, feed: &str) -> Result<u64, StoreError> {
        self.read_cursor(feed).await
    }

    async fn keep_cursor(&self, feed: &str, position: u64) -> Result<(), StoreError> {
        self.write_cursor(feed, position).await
    }

    async fn deeds(&self, limit: i64) -> Result<Vec<WaitingDeed>, StoreError> {
        self.read_deeds(limit).await
    }

    async fn forget_deeds(&self, numbers: &[i64]) -> Result<(), StoreError> {
        self.remove_deeds(numbers).await
    }

    async fn waiting_deeds(&self) -> Result<i64, StoreError> {
        self.count_deeds().await
    }

    async fn confess_omissions(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.confess(now).await
    }

    async fn events_end(&self) -> Result<Position, StoreError> {
        self.read_events_end().await
    }

    async fn purge(&self, now: Timestamp, retention: Retention) -> Result<u64, StoreError> {
        self.remove_batch(now, retention).await
    }
}
