//! The shared store of several replicas: PostgreSQL, in a schema of its own beside other services'.

use muster_kit::database;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Pool, Postgres};

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
        let pool = database::postgres_schema(options, SCHEMA, CONNECTIONS).await?;
        sqlx::migrate!("src/store/migrations/postgres").run(&pool).await?;
        Ok(Self { pool })
    }
}

type ThisStore = PostgresStore;
