//! Deeds on their way to the audit log, in the order of their commits. When too many wait, what hosts did is counted instead.

use muster_types::Timestamp;
use sqlx::{AssertSqlSafe, Transaction};
use uuid::Uuid;

use super::super::{Db, HORIZON, NUMBERS_OF_JSON, ThisStore};
use super::decode::{document, number_list, row};
use crate::domain::deed::Deed;
use crate::store::{DEEDS, StoreError, WaitingDeed};

const COUNT: &str = "SELECT COUNT(*) FROM audit_outbox";

pub(super) async fn write(tx: &mut Transaction<'static, Db>, deeds: &[Deed]) -> Result<(), StoreError> {
    if deeds.is_empty() {
        return Ok(());
    }
    // What people asked for is written however many wait.
    let mut waiting: i64 = match deeds.iter().all(|deed| deed.action.is_asked_for()) {
        true => 0,
        false => sqlx::query_scalar(COUNT).fetch_one(&mut **tx).await?,
    };
    let mut omitted = 0_i64;
    for deed in deeds {
        if waiting >= DEEDS && !deed.action.is_asked_for() {
            omitted += 1;
            continue;
        }
        waiting += 1;
        insert(tx, deed).await?;
    }
    if omitted > 0 {
        let sql = "UPDATE audit_overflow SET omitted = omitted + $1";
        sqlx::query(sql).bind(omitted).execute(&mut **tx).await?;
    }
    Ok(())
}

async fn insert(tx: &mut Transaction<'static, Db>, deed: &Deed) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO audit_outbox (id, doc) VALUES ($1, $2)")
        .bind(Uuid::now_v7().to_string())
        .bind(document(deed)?)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

impl ThisStore {
    pub(super) async fn read_deeds(&self, limit: i64) -> Result<Vec<WaitingDeed>, StoreError> {
        let sql = format!(
            "SELECT number, id, doc FROM audit_outbox WHERE tx < {HORIZON} ORDER BY tx, number LIMIT $1"
        );
        let rows: Vec<(i64, String, String)> =
            sqlx::query_as(AssertSqlSafe(sql)).bind(limit).fetch_all(&mut *self.reader().await?).await?;
        rows.into_iter().map(|(number, id, doc)| Ok(WaitingDeed { number, id, deed: row(&doc)? })).collect()
    }

    pub(super) async fn remove_deeds(&self, numbers: &[i64]) -> Result<(), StoreError> {
        let sql = format!("DELETE FROM audit_outbox WHERE number IN ({NUMBERS_OF_JSON})");
        let mut tx = self.begin().await?;
        sqlx::query(AssertSqlSafe(sql)).bind(number_list(numbers.iter().copied())).execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }

    pub(super) async fn count_deeds(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar(COUNT).fetch_one(&mut *self.reader().await?).await?)
    }

    pub(super) async fn confess(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let omitted: i64 =
            sqlx::query_scalar("SELECT omitted FROM audit_overflow").fetch_one(&mut *tx).await?;
        if omitted == 0 {
            return Ok(0);
        }
        // Of replicas that try at once one succeeds, and none while another still counts.
        let sql = "UPDATE audit_overflow SET omitted = 0 WHERE omitted = $1";
        let taken = sqlx::query(sql).bind(omitted).execute(&mut *tx).await?;
        let omitted = u64::try_from(omitted).unwrap_or(0);
        if taken.rows_affected() == 0 {
            return Ok(0);
        }
        insert(&mut tx, &Deed::omission(now, omitted)).await?;
        tx.commit().await?;
        Ok(omitted)
    }
}
