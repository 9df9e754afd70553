//! The embedded store: one SQLite file, WAL with `synchronous=FULL`, one connection.

use std::path::Path;

use muster_kit::database;
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{Pool, Sqlite};

use super::StoreError;

#[path = "shared.rs"]
mod shared;

#[derive(Debug, Clone)]
pub struct SqliteStore {
    pool: Pool<Sqlite>,
}

impl SqliteStore {
    /// Opens the file, which is made if it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// The file cannot be opened, or its schema is from a later version.
    pub async fn open(file: &Path) -> Result<Self, StoreError> {
        let _alone = database::opening(file).await?;
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(database::sqlite(file)).await?;
        sqlx::migrate!("src/store/migrations/sqlite").run(&pool).await?;
        Ok(Self { pool })
    }
}

type ThisStore = SqliteStore;
