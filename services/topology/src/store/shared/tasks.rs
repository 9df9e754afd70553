//! Reads of tasks, their orders and targets.

use muster_types::{NodeId, Timestamp};
use sqlx::AssertSqlSafe;

use super::super::{BYTES_OF_JSON, ThisStore};
use super::decode::{hex_list, node_id, row, stored, task_id};
use crate::domain::ledger::Request;
use crate::domain::opaque::Opaque;
use crate::domain::table::Stored;
use crate::domain::target::{Target, TargetState};
use crate::domain::task::{Approval, MasterEnding, REPORT_GRACE, Task, TaskId, WORD_AFTER};
use crate::domain::tasks::Overdue;
use crate::store::{Due, Offer, READ_ROWS, StoreError, TaskSummary};

/// A task's row: document, cancelled at, cancellation, open targets.
type TaskRow = (String, Option<i64>, Option<Vec<u8>>, i64);

/// The same with one of its targets' states and how many are in it.
type CountedRow = (String, Option<i64>, Option<Vec<u8>>, i64, Option<i64>, i64);

/// What a stream is to say: task, part, node, and of an offer the task's document.
type DueRow = (Vec<u8>, i64, Vec<u8>, Option<String>);

/// `state < 4` is said of offers too: it is what the index of open targets stands for, and a node has many that ended.
const DUE: &str = "SELECT * FROM (SELECT t.task, t.part, t.node, k.doc FROM nodes n \
    JOIN task_targets t ON t.node = n.id AND t.state < 4 AND t.state = 1 \
    JOIN tasks k ON k.id = t.task \
    WHERE n.carrier = $1 AND n.online = 1 AND k.expires_at > $2 AND k.cancelled_at IS NULL \
    ORDER BY t.task, t.part LIMIT $3) offers \
    UNION ALL SELECT * FROM (SELECT t.task, t.part, t.node, CAST(NULL AS TEXT) FROM nodes n \
    JOIN task_targets t ON t.node = n.id AND t.state < 4 \
    JOIN tasks k ON k.id = t.task \
    WHERE n.carrier = $1 AND n.online = 1 AND k.cancelled_at IS NOT NULL \
    ORDER BY t.task LIMIT $3) cancellations";

/// A target that is overdue: task, node, state, whether cancelled, whether expired.
type OverdueRow = (Vec<u8>, Vec<u8>, i64, i64, i64);

fn summary(
    (doc, cancelled, cancellation, open): TaskRow,
    counts: Vec<(i64, i64)>,
) -> Result<TaskSummary, StoreError> {
    let counts = counts
        .into_iter()
        .filter_map(|(state, count)| Some((TargetState::from_number(state)?, u32::try_from(count).ok()?)));
    Ok(TaskSummary {
        task: row(&doc)?,
        cancelled: cancelled.map(Timestamp::from_micros),
        cancellation: Opaque(cancellation.unwrap_or_default()),
        open: u32::try_from(open).unwrap_or_default(),
        counts: counts.collect(),
    })
}

impl ThisStore {
    pub(super) async fn read_request(&self, request: &Request) -> Result<Option<TaskId>, StoreError> {
        let task: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT task FROM requests WHERE caller = $1 AND id = $2")
                .bind(&request.caller)
                .bind(&request.id)
                .fetch_optional(&mut *self.reader().await?)
                .await?;
        task.map(|bytes| task_id(&bytes)).transpose()
    }

    pub(super) async fn read_task(&self, id: TaskId) -> Result<Option<TaskSummary>, StoreError> {
        let rows: Vec<CountedRow> = sqlx::query_as(
            "SELECT k.doc, k.cancelled_at, k.cancellation, k.open, t.state, COUNT(t.state) FROM tasks k \
             LEFT JOIN task_targets t ON t.task = k.id WHERE k.id = $1 GROUP BY k.id, t.state",
        )
        .bind(id.as_bytes())
        .fetch_all(&mut *self.reader().await?)
        .await?;
        let counts = rows.iter().filter_map(|(.., state, count)| Some(((*state)?, *count))).collect();
        let task = rows.into_iter().next();
        task.map(|(doc, at, order, open, ..)| summary((doc, at, order, open), counts)).transpose()
    }

