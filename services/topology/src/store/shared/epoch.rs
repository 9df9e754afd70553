//! Which past the store has, and who does what one replica does for all.

use muster_types::Timestamp;

use super::super::ThisStore;
use super::decode::{document, row};
use crate::domain::attachment::Attachment;
use crate::domain::opaque::Opaque;
use crate::store::{Feed, Position, StoreError};

impl ThisStore {
    pub(super) async fn read_feed(&self) -> Result<Feed, StoreError> {
        let (epoch, transaction, number) =
            sqlx::query_as("SELECT number, forgotten_tx, forgotten_number FROM epoch WHERE one = 1")
                .fetch_one(&mut *self.reader().await?)
                .await?;
        Ok(Feed { epoch, forgotten: Position { transaction, number } })
    }

    /// No stream goes on from before: tokens are replaced, so that every LSN tells its whole table anew.
    pub(super) async fn write_epoch(&self, token: &Opaque, now: Timestamp) -> Result<i64, StoreError> {
        let mut tx = self.begin().await?;
        let epoch: i64 = sqlx::query_scalar(
            "UPDATE epoch SET number = number + 1, opened_at = $1 WHERE one = 1 RETURNING number",
        )
        .bind(now.as_micros())
        .fetch_one(&mut *tx)
        .await?;
        // Another server counts its transactions anew: what it took over comes before them all, in its order.
        for sql in [
            "UPDATE events SET tx = 0",
            "UPDATE task_log SET tx = 0",
            "UPDATE audit_outbox SET tx = 0",
            "UPDATE epoch SET forgotten_tx = 0",
        ] {
            sqlx::query(sql).execute(&mut *tx).await?;
        }
        sqlx::query("UPDATE replicas SET lease_until = 0").execute(&mut *tx).await?;
        sqlx::query("DELETE FROM jobs").execute(&mut *tx).await?;
        let docs: Vec<String> = sqlx::query_scalar("SELECT doc FROM attachments").fetch_all(&mut *tx).await?;
        for doc in docs {
            let attachment = Attachment { token: token.clone(), ..row(&doc)? };
            sqlx::query("UPDATE attachments SET doc = $1, revision = revision + 1 WHERE node = $2")
                .bind(document(&attachment)?)
                .bind(attachment.node.as_bytes())
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(epoch)
    }

    pub(super) async fn write_job(
        &self,
        job: &str,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let taken = sqlx::query(
            "INSERT INTO jobs (name, holder, lease_until) VALUES ($1, $2, $3) ON CONFLICT (name) \
             DO UPDATE SET holder = excluded.holder, lease_until = excluded.lease_until \
             WHERE jobs.holder = excluded.holder OR jobs.lease_until < $4",
        )
        .bind(job)
        .bind(holder)
        .bind(until.as_micros())
        .bind(now.as_micros())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(taken.rows_affected() == 1)
    }

    pub(super) async fn read_others(
        &self,
        replica: &str,
        now: Timestamp,
    ) -> Result<Vec<(String, Timestamp)>, StoreError> {
        let rows: Vec<(String, i64)> =
            sqlx::query_as("SELECT name, renewed_at FROM replicas WHERE name <> $1 AND lease_until > $2")
                .bind(replica)
                .bind(now.as_micros())
                .fetch_all(&mut *self.reader().await?)
                .await?;
        Ok(rows.into_iter().map(|(name, at)| (name, Timestamp::from_micros(at))).collect())
    }
}
