//! What a transaction writes of many at once: one statement for some hundred rows.

use std::collections::BTreeSet;

use muster_types::NodeId;
use sqlx::{QueryBuilder, Transaction};

use super::super::Db;
use super::decode::document;
use super::write::{Written, conflict};
use crate::domain::event::NewEvent;
use crate::domain::log::{LogBody, LogEntry};
use crate::domain::opaque::Opaque;
use crate::domain::table::Change;
use crate::domain::target::Target;
use crate::domain::task::TaskId;
use crate::store::StoreError;

type Tx = Transaction<'static, Db>;

/// Rows of one statement. SQLite takes 32,766 parameters and PostgreSQL 65,535; a row has seven at most.
const ROWS: usize = 500;

/// A statement of more rows than this is not kept prepared: there are too many lengths, and its rows cost more than
/// its text.
const PREPARED_ROWS: usize = 8;

async fn execute(tx: &mut Tx, mut statement: QueryBuilder<Db>, rows: usize) -> Result<u64, StoreError> {
    let query = statement.build().persistent(rows <= PREPARED_ROWS);
    Ok(query.execute(&mut **tx).await.map_err(conflict)?.rows_affected())
}

/// One whose revision is another than what was read loses, and all with it.
pub(super) async fn targets(tx: &mut Tx, changes: &[Change<(TaskId, NodeId), Target>]) -> Written {
    let mut rows = Vec::with_capacity(changes.len());
    for change in changes {
        let Some(target) = &change.after else { continue };
        rows.push((target, document(target)?, change.revision + 1));
    }
    for rows in rows.chunks(ROWS) {
        let mut statement =
            QueryBuilder::new("INSERT INTO task_targets (task, node, part, state, doc, revision) ");
        statement.push_values(rows, |mut row, (target, doc, revision)| {
            row.push_bind(target.task.as_bytes().to_vec());
            row.push_bind(target.node.as_bytes().to_vec());
            row.push_bind(i64::from(target.part)).push_bind(target.state.number());
            row.push_bind(doc.clone()).push_bind(*revision);
        });
        statement.push(
            " ON CONFLICT (task, node) DO UPDATE SET state = excluded.state, doc = excluded.doc, \
             revision = excluded.revision WHERE task_targets.revision = excluded.revision - 1",
        );
        if execute(tx, statement, rows.len()).await? != rows.len() as u64 {
            return Err(StoreError::Conflict);
        }
    }
    Ok(())
}

pub(super) async fn orders(tx: &mut Tx, task: TaskId, orders: &[Opaque]) -> Written {
    for (orders, first) in orders.chunks(ROWS).zip((0_i64..).step_by(ROWS)) {
        let mut statement = QueryBuilder::new("INSERT INTO task_orders (task, part, envelope) ");
        statement.push_values((first..).zip(orders), |mut row, (part, order)| {
            row.push_bind(task.as_bytes().to_vec()).push_bind(part).push_bind(order.0.clone());
        });
        execute(tx, statement, orders.len()).await?;
    }
    Ok(())
}

pub(super) async fn log(tx: &mut Tx, entries: &[LogEntry]) -> Written {
    let kept = without_stale_progress(entries);
    for entry in kept.iter().filter(|entry| matches!(entry.body, LogBody::Progress(_))) {
        sqlx::query("DELETE FROM task_log WHERE task = $1 AND node = $2 AND kind = $3")
            .bind(entry.task.as_bytes())
            .bind(entry.node.as_bytes())
            .bind(entry.body.kind().number())
            .execute(&mut **tx)
            .await?;
    }
    for entries in kept.chunks(ROWS) {
        let mut bodies = Vec::with_capacity(entries.len());
        for entry in entries {
            bodies.push(match &entry.body {
                LogBody::State(standing) => document(standing)?.into_bytes(),
                LogBody::Output(bytes) | LogBody::Progress(bytes) => bytes.0.clone(),
            });
        }
        let mut statement = QueryBuilder::new("INSERT INTO task_log (task, node, at, kind, size, body) ");
        statement.push_values(entries.iter().zip(bodies), |mut row, (entry, body)| {
            row.push_bind(entry.task.as_bytes().to_vec());
            row.push_bind(entry.node.as_bytes().to_vec());
            row.push_bind(entry.at.as_micros()).push_bind(entry.body.kind().number());
            row.push_bind(i64::try_from(body.len()).unwrap_or(i64::MAX)).push_bind(body);
        });
        execute(tx, statement, entries.len()).await?;
    }
    Ok(())
}

/// Of a host's progress only the last counts.
fn without_stale_progress(entries: &[LogEntry]) -> Vec<&LogEntry> {
    let mut seen = BTreeSet::new();
    let is_last = |entry: &&LogEntry| {
        !matches!(entry.body, LogBody::Progress(_)) || seen.insert((entry.task, entry.node))
    };
    let mut kept: Vec<_> = entries.iter().rev().filter(is_last).collect();
    kept.reverse();
    kept
}

pub(super) async fn events<'a>(tx: &mut Tx, events: impl IntoIterator<Item = &'a NewEvent>) -> Written {
    let mut rows = Vec::new();
    for event in events {
        rows.push((event, document(&event.body)?));
    }
    for rows in rows.chunks(ROWS) {
        let mut statement = QueryBuilder::new("INSERT INTO events (at, dedupe, doc) ");
        statement.push_values(rows, |mut row, (event, doc)| {
            row.push_bind(event.at.as_micros()).push_bind(event.key.clone()).push_bind(doc.clone());
        });
        statement.push(" ON CONFLICT (dedupe) DO NOTHING");
        execute(tx, statement, rows.len()).await?;
    }
    Ok(())
}