    pub(super) async fn read_tasks_before(
        &self,
        before: Option<TaskId>,
        only_running: bool,
        limit: i64,
    ) -> Result<Vec<TaskSummary>, StoreError> {
        // A UUID of 17 bytes would be above all of 16.
        let before = before.map_or_else(|| vec![0xff; 17], |id| id.as_bytes().to_vec());
        let found: Vec<TaskRow> = sqlx::query_as(
            "SELECT doc, cancelled_at, cancellation, open FROM tasks \
             WHERE id < $1 AND open >= $2 ORDER BY id DESC LIMIT $3",
        )
        .bind(before)
        .bind(i64::from(only_running))
        .bind(limit)
        .fetch_all(&mut *self.reader().await?)
        .await?;
        let mut summaries = Vec::with_capacity(found.len());
        for task in found {
            let counts = self.read_counts(row::<Task>(&task.0)?.id).await?;
            summaries.push(summary(task, counts)?);
        }
        Ok(summaries)
    }

    async fn read_counts(&self, task: TaskId) -> Result<Vec<(i64, i64)>, StoreError> {
        Ok(sqlx::query_as("SELECT state, COUNT(*) FROM task_targets WHERE task = $1 GROUP BY state")
            .bind(task.as_bytes())
            .fetch_all(&mut *self.reader().await?)
            .await?)
    }

    pub(super) async fn read_order(&self, task: TaskId, part: u32) -> Result<Option<Opaque>, StoreError> {
        let envelope: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT envelope FROM task_orders WHERE task = $1 AND part = $2")
                .bind(task.as_bytes())
                .bind(i64::from(part))
                .fetch_optional(&mut *self.reader().await?)
                .await?;
        Ok(envelope.map(Opaque))
    }

    pub(super) async fn read_targets(
        &self,
        task: TaskId,
        nodes: &[NodeId],
    ) -> Result<Vec<Stored<Target>>, StoreError> {
        let sql =
            format!("SELECT doc, revision FROM task_targets WHERE node IN ({BYTES_OF_JSON}) AND task = $2");
        let rows = sqlx::query_as(AssertSqlSafe(sql))
            .bind(hex_list(nodes.iter().map(NodeId::as_bytes)))
            .bind(task.as_bytes())
            .fetch_all(&mut *self.reader().await?)
            .await?;
        stored(rows)
    }

    pub(super) async fn read_targets_after(
        &self,
        task: TaskId,
        after: Option<NodeId>,
        limit: i64,
    ) -> Result<Vec<Target>, StoreError> {
        let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        let docs: Vec<String> = sqlx::query_scalar(
            "SELECT doc FROM task_targets WHERE task = $1 AND node > $2 ORDER BY node LIMIT $3",
        )
        .bind(task.as_bytes())
        .bind(after)
        .bind(limit)
        .fetch_all(&mut *self.reader().await?)
        .await?;
        docs.iter().map(|doc| row(doc)).collect()
    }

    pub(super) async fn read_open_targets_of(&self, node: NodeId) -> Result<Vec<Stored<Target>>, StoreError> {
        let rows = sqlx::query_as("SELECT doc, revision FROM task_targets WHERE node = $1 AND state < 4")
            .bind(node.as_bytes())
            .fetch_all(&mut *self.reader().await?)
            .await?;
        stored(rows)
    }

