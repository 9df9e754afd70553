//! The embedded store: one SQLite file, WAL with `synchronous=FULL`, one connection that writes.

use std::path::Path;

use muster_kit::database;
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{Pool, Sqlite, Transaction};

use super::StoreError;

mod readers;
#[path = "shared/mod.rs"]
mod shared;

use readers::{Reader, Readers};

type Db = Sqlite;

/// Connections that read beside the writer: a handful of streams read at one moment.
const READERS: u32 = 4;

/// Every transaction is finished: nothing is hidden from a feed.
const HORIZON: &str = "9223372036854775807";

/// Turns `$1`, a JSON array of hexadecimal texts, into rows of bytes.
const BYTES_OF_JSON: &str = "SELECT unhex(value) FROM json_each($1)";

/// The same for numbers.
const NUMBERS_OF_JSON: &str = "SELECT value FROM json_each($1)";

/// The same for texts.
const TEXTS_OF_JSON: &str = NUMBERS_OF_JSON;

/// Before a statement: how it would be done; and in which column of the answer that is told.
const EXPLAIN: &str = "EXPLAIN QUERY PLAN";
const EXPLAINED_IN: usize = 3;

#[derive(Debug, Clone)]
pub struct SqliteStore {
    writer: Pool<Db>,
    readers: Readers,
}

impl SqliteStore {
    /// Opens the file, which is made if it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// The file cannot be opened, or its schema is from a later version.
    pub async fn open(file: &Path) -> Result<Self, StoreError> {
        let options = database::sqlite(file);
        let _alone = database::opening(file).await?;
        // A file's connection does not break; asking it before each use would double the way of every query.
        let pool = SqlitePoolOptions::new().test_before_acquire(false).max_connections(1);
        let writer = pool.connect_with(options.clone()).await?;
        sqlx::migrate!("src/store/migrations/sqlite").run(&writer).await?;
        let readers = Readers::connect(&options, READERS).await?;
        Ok(Self { writer, readers })
    }

    /// The value of a pragma on the connection that writes.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn pragma(&self, name: &str) -> Result<String, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}"));
        Ok(sqlx::query_scalar(sql).fetch_one(&self.writer).await?)
    }

    /// Waits until nothing uses the file any more.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn reader(&self) -> Result<Reader, sqlx::Error> {
        self.readers.lend().await
    }

    /// `IMMEDIATE`: the lock is taken before anything is read.
    async fn begin(&self) -> Result<Transaction<'static, Db>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

type ThisStore = SqliteStore;
