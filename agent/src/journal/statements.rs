//! The journal's SQL. Each function runs inside the writer's transaction.

use bytes::Bytes;
use muster_types::Timestamp;
use sqlx::{Error, QueryBuilder, Row, SqliteConnection, sqlite::SqliteRow};

use crate::journal::REPORT_PAGE;
use crate::journal::record::{Admission, Item, Offer, Recovered, Report, Stage, TaskKey};

/// Items kept for a master that does not answer; the oldest go first.
const KEPT_ITEMS: i64 = 1_000;

/// Finished tasks forgotten in one transaction.
const PURGE_BATCH: i64 = 500;

pub(super) async fn admit(
    db: &mut SqliteConnection,
    offer: Offer,
    start: bool,
    now: Timestamp,
) -> Result<Admission, Error> {
    let finished = offer.reports.iter().any(|report| report.terminal);
    let stage_now = match (finished, start) {
        (true, _) => Stage::Finished,
        (false, true) => Stage::Started,
        (false, false) => Stage::Delivered,
    };
    let next = offer.reports.iter().map(|report| report.sequence.saturating_add(1)).max().unwrap_or(1);
    let inserted = sqlx::query(
        "INSERT INTO task (task_id, occurrence, stage, accepted, next_sequence, offer) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(&offer.key.task[..])
    .bind(&offer.key.occurrence)
    .bind(stage_now.column())
    .bind(now.as_micros())
    .bind(column(next))
    .bind((stage_now == Stage::Delivered).then_some(&offer.bytes[..]))
    .execute(&mut *db)
    .await?;
    if inserted.rows_affected() == 0 {
        // Whose row is there, and then not, is no task that may be started.
        return Ok(Admission::Known(stage(db, &offer.key).await?.unwrap_or(Stage::Finished)));
    }
    insert_reports(db, &offer.reports).await?;
    Ok(Admission::New)
}

/// Of a task's first steps: two at most, so there are two such statements to be kept prepared.
async fn insert_reports(db: &mut SqliteConnection, reports: &[Report]) -> Result<(), Error> {
    let mut statement =
        QueryBuilder::new("INSERT INTO report (task_id, occurrence, sequence, class, envelope) ");
    statement.push_values(reports, |mut row, report| {
        row.push_bind(report.key.task.to_vec()).push_bind(report.key.occurrence.clone());
        row.push_bind(column(report.sequence)).push_bind(report.class).push_bind(report.envelope.to_vec());
    });
    statement.build().execute(db).await?;
    Ok(())
}

async fn stage(db: &mut SqliteConnection, key: &TaskKey) -> Result<Option<Stage>, Error> {
    let column = sqlx::query_scalar("SELECT stage FROM task WHERE task_id = $1 AND occurrence = $2")
        .bind(&key.task[..])
        .bind(&key.occurrence)
        .fetch_optional(db)
        .await?;
    Ok(column.map(Stage::from_column))
}

pub(super) async fn start(db: &mut SqliteConnection, report: Report) -> Result<bool, Error> {
    let changed = sqlx::query(
        "UPDATE task SET stage = $3, offer = NULL WHERE task_id = $1 AND occurrence = $2 AND stage = $4",
    )
    .bind(&report.key.task[..])
    .bind(&report.key.occurrence)
    .bind(Stage::Started.column())
    .bind(Stage::Delivered.column())
    .execute(&mut *db)
    .await?;
    let begun = changed.rows_affected() == 1;
    if begun {
        append(db, report).await?;
    }
    Ok(begun)
}

/// Both statements in one: each costs a way to SQLite's thread and back.
pub(super) async fn append(db: &mut SqliteConnection, report: Report) -> Result<(), Error> {
    sqlx::query(
        "INSERT OR REPLACE INTO report (task_id, occurrence, sequence, class, envelope) VALUES ($1, $2, $3, $4, $5); \
         UPDATE task SET next_sequence = MAX(next_sequence, $3 + 1), stage = CASE WHEN $6 THEN $7 ELSE stage END, \
         offer = CASE WHEN $6 THEN NULL ELSE offer END WHERE task_id = $1 AND occurrence = $2",
    )
    .bind(&report.key.task[..])
    .bind(&report.key.occurrence)
    .bind(column(report.sequence))
    .bind(report.class)
    .bind(&report.envelope[..])
    .bind(report.terminal)
    .bind(Stage::Finished.column())
    .execute(db)
    .await?;
    Ok(())
}

/// A cancellation that comes first leaves a stone in the way of the order.
pub(super) async fn cancel(
    db: &mut SqliteConnection,
    key: TaskKey,
    now: Timestamp,
) -> Result<Option<Stage>, Error> {
    let known = stage(db, &key).await?;
    if known.is_none() {
        insert_closed(db, &key, Stage::Cancelled, now).await?;
    }
    Ok(known)
}

/// Answers which of them were not known here.
pub(super) async fn adopt(
    db: &mut SqliteConnection,
    tasks: Vec<TaskKey>,
    now: Timestamp,
) -> Result<Vec<TaskKey>, Error> {
    let mut unknown = Vec::new();
    for key in tasks {
        match stage(db, &key).await? {
            None => {
                insert_closed(db, &key, Stage::Finished, now).await?;
                unknown.push(key);
            }
            // A rolled-back journal still holds it as waiting, though it was begun.
            Some(Stage::Delivered) => {
                close(db, &key).await?;
                unknown.push(key);
            }
            Some(_) => {}
        }
    }
    Ok(unknown)
}

async fn insert_closed(
    db: &mut SqliteConnection,
    key: &TaskKey,
    stage: Stage,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO task (task_id, occurrence, stage, accepted, next_sequence, offer) VALUES ($1, $2, $3, $4, 1, NULL)",
    )
    .bind(&key.task[..])
    .bind(&key.occurrence)
    .bind(stage.column())
    .bind(now.as_micros())
    .execute(db)
    .await?;
    Ok(())
}

