//! The one transaction that changes anything. Each write names the revision it read.

use muster_types::{NodeId, Timestamp};
use sqlx::Transaction;

use super::super::{Db, ThisStore};
use super::batch;
use super::decode::document;
use crate::domain::attachment::Attachment;
use crate::domain::cell::{Cell, CellId};
use crate::domain::event::{EventBody, NewEvent};
use crate::domain::ledger::{Cancellation, Changes, NewTask};
use crate::domain::node::Node;
use crate::domain::table::Change;
use crate::domain::task::{OfflinePolicy, Task, TaskId};
use crate::store::StoreError;

type Tx = Transaction<'static, Db>;
pub(super) type Written = Result<(), StoreError>;

/// A write that found another revision has lost.
fn one(rows: u64) -> Written {
    if rows == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

impl ThisStore {
    pub(super) async fn write(&self, changes: &Changes, now: Timestamp) -> Written {
        let mut tx = self.begin().await?;
        for change in &changes.nodes {
            node(&mut tx, change).await?;
        }
        for change in &changes.cells {
            cell(&mut tx, change).await?;
        }
        for change in &changes.attachments {
            attachment(&mut tx, change).await?;
        }
        for new in &changes.tasks {
            task(&mut tx, new).await?;
        }
        batch::targets(&mut tx, &changes.targets).await?;
        for it in &changes.cancellations {
            cancellation(&mut tx, it).await?;
        }
        for task in &changes.approvals {
            approval(&mut tx, task).await?;
        }
        batch::log(&mut tx, &changes.log).await?;
        let mut done = Vec::new();
        for (task, count) in &changes.ended {
            done.extend(ended(&mut tx, *task, *count, now).await?);
        }
        batch::events(&mut tx, changes.events.iter().chain(&done)).await?;
        super::deeds::write(&mut tx, &changes.deeds).await?;
        tx.commit().await.map_err(conflict)
    }
}

/// Two replicas that met in one row: the loser reads again.
pub(super) fn conflict(error: sqlx::Error) -> StoreError {
    match error.as_database_error().and_then(|it| it.code()).as_deref() {
        // serialization_failure, deadlock_detected, unique_violation (PostgreSQL, appendix A)
        Some("40001" | "40P01" | "23505") => StoreError::Conflict,
        _ => StoreError::Database(error),
    }
}

async fn node(tx: &mut Tx, change: &Change<NodeId, Node>) -> Written {
    if change.before.as_ref().map(Node::effective_labels) != change.after.as_ref().map(Node::effective_labels)
    {
        labels(tx, change).await?;
    }
    let Some(node) = &change.after else {
        let sql = "DELETE FROM nodes WHERE id = $1 AND revision = $2";
        let gone = sqlx::query(sql).bind(change.key.as_bytes()).bind(change.revision);
        return one(gone.execute(&mut **tx).await.map_err(conflict)?.rows_affected());
    };
    let written = sqlx::query(
        "INSERT INTO nodes (id, online, carrier, cell, host_name, doc, revision, presence) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $9) \
         ON CONFLICT (id) DO UPDATE SET online = excluded.online, carrier = excluded.carrier, \
         cell = excluded.cell, host_name = excluded.host_name, doc = excluded.doc, revision = excluded.revision, \
         presence = excluded.presence WHERE nodes.revision = $8",
    )
    .bind(node.id.as_bytes())
    .bind(i64::from(node.is_online()))
    .bind(node.carrier().as_bytes().to_vec())
    .bind(node.cell.map(|cell| cell.0.cast_signed()))
    .bind(&node.profile.host_name)
    .bind(document(node)?)
    .bind(change.revision + 1)
    .bind(change.revision)
    .bind(node.presence.as_str())
    .execute(&mut **tx)
    .await
    .map_err(conflict)?;
    one(written.rows_affected())
}

/// The labels that count, for searching. They change rarely, and nodes often.
async fn labels(tx: &mut Tx, change: &Change<NodeId, Node>) -> Written {
    let node = change.key.as_bytes();
    sqlx::query("DELETE FROM node_labels WHERE node = $1").bind(node).execute(&mut **tx).await?;
    for (name, value) in change.after.iter().flat_map(Node::effective_labels) {
        sqlx::query("INSERT INTO node_labels (name, value, node) VALUES ($1, $2, $3)")
            .bind(name)
            .bind(value)
            .bind(node)
            .execute(&mut **tx)
            .await
            .map_err(conflict)?;
    }
    Ok(())
}

async fn cell(tx: &mut Tx, change: &Change<CellId, Cell>) -> Written {
    let Some(cell) = &change.after else { return Ok(()) };
    let id = cell.id.0.cast_signed();
    let written = sqlx::query(
        "INSERT INTO cells (id, lineage, doc, revision) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (id) DO UPDATE SET lineage = excluded.lineage, doc = excluded.doc, \
         revision = excluded.revision WHERE cells.revision = $5",
    )
    .bind(id)
    .bind(cell.lineage.cast_signed())
    .bind(document(cell)?)
    .bind(change.revision + 1)
    .bind(change.revision)
    .execute(&mut **tx)
    .await
    .map_err(conflict)?;
    one(written.rows_affected())?;
    sqlx::query("DELETE FROM cell_keys WHERE cell = $1").bind(id).execute(&mut **tx).await?;
    for key in &cell.keys {
        sqlx::query("INSERT INTO cell_keys (subnet_key, cell) VALUES ($1, $2)")
            .bind(key.as_bytes())
            .bind(id)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

async fn attachment(tx: &mut Tx, change: &Change<NodeId, Attachment>) -> Written {
    let Some(attachment) = &change.after else {
        let sql = "DELETE FROM attachments WHERE node = $1 AND revision = $2";
        let gone = sqlx::query(sql).bind(change.key.as_bytes()).bind(change.revision);
        return one(gone.execute(&mut **tx).await.map_err(conflict)?.rows_affected());
    };
    let written = sqlx::query(
        "INSERT INTO attachments (node, replica, live, settled, doc, revision) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (node) DO UPDATE SET replica = excluded.replica, live = excluded.live, \
         settled = excluded.settled, doc = excluded.doc, revision = excluded.revision \
         WHERE attachments.revision = $7",
    )
    .bind(attachment.node.as_bytes())
    .bind(&attachment.replica)
    .bind(i64::from(attachment.is_live()))
    .bind(i64::from(attachment.settled))
    .bind(document(attachment)?)
    .bind(change.revision + 1)
    .bind(change.revision)
    .execute(&mut **tx)
    .await
    .map_err(conflict)?;
    one(written.rows_affected())
}

async fn task(tx: &mut Tx, new: &NewTask) -> Written {
    let task = &new.task;
    if let Some(request) = &new.request {
        sqlx::query("INSERT INTO requests (caller, id, task) VALUES ($1, $2, $3)")
            .bind(&request.caller)
            .bind(&request.id)
            .bind(task.id.as_bytes())
            .execute(&mut **tx)
            .await
            .map_err(conflict)?;
    }
    sqlx::query(
        "INSERT INTO tasks (id, created_at, expires_at, skips, open, doc) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(task.id.as_bytes())
    .bind(task.created.as_micros())
    .bind(task.expires.as_micros())
    .bind(i64::from(task.offline == OfflinePolicy::Skip))
    .bind(i64::from(task.target_count))
    .bind(document(task)?)
    .execute(&mut **tx)
    .await?;
    batch::orders(tx, task.id, &new.orders).await
}

async fn approval(tx: &mut Tx, task: &Task) -> Written {
    sqlx::query("UPDATE tasks SET doc = $2 WHERE id = $1")
        .bind(task.id.as_bytes())
        .bind(document(task)?)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn cancellation(tx: &mut Tx, it: &Cancellation) -> Written {
    sqlx::query(
        "UPDATE tasks SET cancelled_at = $2, cancellation = $3 WHERE id = $1 AND cancelled_at IS NULL",
    )
    .bind(it.task.as_bytes())
    .bind(it.at.as_micros())
    .bind(&it.order.0)
    .execute(&mut **tx)
    .await
    .map_err(conflict)?;
    Ok(())
}

/// Counts ended targets off their task, and says if that was the last. Two replicas that end the last two wait for each
/// other here.
async fn ended(
    tx: &mut Tx,
    task: TaskId,
    count: u32,
    now: Timestamp,
) -> Result<Option<NewEvent>, StoreError> {
    let open: Option<i64> =
        sqlx::query_scalar("UPDATE tasks SET open = open - $2 WHERE id = $1 RETURNING open")
            .bind(task.as_bytes())
            .bind(i64::from(count))
            .fetch_optional(&mut **tx)
            .await
            .map_err(conflict)?;
    let body = EventBody::TaskChanged { task };
    Ok((open == Some(0)).then_some(NewEvent { at: now, body, key: None }))
}
