//! The store that replicas share. PostgreSQL is the only truth; no replica keeps anything that another needs.
//!
//! Each change is one transaction that begins by locking the head of the audit log, so that changes have one order.

use std::str::FromStr;
use std::time::Duration;

use muster_kit::{crash, database};
use muster_types::Timestamp;
use sqlx::Postgres;
use sqlx::postgres::{PgConnectOptions, PgPool};

use super::{Change, Horizon, Revision, StoreError};

#[path = "shared/mod.rs"]
mod shared;

type Db = Postgres;

/// Our tables' schema, so that several services may share a database.
const SCHEMA: &str = "muster_auth";

/// Connections of one replica.
const CONNECTIONS: u32 = 8;

/// Auth's store in a PostgreSQL database.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: PgPool,
    /// The audit chain of this replica.
    chain: String,
}

impl PostgresStore {
    /// Connects to `url` (`postgres://...`) as the replica that writes the audit chain `chain`, and makes our schema and tables if they are not there.
    ///
    /// # Errors
    /// The database cannot be reached or its tables are none of ours.
    pub async fn open(url: &str, chain: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url).map_err(open_error)?.application_name("muster-auth");
        let pool = database::postgres_schema(options, SCHEMA, CONNECTIONS).await.map_err(open_error)?;
        sqlx::migrate!("migrations/postgres").run(&pool).await.map_err(open_error)?;
        Ok(Self { pool, chain: chain.to_owned() })
    }

    fn readers(&self) -> &PgPool {
        &self.pool
    }

    fn own_chain(&self) -> &str {
        &self.chain
    }

    async fn change(&self, change: Change) -> Result<Revision, StoreError> {
        // Dropped without commit, on an error or when the caller goes away, it is rolled back.
        let mut transaction = self.pool.begin().await?;
        let revision = shared::apply(&mut transaction, &change, &self.chain).await?;
        crash::point("auth.store.before-commit");
        transaction.commit().await?;
        crash::point("auth.store.after-commit");
        Ok(revision)
    }

    async fn take_lease(
        &self,
        name: &str,
        holder: &str,
        now: Timestamp,
        term: Duration,
    ) -> Result<bool, StoreError> {
        let mut on = self.pool.acquire().await?;
        shared::lease(&mut on, name, holder, now, term).await
    }

    async fn forget(&self, horizon: Horizon, limit: u32) -> Result<u64, StoreError> {
        let mut on = self.pool.acquire().await?;
        shared::purge(&mut on, horizon, limit).await
    }
}

/// An error while opening; it never repeats the URL, which may hold a password.
fn open_error(error: impl std::fmt::Display) -> StoreError {
    StoreError::Open(error.to_string())
}

type ThisStore = PostgresStore;