async fn close(db: &mut SqliteConnection, key: &TaskKey) -> Result<(), Error> {
    sqlx::query("UPDATE task SET stage = $3, offer = NULL WHERE task_id = $1 AND occurrence = $2")
        .bind(&key.task[..])
        .bind(&key.occurrence)
        .bind(Stage::Finished.column())
        .execute(db)
        .await?;
    Ok(())
}

pub(super) async fn acknowledge(db: &mut SqliteConnection, key: TaskKey, sequence: u64) -> Result<(), Error> {
    sqlx::query("DELETE FROM report WHERE task_id = $1 AND occurrence = $2 AND sequence <= $3")
        .bind(&key.task[..])
        .bind(&key.occurrence)
        .bind(column(sequence))
        .execute(db)
        .await?;
    Ok(())
}

pub(super) async fn unacknowledged(
    db: &mut SqliteConnection,
    after: Option<(TaskKey, u64)>,
) -> Result<Vec<Report>, Error> {
    let (key, sequence) = after.unwrap_or((TaskKey { task: [0; 16], occurrence: String::new() }, 0));
    let rows = sqlx::query(
        "SELECT task_id, occurrence, sequence, class, envelope FROM report \
         WHERE (task_id, occurrence, sequence) > ($1, $2, $3) ORDER BY task_id, occurrence, sequence LIMIT $4",
    )
    .bind(&key.task[..])
    .bind(&key.occurrence)
    .bind(column(sequence))
    .bind(REPORT_PAGE as i64)
    .fetch_all(db)
    .await?;
    rows.iter().map(report_of).collect()
}

fn report_of(row: &SqliteRow) -> Result<Report, Error> {
    Ok(Report {
        key: key_of(row)?,
        sequence: u64::try_from(row.try_get::<i64, _>("sequence")?).unwrap_or_default(),
        class: row.try_get("class")?,
        envelope: Bytes::from(row.try_get::<Vec<u8>, _>("envelope")?),
        terminal: false,
        traceparent: String::new(),
    })
}

