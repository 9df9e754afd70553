//! Connections that read, each lent to one query at a time.
//!
//! A pool asks a connection whether it lives before it takes it back, which is a second way to SQLite's thread and back for
//! each query. A file's connection does not break, so nobody asks here.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Error, SqliteConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

#[derive(Debug, Clone)]
pub(super) struct Readers {
    idle: Arc<Mutex<Vec<SqliteConnection>>>,
    /// As many as are idle; who waits is served in turn.
    free: Arc<Semaphore>,
    count: u32,
}

fn lock(idle: &Mutex<Vec<SqliteConnection>>) -> MutexGuard<'_, Vec<SqliteConnection>> {
    // One push or pop under the lock cannot be left half done.
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Readers {
    pub(super) async fn connect(options: &SqliteConnectOptions, count: u32) -> Result<Self, Error> {
        let mut idle = Vec::new();
        for _ in 0..count {
            idle.push(options.connect().await?);
        }
        let free = Arc::new(Semaphore::new(idle.len()));
        Ok(Self { idle: Arc::new(Mutex::new(idle)), free, count })
    }

    pub(super) async fn lend(&self) -> Result<Reader, Error> {
        let permit = self.free.clone().acquire_owned().await.map_err(|_| Error::PoolClosed)?;
        let connection = lock(&self.idle).pop().ok_or(Error::PoolClosed)?;
        Ok(Reader { connection: Some(connection), idle: self.idle.clone(), _permit: permit })
    }

    /// Waits until nobody reads any more.
    pub(super) async fn close(&self) {
        // Closed already, if it fails.
        let Ok(all) = self.free.acquire_many(self.count).await else { return };
        self.free.close();
        let connections = std::mem::take(&mut *lock(&self.idle));
        for connection in connections {
            if let Err(error) = connection.close().await {
                tracing::debug!(%error, "a connection that read did not close cleanly");
            }
        }
        drop(all);
    }
}

/// A connection until this is dropped.
pub(super) struct Reader {
    /// There until the drop.
    connection: Option<SqliteConnection>,
    idle: Arc<Mutex<Vec<SqliteConnection>>>,
    /// Given back after the connection is.
    _permit: OwnedSemaphorePermit,
}

impl Deref for Reader {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.connection.as_ref().expect("it is there until the drop")
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.connection.as_mut().expect("it is there until the drop")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        lock(&self.idle).extend(self.connection.take());
    }
}
