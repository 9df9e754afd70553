//! The durable memory of tasks: what was accepted, what was started, what the master has yet to hear.
//!
//! Orders go in through [`Journal::admit`], reports through [`Journal::append`], acknowledgements through
//! [`Journal::acknowledge`]. One writer commits what has gathered in one transaction and one fsync; an answer
//! means that the commit is on disk.

mod pairing;
mod record;
mod statements;
mod writer;

use std::path::Path;

use muster_types::Timestamp;

pub use pairing::{Pairing, Trust};
pub use record::{Admission, Item, Offer, Recovered, Report, Stage, TaskId, TaskKey};
pub use writer::{Commit, JournalError};

use crate::journal::writer::Writer;

/// File of the journal in the state directory.
pub const FILE: &str = "journal.sqlite";

/// Reports that one page of [`Journal::unacknowledged`] holds.
pub const REPORT_PAGE: usize = 64;

/// A handle on the journal; clones share the one writer.
#[derive(Debug, Clone)]
pub struct Journal {
    writer: Writer,
}

impl Journal {
    /// Opens or creates the journal in `state_dir` and says whether its memory can be relied on.
    ///
    /// # Errors
    /// The file cannot be opened, is no journal, or cannot be written.
    pub async fn open(state_dir: &Path) -> Result<(Self, Trust), JournalError> {
        let mut connection = writer::connect(&state_dir.join(FILE)).await?;
        let trust = Pairing::of(state_dir).renew(&mut connection).await?;
        Ok((Self { writer: Writer::spawn(connection) }, trust))
    }

    /// Accepts an order, as STARTED at once if `start`. Known ids are answered, never accepted twice.
    pub fn admit(&self, offer: Offer, start: bool, now: Timestamp) -> Commit<Admission> {
        self.writer.submit(move |db| Box::pin(statements::admit(db, offer, start, now)))
    }

    /// Makes STARTED durable with its report; `false` if the task is not waiting (any more), and must not be started.
    pub fn start(&self, report: Report) -> Commit<bool> {
        self.writer.submit(move |db| Box::pin(statements::start(db, report)))
    }

    /// Keeps a report until it is acknowledged; a terminal one finishes its task.
    pub fn append(&self, report: Report) -> Commit<()> {
        self.writer.submit(move |db| Box::pin(statements::append(db, report)))
    }

    /// Remembers a task that was cancelled before its order came, or marks a waiting one.
    pub fn cancel(&self, key: &TaskKey, now: Timestamp) -> Commit<Option<Stage>> {
        let key = key.clone();
        self.writer.submit(move |db| Box::pin(statements::cancel(db, key, now)))
    }

    /// Marks tasks that the master knows as begun: they are never started here.
    pub fn adopt(&self, tasks: Vec<TaskKey>, now: Timestamp) -> Commit<Vec<TaskKey>> {
        self.writer.submit(move |db| Box::pin(statements::adopt(db, tasks, now)))
    }

    /// Forgets the reports of a task up to `sequence`: the master has them. It may take a second; a crash before that has
    /// the master hear them once more.
    pub fn acknowledge(&self, key: TaskKey, sequence: u64) -> Commit<()> {
        self.writer.submit_idly(move |db| Box::pin(statements::acknowledge(db, key, sequence)))
    }

    /// Commits what was put off.
    pub fn settle(&self) -> Commit<()> {
        self.writer.submit(|_| Box::pin(std::future::ready(Ok(()))))
    }

    /// The next reports after `after`, in order of task and sequence, at most [`REPORT_PAGE`].
    pub fn unacknowledged(&self, after: Option<(TaskKey, u64)>) -> Commit<Vec<Report>> {
        self.writer.submit(move |db| Box::pin(statements::unacknowledged(db, after)))
    }

    /// What an earlier life of the agent left: asked once, before anything starts.
    pub fn recover(&self) -> Commit<Recovered> {
        self.writer.submit(move |db| Box::pin(statements::recover(db)))
    }

    /// Keeps an item until the master acknowledged it.
    pub fn keep_item(&self, item: Item) -> Commit<()> {
        self.writer.submit(move |db| Box::pin(statements::keep_item(db, item)))
    }

    /// Items not yet acknowledged, oldest first.
    pub fn items(&self) -> Commit<Vec<Item>> {
        self.writer.submit(move |db| Box::pin(statements::items(db)))
    }

    pub fn acknowledge_items(&self, ids: Vec<String>) -> Commit<()> {
        self.writer.submit(move |db| Box::pin(statements::acknowledge_items(db, ids)))
    }

    /// Forgets finished tasks accepted before `before`, once nothing of theirs waits for the master.
    pub fn purge(&self, before: Timestamp) -> Commit<u64> {
        self.writer.submit(move |db| Box::pin(statements::purge(db, before)))
    }

    /// Empties it, as the memory of another node. Until the master has been asked, nothing starts by it.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn forget_everything(state_dir: &Path) -> Result<(), JournalError> {
        let pairing = Pairing::of(state_dir);
        let (journal, _) = Self::open(state_dir).await?;
        pairing.doubt()?;
        journal.writer.submit(|db| Box::pin(statements::forget_everything(db))).await
    }

    /// SQLite's journal mode and level of synchronisation, as the writer's connection has them.
    pub fn durability(&self) -> Commit<(String, i64)> {
        self.writer.submit(move |db| Box::pin(statements::durability(db)))
    }
}
