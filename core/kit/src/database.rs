//! How every service opens its store: an SQLite file whose commits are durable, or tables in a PostgreSQL database that
//! services and their replicas share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

/// Where a service keeps what outlives it.
#[derive(Debug, Clone)]
pub enum StoreConfig {
    /// One file, which is made if it is not there.
    Sqlite(PathBuf),
    /// `postgres://user@host/database`
    Postgres(String),
}

impl StoreConfig {
    /// The database of that address, or else a file of the service's name in the data directory.
    pub fn of(url: Option<&str>, data_dir: &Path, service: &str) -> Self {
        match url {
            Some(url) => Self::Postgres(url.to_owned()),
            None => Self::Sqlite(data_dir.join(format!("{service}.db"))),
        }
    }
}

/// What a replica was cut off in the midst of holds locks, and the horizon of feeds, no longer than this; our own
/// transactions wait for nothing between two statements.
const IDLE_TRANSACTION: &str = "10s";

/// How long a caller waits for a connection.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(5);

/// A file that is made if it is not there. Every commit is on the disk before it is acknowledged: WAL with
/// `synchronous=FULL`.
pub fn sqlite(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
}

/// Connections on which nothing stays locked for longer than a moment, whatever becomes of this process.
pub fn postgres(options: PgConnectOptions) -> PgConnectOptions {
    options.options([("idle_in_transaction_session_timeout", IDLE_TRANSACTION)])
}

/// A pool of at most `connections`, whose tables lie in `schema`; that is made if it is not there.
///
/// # Errors
/// The database cannot be reached, or does not let us make the schema.
pub async fn postgres_schema(
    options: PgConnectOptions,
    schema: &'static str,
    connections: u32,
) -> Result<PgPool, sqlx::Error> {
    let mut first = options.connect().await?;
    // Replicas that start together make it one after the other: IF NOT EXISTS alone races.
    sqlx::query("SELECT pg_advisory_lock(hashtext($1))").bind(schema).execute(&mut first).await?;
    let create = AssertSqlSafe(format!("CREATE SCHEMA IF NOT EXISTS {schema}"));
    sqlx::query(create).execute(&mut first).await?;
    first.close().await?;
    let options = postgres(options).options([("search_path", schema)]);
    let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_LIMIT);
    pool.connect_with(options).await
}
