//! One connection, one task: what has gathered since the last commit is one transaction, and one fsync.

use std::future::Future;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

/// Statements that wait for the next commit. When full, who submits waits: work slows down, nothing is lost.
const WAITING_STATEMENTS: usize = 1024;

/// Statements in one transaction, so that no commit takes long.
const GROUP: usize = 256;

/// Pages of the write-ahead log before it is folded back: 4 MiB of 4 KiB pages.
const CHECKPOINT_PAGES: &str = "1000";

/// What the page cache may hold, as SQLite counts it: negative is KiB.
const CACHE_KIB: &str = "-512";

/// Why the journal did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the task journal {path} cannot be opened: {source}")]
    Open { path: PathBuf, source: sqlx::Error },
    #[error("the task journal cannot be written: {0}")]
    Store(#[from] sqlx::Error),
    #[error("the task journal's marker {path} cannot be read: {source}")]
    Marker { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    File(#[from] muster_kit::files::FileError),
    #[error("the transaction that this belonged to was undone: {0}")]
    Undone(String),
    #[error("the task journal is closed")]
    Closed,
}

pub(crate) async fn connect(path: &Path) -> Result<SqliteConnection, JournalError> {
    let open = |source| JournalError::Open { path: path.to_owned(), source };
    // SQLite gives the files beside it the same mode.
    let made = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    made.map_err(|error| open(sqlx::Error::Io(error)))?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .pragma("cache_size", CACHE_KIB)
        .disable_statement_logging();
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(open)?;
    sqlx::raw_sql(include_str!("schema.sql")).execute(&mut connection).await.map_err(open)?;
    Ok(connection)
}

/// Work that nobody waits for is committed with the next that somebody does, or after this. What it forgets is small, and
/// forgotten again if it comes again.
const IDLE: Duration = Duration::from_secs(1);

/// A statement, and whether its commit may wait for others.
struct Work {
    run: Run,
    idle: bool,
}

type Run =
    Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<Deliver, sqlx::Error>> + Send>;
/// Hands a statement's answer over, once the transaction that held it is durable or undone.
type Deliver = Box<dyn FnOnce(Result<(), String>) + Send>;

/// What runs inside a transaction and answers `T`.
pub(crate) trait Statement<T>:
    for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + 'static
{
}

impl<T, F> Statement<T> for F where
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + 'static
{
}

#[derive(Debug, Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Work>,
}

/// The answer of the journal: ready when the transaction is on disk.
pub struct Commit<T>(BoxFuture<'static, Result<T, JournalError>>);

impl<T> Future for Commit<T> {
    type Output = Result<T, JournalError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl Writer {
    pub(crate) fn spawn(connection: SqliteConnection) -> Self {
        let (queue, work) = mpsc::channel(WAITING_STATEMENTS);
        // Ends when the last handle is dropped, after what was submitted is committed.
        tokio::spawn(commit_groups(connection, work));
        Self { queue }
    }

    /// Puts work in line. It is in line before this returns unless the line is full; then when first polled.
    pub(crate) fn submit<T: Send + 'static>(&self, work: impl Statement<T>) -> Commit<T> {
        self.enqueue(work, false)
    }

    /// The same for what may wait up to [`IDLE`] for other work.
    pub(crate) fn submit_idly<T: Send + 'static>(&self, work: impl Statement<T>) -> Commit<T> {
        self.enqueue(work, true)
    }

    fn enqueue<T: Send + 'static>(&self, work: impl Statement<T>, idle: bool) -> Commit<T> {
        let (answer, answered) = oneshot::channel();
        let run: Run = Box::new(move |db| {
            let done = work(db);
            Box::pin(async move {
                let value = done.await?;
                let deliver: Deliver = Box::new(move |committed| {
                    // Who does not wait for the answer has dropped its end.
                    let _ = answer.send(committed.map(|()| value));
                });
                Ok(deliver)
            })
        });
        let refused = match self.queue.try_send(Work { run, idle }) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(work) | mpsc::error::TrySendError::Closed(work)) => {
                Some(work)
            }
        };
        let queue = self.queue.clone();
        Commit(Box::pin(async move {
            if let Some(work) = refused {
                queue.send(work).await.map_err(|_| JournalError::Closed)?;
            }
            match answered.await {
                Ok(answer) => answer.map_err(JournalError::Undone),
                Err(_) => Err(JournalError::Undone("a statement in it failed".to_owned())),
            }
        }))
    }
}

async fn commit_groups(mut connection: SqliteConnection, mut queue: mpsc::Receiver<Work>) {
    let mut group = Vec::with_capacity(GROUP);
    while gather(&mut queue, &mut group).await {
        let mut answers = Vec::with_capacity(group.len());
        let outcome = commit(&mut connection, group.drain(..), &mut answers).await;
        if let Err(error) = &outcome {
            tracing::error!(%error, "the task journal cannot be written");
        }
        let outcome = outcome.map_err(|error| error.to_string());
        for deliver in answers {
            deliver(outcome.clone());
        }
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the task journal did not close cleanly");
    }
}

/// Waits for a group that is worth a commit; `false` when there will be none.
async fn gather(queue: &mut mpsc::Receiver<Work>, group: &mut Vec<Work>) -> bool {
    if queue.recv_many(group, GROUP).await == 0 {
        return false;
    }
    let patience = tokio::time::sleep(IDLE);
    tokio::pin!(patience);
    while group.len() < GROUP && group.iter().all(|work| work.idle) {
        let room = GROUP - group.len();
        tokio::select! {
            more = queue.recv_many(group, room) => if more == 0 { break },
            () = &mut patience => break,
        }
    }
    true
}

async fn commit(
    connection: &mut SqliteConnection,
    group: impl Iterator<Item = Work>,
    answers: &mut Vec<Deliver>,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    for work in group {
        answers.push((work.run)(&mut transaction).await?);
    }
    transaction.commit().await
}
