//! The shared store of several replicas: PostgreSQL, the only truth.

use muster_kit::database;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Pool, Postgres, Transaction};

use super::StoreError;

#[path = "shared/mod.rs"]
mod shared;

type Db = Postgres;

/// Connections of one replica.
const CONNECTIONS: u32 = 8;

/// Feeds are read below the oldest transaction that may still commit.
const HORIZON: &str = "(pg_snapshot_xmin(pg_current_snapshot())::text::bigint)";

/// Turns `$1`, a JSON array of hexadecimal texts, into rows of bytes.
const BYTES_OF_JSON: &str = "SELECT decode(value, 'hex') FROM json_array_elements_text($1::json)";

/// The same for numbers.
const NUMBERS_OF_JSON: &str = "SELECT value::bigint FROM json_array_elements_text($1::json)";

/// The same for texts.
const TEXTS_OF_JSON: &str = "SELECT json_array_elements_text($1::json)";

/// Before a statement: how it would be done; and in which column of the answer that is told.
const EXPLAIN: &str = "EXPLAIN";
const EXPLAINED_IN: usize = 0;

#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: Pool<Db>,
}

impl PostgresStore {
    /// Connects and brings the schema up to date.
    ///
    /// # Errors
    /// The database cannot be reached, or its schema is from a later version.
    pub async fn connect(options: PgConnectOptions) -> Result<Self, StoreError> {
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS);
        let pool = pool.connect_with(database::postgres(options)).await?;
        sqlx::migrate!("src/store/migrations/postgres").run(&pool).await?;
        Ok(Self { pool })
    }

    async fn reader(&self) -> Result<PoolConnection<Db>, sqlx::Error> {
        self.pool.acquire().await
    }

    async fn begin(&self) -> Result<Transaction<'static, Db>, StoreError> {
        Ok(self.pool.begin().await?)
    }
}

type ThisStore = PostgresStore;