pub(super) async fn recover(db: &mut SqliteConnection) -> Result<Recovered, Error> {
    let rows = sqlx::query(
        "SELECT task_id, occurrence, stage, next_sequence, offer FROM task WHERE stage IN ($1, $2) \
         ORDER BY accepted, task_id",
    )
    .bind(Stage::Delivered.column())
    .bind(Stage::Started.column())
    .fetch_all(db)
    .await?;
    let mut recovered = Recovered::default();
    for row in &rows {
        let key = key_of(row)?;
        let next = u64::try_from(row.try_get::<i64, _>("next_sequence")?).unwrap_or_default();
        let offer: Option<Vec<u8>> = row.try_get("offer")?;
        match (Stage::from_column(row.try_get("stage")?), offer) {
            (Stage::Delivered, Some(offer)) => recovered.waiting.push((key, next, Bytes::from(offer))),
            _ => recovered.interrupted.push((key, next)),
        }
    }
    Ok(recovered)
}

fn key_of(row: &SqliteRow) -> Result<TaskKey, Error> {
    let task: Vec<u8> = row.try_get("task_id")?;
    let occurrence: String = row.try_get("occurrence")?;
    TaskKey::new(&task, &occurrence).ok_or_else(|| Error::Decode("a task's key is malformed".into()))
}

pub(super) async fn keep_item(db: &mut SqliteConnection, item: Item) -> Result<(), Error> {
    sqlx::query("INSERT OR REPLACE INTO item (item_id, made, body) VALUES ($1, $2, $3)")
        .bind(&item.id)
        .bind(item.made.as_micros())
        .bind(&item.body[..])
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "DELETE FROM item WHERE item_id NOT IN (SELECT item_id FROM item ORDER BY made DESC LIMIT $1)",
    )
    .bind(KEPT_ITEMS)
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn items(db: &mut SqliteConnection) -> Result<Vec<Item>, Error> {
    let rows = sqlx::query("SELECT item_id, made, body FROM item ORDER BY made").fetch_all(db).await?;
    let item = |row: &SqliteRow| {
        Ok(Item {
            id: row.try_get("item_id")?,
            made: Timestamp::from_micros(row.try_get("made")?),
            body: Bytes::from(row.try_get::<Vec<u8>, _>("body")?),
        })
    };
    rows.iter().map(item).collect()
}

pub(super) async fn acknowledge_items(db: &mut SqliteConnection, ids: Vec<String>) -> Result<(), Error> {
    for id in ids {
        sqlx::query("DELETE FROM item WHERE item_id = $1").bind(id).execute(&mut *db).await?;
    }
    Ok(())
}

pub(super) async fn purge(db: &mut SqliteConnection, before: Timestamp) -> Result<u64, Error> {
    let gone = sqlx::query(
        "DELETE FROM task WHERE (task_id, occurrence) IN (SELECT task_id, occurrence FROM task t \
         WHERE stage IN ($1, $2) AND accepted < $3 AND NOT EXISTS \
         (SELECT 1 FROM report r WHERE r.task_id = t.task_id AND r.occurrence = t.occurrence) LIMIT $4)",
    )
    .bind(Stage::Finished.column())
    .bind(Stage::Cancelled.column())
    .bind(before.as_micros())
    .bind(PURGE_BATCH)
    .execute(db)
    .await?;
    Ok(gone.rows_affected())
}

pub(super) async fn durability(db: &mut SqliteConnection) -> Result<(String, i64), Error> {
    let mode = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *db).await?;
    let synchronous = sqlx::query_scalar("PRAGMA synchronous").fetch_one(db).await?;
    Ok((mode, synchronous))
}

/// SQLite's integers are signed; sequences stay far below their limit.
fn column(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

pub(super) async fn forget_everything(db: &mut SqliteConnection) -> Result<(), Error> {
    for table in ["task", "report", "item"] {
        sqlx::query(sqlx::AssertSqlSafe(format!("DELETE FROM {table}"))).execute(&mut *db).await?;
    }
    Ok(())
}
