//! The databases as an operator meets them: a copy of one that is in use, whether one is whole, whether one answers.

use std::path::Path;
use std::time::Duration;

use muster_kit::clock;
use muster_types::Timestamp;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, SqliteConnection};

/// PostgreSQL answers within this, or an operator wants to know.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("no answer within {LIMIT:?}")]
    Silent,
}

async fn open(file: &Path) -> Result<SqliteConnection, DatabaseError> {
    Ok(SqliteConnectOptions::new().filename(file).create_if_missing(false).connect().await?)
}

/// Copies a SQLite file as it is at one moment, while others write it. `to` must not be there yet.
pub async fn copy(file: &Path, to: &Path) -> Result<(), DatabaseError> {
    let mut connection = open(file).await?;
    sqlx::query("VACUUM INTO $1").bind(to.display().to_string()).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// Whether every page of a SQLite file is sound.
pub async fn verify(file: &Path) -> Result<(), DatabaseError> {
    let mut connection = open(file).await?;
    let found: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut connection).await?;
    connection.close().await?;
    if found == "ok" { Ok(()) } else { Err(DatabaseError::Damaged(found)) }
}

/// The server's version, and how far its clock and ours are apart.
pub async fn ask_postgres(url: &str) -> Result<(String, Duration), DatabaseError> {
    let asked = async {
        let mut connection = PgConnection::connect(url).await?;
        let (version, micros): (String, i64) = sqlx::query_as(
            "SELECT current_setting('server_version'), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
        )
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        let (theirs, ours) = (Timestamp::from_micros(micros), clock::wall());
        Ok((version, ours.since(theirs).max(theirs.since(ours))))
    };
    tokio::time::timeout(LIMIT, asked).await.unwrap_or(Err(DatabaseError::Silent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_copy_is_whole_and_a_damaged_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (file, to) = (folder.path().join("a.db"), folder.path().join("b.db"));
        let mut writer =
            SqliteConnectOptions::new().filename(&file).create_if_missing(true).connect().await.unwrap();
        for sql in ["PRAGMA journal_mode = WAL", "CREATE TABLE t (v TEXT)", "INSERT INTO t VALUES ('kept')"] {
            sqlx::query(sql).execute(&mut writer).await.unwrap();
        }
        copy(&file, &to).await.unwrap();
        verify(&to).await.unwrap();
        let mut read = open(&to).await.unwrap();
        let kept: String = sqlx::query_scalar("SELECT v FROM t").fetch_one(&mut read).await.unwrap();
        assert_eq!(kept, "kept");
        let bytes = std::fs::read(&to).unwrap();
        std::fs::write(&to, &bytes[..bytes.len() / 2]).unwrap();
        assert!(verify(&to).await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("missing.db");
        assert!(verify(&file).await.is_err());
        assert!(!file.exists());
    }
}
