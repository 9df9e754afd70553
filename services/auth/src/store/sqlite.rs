//! The embedded store: one file, one writer, group commit.
//!
//! Changes queue up; the writer takes all that wait, gives each its savepoint inside one transaction, commits once
//! (one fsync) and only then answers them all. Readers have their own connections (WAL: they never wait for the writer).

use std::path::Path;
use std::time::Duration;

use muster_kit::{crash, database};
use muster_types::Timestamp;
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use sqlx::{ConnectOptions, Sqlite, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::{Change, Horizon, Revision, StoreError};
use crate::domain::audit::MAIN_CHAIN;

#[path = "shared/mod.rs"]
mod shared;

type Db = Sqlite;

/// Changes that wait for the writer; a caller beyond them waits for room.
const QUEUE: usize = 1_024;

/// Changes in one transaction: what an fsync is shared by.
const GROUP: usize = 256;

/// Reading connections.
const READERS: u32 = 4;

/// Another process (a backup) may hold the file this long.
const BUSY_LIMIT: Duration = Duration::from_secs(10);

/// Auth's store in one file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    readers: SqlitePool,
    writer: mpsc::Sender<Job>,
}

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

#[derive(Debug)]
enum Job {
    Change(Box<Change>, Answer<Revision>),
    Lease {
        name: String,
        holder: String,
        now: Timestamp,
        term: Duration,
        answer: Answer<bool>,
    },
    Purge(Horizon, u32, Answer<u64>),
    /// The writer's own setting, which is the one that counts.
    Synchronous(Answer<i64>),
}

/// A job that was done, and whoever waits for the commit.
enum Done {
    Change(Result<Revision, StoreError>, Answer<Revision>),
    Lease(Result<bool, StoreError>, Answer<bool>),
    Purge(Result<u64, StoreError>, Answer<u64>),
    Synchronous(Result<i64, StoreError>, Answer<i64>),
}

impl SqliteStore {
    /// Opens the file, makes it and its tables if they are not there. The writer ends with the last clone.
    ///
    /// # Errors
    /// The file cannot be opened or is none of ours.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = database::sqlite(path).busy_timeout(BUSY_LIMIT);
        let opening = |error: String| StoreError::Open(format!("{}: {error}", path.display()));
        let alone = database::opening(path).await.map_err(|error| opening(error.to_string()))?;
        let mut writer = options.connect().await.map_err(|error| opening(error.to_string()))?;
        sqlx::migrate!("migrations/sqlite")
            .run(&mut writer)
            .await
            .map_err(|error| opening(error.to_string()))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            // A file's connection does not break; asking it before each use would double the way of every query.
            .test_before_acquire(false)
            .connect_with(options.create_if_missing(false))
            .await
            .map_err(|error| opening(error.to_string()))?;
        drop(alone);
        let (sender, jobs) = mpsc::channel(QUEUE);
        tokio::spawn(write(writer, jobs));
        Ok(Self { readers, writer: sender })
    }

    /// How the store really writes: its journal mode and its synchronous setting (2 is FULL).
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn pragmas(&self) -> Result<(String, i64), StoreError> {
        let journal_mode = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&self.readers).await?;
        let (answer, synchronous) = oneshot::channel();
        self.writer.send(Job::Synchronous(answer)).await.map_err(|_| gone())?;
        Ok((journal_mode, synchronous.await.map_err(|_| gone())??))
    }

    fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    fn own_chain(&self) -> &str {
        MAIN_CHAIN
    }

    async fn change(&self, change: Change) -> Result<Revision, StoreError> {
        self.ask(|answer| Job::Change(Box::new(change), answer)).await
    }

    async fn take_lease(
        &self,
        name: &str,
        holder: &str,
        now: Timestamp,
        term: Duration,
    ) -> Result<bool, StoreError> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.ask(|answer| Job::Lease { name, holder, now, term, answer }).await
    }

    async fn forget(&self, horizon: Horizon, limit: u32) -> Result<u64, StoreError> {
        self.ask(|answer| Job::Purge(horizon, limit, answer)).await
    }

    async fn ask<T>(&self, job: impl FnOnce(Answer<T>) -> Job) -> Result<T, StoreError> {
        let (answer, result) = oneshot::channel();
        self.writer.send(job(answer)).await.map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }
}

