//! One task that writes: commands that wait while a transaction runs share the next one (group commit).
//!
//! A command is answered after the commit, so that whoever acknowledges acknowledges what is durable.

use std::sync::Arc;
use std::time::Instant;

use muster_kit::clock;
use tokio::sync::{mpsc, oneshot};

use crate::domain::ledger::{Command, Ledger, Wanted};
use crate::store::{Store, StoreError};
use crate::wake::WakeBus;
use crate::{metrics, tally};

mod load;

/// Commands that wait; further callers wait for a place, and their streams with them.
const QUEUE: usize = 1_024;

/// Commands of one transaction: more would make the first wait longer than the rest gain.
const BATCH: usize = 256;

/// How often a transaction that lost against another writer is tried again.
const ATTEMPTS: usize = 10;

/// Why a command was not carried out. It has had no effect, unless the store failed while committing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    #[error("{0}")]
    Store(Arc<StoreError>),
    #[error("topology is shutting down")]
    Ended,
}

/// Hands commands to the task that writes. Clones share it; it ends when the last is dropped.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Box<dyn Job>>,
}

impl Writer {
    /// The handle, and the task that is to be run.
    pub fn new(store: Arc<dyn Store>, bus: Arc<dyn WakeBus>) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, jobs) = mpsc::channel(QUEUE);
        (Self { queue }, run(store, bus, jobs))
    }

    /// Carries the command out, durably.
    ///
    /// # Errors
    /// The store failed, or the service is ending.
    pub async fn submit<C: Command>(&self, command: C) -> Result<C::Answer, WriteError> {
        let (reply, answer) = oneshot::channel();
        let job = Pending { command, answer: None, reply };
        self.queue.send(Box::new(job)).await.map_err(|_| WriteError::Ended)?;
        answer.await.map_err(|_| WriteError::Ended)?
    }
}

/// A command of any kind, with the one who waits for its answer.
trait Job: Send {
    fn wants(&self, wanted: &mut Wanted);
    fn apply(&mut self, ledger: &mut Ledger);
    fn finish(self: Box<Self>, outcome: Result<(), WriteError>);
}

struct Pending<C: Command> {
    command: C,
    answer: Option<C::Answer>,
    reply: oneshot::Sender<Result<C::Answer, WriteError>>,
}

impl<C: Command> Job for Pending<C> {
    fn wants(&self, wanted: &mut Wanted) {
        self.command.wants(wanted);
    }

    fn apply(&mut self, ledger: &mut Ledger) {
        self.answer = Some(self.command.apply(ledger));
    }

    fn finish(self: Box<Self>, outcome: Result<(), WriteError>) {
        let Self { answer, reply, .. } = *self;
        // Whoever asked may have gone; what was asked is done all the same.
        let _ = reply.send(outcome.and_then(|()| answer.ok_or(WriteError::Ended)));
    }
}

async fn run(store: Arc<dyn Store>, bus: Arc<dyn WakeBus>, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
    let mut batch = Vec::with_capacity(BATCH);
    while jobs.recv_many(&mut batch, BATCH).await > 0 {
        let begin = Instant::now();
        let outcome = commit(&*store, &*bus, &mut batch).await.map_err(|error| {
            metrics::store_failed();
            tracing::error!(%error, commands = batch.len(), "the store did not take a transaction");
            WriteError::Store(Arc::new(error))
        });
        metrics::committed(begin.elapsed(), batch.len());
        for job in batch.drain(..) {
            job.finish(outcome.clone());
        }
    }
}

async fn commit(store: &dyn Store, bus: &dyn WakeBus, batch: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
    let mut wanted = Wanted::default();
    for job in batch.iter() {
        job.wants(&mut wanted);
    }
    for _ in 0..ATTEMPTS {
        let now = clock::wall();
        let mut ledger = load::ledger(store, &wanted, now).await?;
        for job in batch.iter_mut() {
            job.apply(&mut ledger);
        }
        let (changes, wakes) = ledger.close();
        let committed = if changes.is_empty() { Ok(()) } else { store.commit(&changes, now).await };
        match committed {
            Err(StoreError::Conflict) => metrics::conflict(),
            Err(error) => return Err(error),
            Ok(()) => {
                tally::count(&changes, now);
                bus.publish(wakes);
                return Ok(());
            }
        }
    }
    Err(StoreError::Conflict)
}
