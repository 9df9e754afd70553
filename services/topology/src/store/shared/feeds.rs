//! Reads of feeds: what happened in a task, and everywhere.

use std::collections::BTreeMap;

use muster_types::{NodeId, Timestamp};
use sqlx::AssertSqlSafe;

use super::super::{HORIZON, ThisStore};
use super::decode::{node_id, row};
use crate::domain::log::{LogBody, LogKind};
use crate::domain::opaque::Opaque;
use crate::domain::task::TaskId;
use crate::store::{Event, Position, StoreError, TaskHappening, TaskLog};

/// A row of the log: transaction, number, node, time, kind, body.
type LogRow = (i64, i64, Vec<u8>, i64, i64, Vec<u8>);

/// Open targets, the log's end, a node's host name, and a [`LogRow`].
type WatchedRow = (
    i64,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<Vec<u8>>,
    Option<i64>,
    Option<i64>,
    Option<Vec<u8>>,
);

fn happening((transaction, number, node, at, kind, body): LogRow) -> Result<TaskHappening, StoreError> {
    let body = match kind {
        kind if kind == LogKind::Output.number() => LogBody::Output(Opaque(body)),
        kind if kind == LogKind::Progress.number() => LogBody::Progress(Opaque(body)),
        _ => LogBody::State(row(&String::from_utf8_lossy(&body))?),
    };
    Ok(TaskHappening {
        position: Position { transaction, number },
        node: node_id(&node)?,
        at: Timestamp::from_micros(at),
        body,
    })
}

/// The task's row beside each of the log; without any, beside nothing.
fn watched(rows: Vec<WatchedRow>) -> Result<Option<TaskLog>, StoreError> {
    let Some((open, transaction, number, ..)) = rows.first() else { return Ok(None) };
    let end = transaction.zip(*number).map(|(transaction, number)| Position { transaction, number });
    let open = u32::try_from(*open).unwrap_or_default();
    let mut log =
        TaskLog { open, end: end.unwrap_or_default(), rows: Vec::new(), host_names: BTreeMap::new() };
    for row in rows {
        let (.., host_name, Some(transaction), Some(number), Some(node), Some(at), Some(kind), Some(body)) =
            row
        else {
            continue;
        };
        let row = happening((transaction, number, node, at, kind, body))?;
        log.host_names.insert(row.node, host_name.unwrap_or_default());
        log.rows.push(row);
    }
    Ok(Some(log))
}

impl ThisStore {
    pub(super) async fn read_task_log(
        &self,
        task: TaskId,
        after: Position,
        limit: i64,
    ) -> Result<Option<TaskLog>, StoreError> {
        let sql = format!(
            "SELECT k.open, e.tx, e.number, n.host_name, l.tx, l.number, l.node, l.at, l.kind, l.body FROM tasks k \
             LEFT JOIN (SELECT tx, number FROM task_log WHERE task = $1 ORDER BY tx DESC, number DESC LIMIT 1) e ON 1 = 1 \
             LEFT JOIN task_log l ON l.task = k.id AND (l.tx, l.number) > ($2, $3) AND l.tx < {HORIZON} \
             LEFT JOIN nodes n ON n.id = l.node \
             WHERE k.id = $1 ORDER BY l.tx, l.number LIMIT $4"
        );
        let rows: Vec<WatchedRow> = sqlx::query_as(AssertSqlSafe(sql))
            .bind(task.as_bytes())
            .bind(after.transaction)
            .bind(after.number)
            .bind(limit)
            .fetch_all(&mut *self.reader().await?)
            .await?;
        watched(rows)
    }

    pub(super) async fn read_outputs(
        &self,
        task: TaskId,
        node: NodeId,
        after: Position,
        limit: i64,
    ) -> Result<Vec<TaskHappening>, StoreError> {
        let rows: Vec<LogRow> = sqlx::query_as(
            "SELECT tx, number, node, at, kind, body FROM task_log \
             WHERE task = $1 AND node = $2 AND kind = 2 AND (tx, number) > ($3, $4) \
             ORDER BY tx, number LIMIT $5",
        )
        .bind(task.as_bytes())
        .bind(node.as_bytes())
        .bind(after.transaction)
        .bind(after.number)
        .bind(limit)
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.into_iter().map(happening).collect()
    }

    pub(super) async fn read_events(&self, after: Position, limit: i64) -> Result<Vec<Event>, StoreError> {
        let sql = format!(
            "SELECT tx, number, at, doc FROM events \
             WHERE (tx, number) > ($1, $2) AND tx < {HORIZON} ORDER BY tx, number LIMIT $3"
        );
        let rows: Vec<(i64, i64, i64, String)> = sqlx::query_as(AssertSqlSafe(sql))
            .bind(after.transaction)
            .bind(after.number)
            .bind(limit)
            .fetch_all(&mut *self.reader().await?)
            .await?;
        rows.into_iter()
            .map(|(transaction, number, at, doc)| {
                let position = Position { transaction, number };
                Ok(Event { position, at: Timestamp::from_micros(at), body: row(&doc)? })
            })
            .collect()
    }

    /// The last event that readers see.
    pub(super) async fn read_events_end(&self) -> Result<Position, StoreError> {
        let sql = format!(
            "SELECT tx, number FROM events WHERE tx < {HORIZON} ORDER BY tx DESC, number DESC LIMIT 1"
        );
        let end: Option<(i64, i64)> =
            sqlx::query_as(AssertSqlSafe(sql)).fetch_optional(&mut *self.reader().await?).await?;
        let end =
            end.map_or_else(Position::default, |(transaction, number)| Position { transaction, number });
        Ok(end.max(self.read_feed().await?.forgotten))
    }

    pub(super) async fn read_cursor(&self, feed: &str) -> Result<u64, StoreError> {
        let position: Option<i64> = sqlx::query_scalar("SELECT position FROM cursors WHERE feed = $1")
            .bind(feed)
            .fetch_optional(&mut *self.reader().await?)
            .await?;
        Ok(position.unwrap_or_default().unsigned_abs())
    }

    /// Only ever forward: of two replicas the slower one must not take back what the faster one has read.
    pub(super) async fn write_cursor(&self, feed: &str, position: u64) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO cursors (feed, position) VALUES ($1, $2) \
             ON CONFLICT (feed) DO UPDATE SET position = excluded.position WHERE cursors.position < $2",
        )
        .bind(feed)
        .bind(position.cast_signed())
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }
}
