//! Removes what has been kept long enough, a batch at a time. Numbers rise with time, so only the lowest are looked at.

use muster_types::Timestamp;

use super::super::ThisStore;
use crate::store::{Retention, StoreError};

impl ThisStore {
    pub(super) async fn remove_batch(&self, now: Timestamp, retention: Retention) -> Result<u64, StoreError> {
        let removed = self.remove_outputs(now, retention).await?
            + self.remove_old_tasks(now, retention).await?
            + self.remove_leftovers(now, retention).await?;
        Ok(removed)
    }

    /// Outputs that are too old; and, while there are too many, the oldest of the rest.
    async fn remove_outputs(&self, now: Timestamp, retention: Retention) -> Result<u64, StoreError> {
        // SUM of BIGINT is NUMERIC in PostgreSQL.
        let kept: i64 =
            sqlx::query_scalar("SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM task_log WHERE kind = 2")
                .fetch_one(&mut *self.reader().await?)
                .await?;
        let too_many = kept > i64::try_from(retention.output_bytes).unwrap_or(i64::MAX);
        let mut tx = self.begin().await?;
        let removed = sqlx::query(
            "DELETE FROM task_log WHERE number IN (SELECT number FROM (SELECT number, at FROM task_log \
             WHERE kind = 2 ORDER BY number LIMIT $3) oldest WHERE at < $1 OR $2 = 1)",
        )
        .bind((now - retention.outputs).as_micros())
        .bind(i64::from(too_many))
        .bind(retention.batch)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(removed.rows_affected())
    }

    /// One task that ended and is too old, with all that belongs to it.
    async fn remove_old_tasks(&self, now: Timestamp, retention: Retention) -> Result<u64, StoreError> {
        let old: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT id FROM tasks WHERE created_at < $1 AND open = 0 ORDER BY id LIMIT 1")
                .bind((now - retention.tasks).as_micros())
                .fetch_optional(&mut *self.reader().await?)
                .await?;
        let Some(task) = old else { return Ok(0) };
        let mut tx = self.begin().await?;
        for sql in [
            "DELETE FROM task_log WHERE task = $1",
            "DELETE FROM task_targets WHERE task = $1",
            "DELETE FROM task_orders WHERE task = $1",
            "DELETE FROM requests WHERE task = $1",
            "DELETE FROM tasks WHERE id = $1",
        ] {
            sqlx::query(sql).bind(&task).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(1)
    }

    /// Old events, replicas long gone, and cells that nobody is in.
    async fn remove_leftovers(&self, now: Timestamp, retention: Retention) -> Result<u64, StoreError> {
        let before = (now - retention.events).as_micros();
        let mut tx = self.begin().await?;
        // Before the rows go: who resumes from before them has missed something, and must be told.
        sqlx::query(
            "UPDATE epoch SET (forgotten_tx, forgotten_number) = (SELECT tx, number FROM events WHERE number IN \
             (SELECT number FROM (SELECT number, at FROM events ORDER BY number LIMIT $2) oldest WHERE at < $1) \
             ORDER BY tx DESC, number DESC LIMIT 1) WHERE EXISTS \
             (SELECT 1 FROM (SELECT at FROM events ORDER BY number LIMIT $2) oldest WHERE at < $1)",
        )
        .bind(before)
        .bind(retention.batch)
        .execute(&mut *tx)
        .await?;
        let events = sqlx::query(
            "DELETE FROM events WHERE number IN \
             (SELECT number FROM (SELECT number, at FROM events ORDER BY number LIMIT $2) oldest WHERE at < $1)",
        )
        .bind(before)
        .bind(retention.batch)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "DELETE FROM replicas WHERE lease_until < $1 \
             AND NOT EXISTS (SELECT 1 FROM attachments a WHERE a.replica = replicas.name AND a.live = 1)",
        )
        .bind(before)
        .execute(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM cells WHERE NOT EXISTS (SELECT 1 FROM nodes n WHERE n.cell = cells.id)")
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "DELETE FROM cell_keys WHERE NOT EXISTS (SELECT 1 FROM cells c WHERE c.id = cell_keys.cell)",
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(events.rows_affected())
    }
}