    pub(super) async fn read_targets_of(
        &self,
        node: NodeId,
        before: Option<TaskId>,
        limit: i64,
    ) -> Result<Vec<Target>, StoreError> {
        let before = before.map_or_else(|| vec![0xff; 17], |id| id.as_bytes().to_vec());
        let docs: Vec<String> = sqlx::query_scalar(
            "SELECT doc FROM task_targets WHERE node = $1 AND task < $2 ORDER BY task DESC LIMIT $3",
        )
        .bind(node.as_bytes())
        .bind(before)
        .bind(limit)
        .fetch_all(&mut *self.reader().await?)
        .await?;
        docs.iter().map(|doc| row(doc)).collect()
    }

    pub(super) async fn read_due(&self, carrier: NodeId, now: Timestamp) -> Result<Due, StoreError> {
        let rows: Vec<DueRow> = sqlx::query_as(DUE)
            .bind(carrier.as_bytes())
            .bind(now.as_micros())
            .bind(READ_ROWS)
            .fetch_all(&mut *self.reader().await?)
            .await?;
        let mut due = Due::default();
        for (task, part, node, doc) in rows {
            let (task, node) = (task_id(&task)?, node_id(&node)?);
            let Some(doc) = doc else {
                due.cancellations.push((task, node));
                continue;
            };
            let Task { approval, traceparent, .. } = row(&doc)?;
            // Nobody hears of it before the second person's word.
            if approval != Approval::Wanted {
                let part = u32::try_from(part).unwrap_or_default();
                due.offers.push(Offer { task, part, node, traceparent });
            }
        }
        Ok(due)
    }

    pub(super) async fn read_carriers_of(&self, task: TaskId) -> Result<Vec<NodeId>, StoreError> {
        let rows: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT DISTINCT n.carrier FROM task_targets t JOIN nodes n ON n.id = t.node \
             WHERE t.task = $1 AND t.state < 4 AND n.online = 1",
        )
        .bind(task.as_bytes())
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter().map(|bytes| node_id(bytes)).collect()
    }

    /// Open targets of tasks whose life, or whose hosts' time to answer, is over.
    pub(super) async fn read_overdue(&self, now: Timestamp, limit: i64) -> Result<Vec<Overdue>, StoreError> {
        let word_due = (now - WORD_AFTER).as_micros();
        let rows: Vec<OverdueRow> = sqlx::query_as(
            "SELECT t.task, t.node, t.state, CAST(CASE WHEN k.cancelled_at IS NULL THEN 0 ELSE 1 END AS BIGINT), \
                    CAST(CASE WHEN k.expires_at <= $1 THEN 1 ELSE 0 END AS BIGINT) \
             FROM tasks k JOIN task_targets t ON t.task = k.id AND t.state < 4 \
             LEFT JOIN nodes n ON n.id = t.node AND n.online = 1 \
             WHERE k.open > 0 AND ( \
                (t.state = 1 AND k.expires_at <= $1 AND (n.id IS NULL OR k.expires_at <= $2)) \
             OR (t.state = 1 AND k.cancelled_at IS NOT NULL AND (n.id IS NULL OR k.cancelled_at <= $2)) \
             OR (t.state = 1 AND k.skips = 1 AND n.id IS NULL) \
             OR k.expires_at <= $3) LIMIT $4",
        )
        .bind(now.as_micros())
        .bind(word_due)
        .bind((now - REPORT_GRACE).as_micros())
        .bind(limit)
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.into_iter()
            .map(|(task, node, state, cancelled, expired)| {
                let found = TargetState::from_number(state)
                    .ok_or_else(|| StoreError::Corrupt(format!("a target is in state {state}")))?;
                let ending = match (found, cancelled != 0, expired != 0) {
                    (TargetState::Queued, true, _) => MasterEnding::CancelledBeforeDelivery,
                    (TargetState::Queued, _, true) => MasterEnding::LifetimeOver,
                    (TargetState::Queued, ..) => MasterEnding::Away,
                    _ => MasterEnding::NoWord,
                };
                Ok(Overdue { task: task_id(&task)?, node: node_id(&node)?, found, ending })
            })
            .collect()
    }
}
