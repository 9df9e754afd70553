//! The shared store of several replicas: PostgreSQL, in a schema of its own beside other services'.

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Pool, Postgres};

use super::StoreError;

#[path = "shared.rs"]
mod shared;

/// Connections of one replica: it reads at its start and writes now and then.
const CONNECTIONS: u32 = 2;

const SCHEMA: &str = "muster_dht";

#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: Pool<Postgres>,
}

impl PostgresStore {
    /// Connects and brings the schema up to date.
    ///
    /// # Errors
    /// The database cannot be reached, or its schema is from a later version.
    pub async fn connect(options: PgConnectOptions) -> Result<Self, StoreError> {
        let mut first = options.connect().await?;
        // Replicas that start together make it one after the other: IF NOT EXISTS alone races.
        sqlx::query("SELECT pg_advisory_lock(hashtext('muster_dht'))").execute(&mut first).await?;
        sqlx::query("CREATE SCHEMA IF NOT EXISTS muster_dht").execute(&mut first).await?;
        first.close().await?;
        let options = options.options([("search_path", SCHEMA)]);
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect_with(options).await?;
        sqlx::migrate!("src/store/migrations/postgres").run(&pool).await?;
        Ok(Self { pool })
    }
}

type ThisStore = PostgresStore;