type ThisStore = SqliteStore;

fn gone() -> StoreError {
    StoreError::Unavailable("its writer has ended".to_owned())
}

/// The writer: until every handle is dropped, one group after the other.
async fn write(mut on: SqliteConnection, mut jobs: mpsc::Receiver<Job>) {
    let mut group = Vec::with_capacity(GROUP);
    while jobs.recv_many(&mut group, GROUP).await > 0 {
        let mut done = Vec::with_capacity(group.len());
        let outcome = transact(&mut on, group.drain(..), &mut done).await;
        if outcome.is_err() {
            // A transaction that could not be committed must not stay open; if even this fails, so will the next BEGIN.
            let _ = sqlx::query("ROLLBACK").execute(&mut on).await;
        }
        for done in done {
            done.answer(&outcome);
        }
    }
}

async fn transact(
    on: &mut SqliteConnection,
    jobs: impl Iterator<Item = Job>,
    done: &mut Vec<Done>,
) -> Result<(), StoreError> {
    let begun = sqlx::query("BEGIN IMMEDIATE").execute(&mut *on).await.map(drop).map_err(StoreError::from);
    for job in jobs {
        done.push(if let Err(error) = &begun { job.refuse(error) } else { job.perform(on).await });
    }
    begun?;
    crash::point("auth.store.before-commit");
    sqlx::query("COMMIT").execute(&mut *on).await?;
    crash::point("auth.store.after-commit");
    Ok(())
}

impl Job {
    /// Does the job within its own savepoint: what fails leaves no trace and does not concern its neighbors.
    async fn perform(self, on: &mut SqliteConnection) -> Done {
        match self {
            Self::Change(change, answer) => {
                let result = match savepoint(on, "SAVEPOINT job").await {
                    Ok(()) => shared::apply(on, &change, MAIN_CHAIN).await,
                    Err(error) => Err(error),
                };
                Done::Change(release(on, result).await, answer)
            }
            Self::Lease { name, holder, now, term, answer } => {
                Done::Lease(shared::lease(on, &name, &holder, now, term).await, answer)
            }
            Self::Purge(horizon, limit, answer) => {
                Done::Purge(shared::purge(on, horizon, limit).await, answer)
            }
            Self::Synchronous(answer) => {
                let setting = sqlx::query_scalar("PRAGMA synchronous").fetch_one(on).await;
                Done::Synchronous(setting.map_err(StoreError::from), answer)
            }
        }
    }

    fn refuse(self, error: &StoreError) -> Done {
        match self {
            Self::Change(_, answer) => Done::Change(Err(error.clone()), answer),
            Self::Lease { answer, .. } => Done::Lease(Err(error.clone()), answer),
            Self::Purge(_, _, answer) => Done::Purge(Err(error.clone()), answer),
            Self::Synchronous(answer) => Done::Synchronous(Err(error.clone()), answer),
        }
    }
}

async fn release<T>(on: &mut SqliteConnection, result: Result<T, StoreError>) -> Result<T, StoreError> {
    if result.is_err() {
        savepoint(on, "ROLLBACK TO job").await?;
    }
    savepoint(on, "RELEASE job").await?;
    result
}

async fn savepoint(on: &mut SqliteConnection, sql: &'static str) -> Result<(), StoreError> {
    sqlx::query(sql).execute(on).await?;
    Ok(())
}

impl Done {
    /// Answers after the commit. Whoever no longer waits does not mind.
    fn answer(self, committed: &Result<(), StoreError>) {
        fn settle<T>(result: Result<T, StoreError>, answer: Answer<T>, committed: &Result<(), StoreError>) {
            let _ = answer.send(result.and_then(|value| committed.clone().map(|()| value)));
        }
        match self {
            Self::Change(result, answer) => settle(result, answer, committed),
            Self::Lease(result, answer) => settle(result, answer, committed),
            Self::Purge(result, answer) => settle(result, answer, committed),
            Self::Synchronous(result, answer) => settle(result, answer, committed),
        }
    }
}
