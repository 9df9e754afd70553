//! How every service opens its store: an SQLite file whose commits are durable, or tables in a PostgreSQL database that
//! services and their replicas share.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

/// A file is opened, and its tables brought up to date, by one at a time; the others wait so long ...
const OPENING_LIMIT: Duration = Duration::from_secs(60);

/// ... and look so often.
const OPENING_LOOK: Duration = Duration::from_millis(20);

/// Held while a store's file is opened; ends when dropped, and with the process.
#[derive(Debug)]
#[must_use]
pub struct Opening(#[expect(dead_code, reason = "it is locked as long as it is open")] File);

/// Waits until nobody else opens this store's file. Processes that start together on a fresh folder need it: neither SQLite's
/// switch to WAL nor a migration waits for another's.
///
/// # Errors
/// The lock beside the file cannot be made, or another process opens the store for more than a minute.
pub async fn opening(file: &Path) -> Result<Opening, sqlx::Error> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let lock = File::options().create(true).write(true).truncate(false).open(file.with_file_name(name))?;
    let began = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(Opening(lock)),
            Err(TryLockError::Error(error)) => return Err(error.into()),
            Err(TryLockError::WouldBlock) if began.elapsed() > OPENING_LIMIT => {
                let error = format!("another process has been opening it for {OPENING_LIMIT:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, error).into());
            }
            Err(TryLockError::WouldBlock) => tokio::time::sleep(OPENING_LOOK).await,
        }
    }
}

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
