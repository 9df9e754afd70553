//! Deeds on their way to the audit log, in the order of their commits.

use sqlx::{AssertSqlSafe, Transaction};
use uuid::Uuid;

use super::super::{Db, HORIZON, NUMBERS_OF_JSON, ThisStore};
use super::decode::{document, number_list, row};
use crate::domain::deed::Deed;
use crate::store::{StoreError, WaitingDeed};

pub(super) async fn write(tx: &mut Transaction<'static, Db>, deed: &Deed) -> Result<(), StoreError> {
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
            sqlx::query_as(AssertSqlSafe(sql)).bind(limit).fetch_all(self.readers()).await?;
        rows.into_iter().map(|(number, id, doc)| Ok(WaitingDeed { number, id, deed: row(&doc)? })).collect()
    }

    pub(super) async fn remove_deeds(&self, numbers: &[i64]) -> Result<(), StoreError> {
        let sql = format!("DELETE FROM audit_outbox WHERE number IN ({NUMBERS_OF_JSON})");
        let mut tx = self.begin().await?;
        sqlx::query(AssertSqlSafe(sql)).bind(number_list(numbers.iter().copied())).execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }
}
