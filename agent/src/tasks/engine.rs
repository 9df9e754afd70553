//! The one loop through which every task of this node goes.
//!
//! In: offers, cancellations and acknowledgements, by whatever route. Out: upstream items, through the outbox.
//! Commits of several offers are under way at once, so that they share an fsync and none waits for another's program.

mod cancellation;
mod offers;
mod recovery;
mod unheard;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use muster_kit::crash;
use muster_proto::control::v1::{TaskOffer, TaskReportAck};
use muster_proto::trust::v1::Envelope;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::journal::{self, Admission as Answer, Journal, JournalError, TaskKey, Trust};
use crate::tasks::Stop;
use crate::tasks::admission::{Admission, Admitted};
use crate::tasks::lanes::Lanes;
use crate::tasks::reporter::{Outbox, Reporter, Signer};

/// Commands that wait for the engine. When full, the route to the master waits, and with it the master.
const COMMANDS: usize = 256;

/// Reports that the master did not acknowledge are sent again after this, and whenever a route comes up.
const RESEND_INTERVAL: Duration = Duration::from_secs(30);

/// Old ids are looked for this often.
const PURGE_INTERVAL: Duration = Duration::from_secs(3600);

/// How long the engine's last reports may take when the agent ends.
const DRAIN: Duration = Duration::from_secs(5);

/// What the engine is told.
#[derive(Debug)]
enum Command {
    Offer(TaskOffer),
    Cancel(Envelope),
    Acknowledged(TaskReportAck),
    ItemsAcknowledged(Vec<String>),
    RouteUp,
    Adopt(Vec<(TaskKey, String)>),
    Finish,
}

/// A handle on the engine.
#[derive(Debug, Clone)]
pub struct Tasks {
    commands: mpsc::Sender<Command>,
    running: Arc<AtomicU32>,
}

impl Tasks {
    async fn tell(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::debug!("the task engine has ended");
        }
    }

    pub async fn offer(&self, offer: TaskOffer) {
        self.tell(Command::Offer(offer)).await;
    }

    pub async fn cancel(&self, cancellation: Envelope) {
        self.tell(Command::Cancel(cancellation)).await;
    }

    pub async fn acknowledged(&self, ack: TaskReportAck) {
        self.tell(Command::Acknowledged(ack)).await;
    }

    pub async fn items_acknowledged(&self, ids: Vec<String>) {
        self.tell(Command::ItemsAcknowledged(ids)).await;
    }

    /// There is a way to the master (again): what it has not acknowledged is sent.
    pub async fn route_up(&self) {
        self.tell(Command::RouteUp).await;
    }

    /// What the master holds of tasks for this node, with their states: asked after the journal was lost.
    pub async fn adopt(&self, tasks: Vec<(TaskKey, String)>) {
        self.tell(Command::Adopt(tasks)).await;
    }

    /// Stops what runs and ends the engine.
    pub async fn finish(&self) {
        self.tell(Command::Finish).await;
    }

    pub fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }
}

/// A task that was accepted and has a place, or waits for one.
struct Accepted {
    admitted: Admitted,
    reporter: Reporter,
}

/// What came of something durable.
enum Done {
    Offered {
        admitted: Admitted,
        reporter: Reporter,
        started: bool,
        reports: Vec<journal::Report>,
        answer: Answer,
    },
    Refused {
        key: TaskKey,
        reporter: Reporter,
        reports: Vec<journal::Report>,
        answer: Answer,
    },
    Begun {
        accepted: Accepted,
        begun: bool,
    },
    Adopted {
        begun: Vec<TaskKey>,
        lost: Vec<TaskKey>,
    },
    Resent,
    /// The journal failed, and `exclusive` says which place, if any, is free again.
    Failed {
        place: Option<bool>,
    },
    Nothing,
}

/// The state behind [`Tasks`].
pub struct Engine {
    admission: Admission,
    signer: Signer,
    outbox: Outbox,
    lanes: Lanes<Accepted>,
    running: HashMap<TaskKey, watch::Sender<Option<Stop>>>,
    executions: JoinSet<(TaskKey, bool)>,
    commits: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Offers are answered only once the master said what it knows.
    asking: bool,
    /// Those that came before it did.
    early: Vec<TaskOffer>,
    /// Everything unacknowledged is on its way.
    resending: bool,
    count: Arc<AtomicU32>,
    pairing: journal::Pairing,
}

impl Engine {
    /// Takes up what an earlier life of the agent left, and runs until [`Tasks::finish`].
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn start(
        admission: Admission,
        signer: Signer,
        outbox: Outbox,
        trust: Trust,
        pairing: journal::Pairing,
    ) -> Result<(Tasks, tokio::task::JoinHandle<()>), JournalError> {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let count = Arc::new(AtomicU32::new(0));
        let tasks = Tasks { commands, running: count.clone() };
        let mut engine = Self {
            admission,
            signer,
            outbox,
            lanes: Lanes::default(),
            running: HashMap::new(),
            executions: JoinSet::new(),
            commits: FuturesUnordered::new(),
            asking: trust == Trust::AskMaster,
            early: Vec::new(),
            resending: false,
            count,
            pairing,
        };
        engine.recover().await?;
        Ok((tasks, tokio::spawn(engine.run(inbox))))
    }

    fn journal(&self) -> &Journal {
        self.outbox.journal()
    }

    fn reporter(&self, key: &TaskKey, next: u64, traceparent: &str) -> Reporter {
        Reporter::new(key.clone(), next, self.signer.clone(), self.outbox.clone(), traceparent)
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut resend = tokio::time::interval_at(Instant::now() + RESEND_INTERVAL, RESEND_INTERVAL);
        let mut purge = tokio::time::interval(PURGE_INTERVAL);
        loop {
            // What is durable goes on before anything new is taken in.
            tokio::select! {
                biased;
                Some(done) = self.commits.next(), if !self.commits.is_empty() => self.on_done(done),
                Some(ended) = self.executions.join_next(), if !self.executions.is_empty() => self.on_ended(ended),
                command = inbox.recv() => match command {
                    Some(Command::Finish) | None => break,
                    Some(command) => self.on_command(command),
                },
                _ = resend.tick() => self.resend(),
                _ = purge.tick() => self.purge(),
            }
            self.fill_lanes();
            self.count.store(u32::try_from(self.running.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
        self.drain().await;
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Offer(offer) => self.on_offer(offer),
            Command::Cancel(envelope) => self.on_cancel(&envelope),
            Command::Acknowledged(ack) => self.on_acknowledged(&ack),
            Command::ItemsAcknowledged(ids) => {
                let forgotten = self.journal().acknowledge_items(ids);
                self.commits
                    .push(Box::pin(async move { logged(forgotten.await.map(|()| Done::Nothing), None) }));
            }
            Command::RouteUp => self.resend(),
            Command::Adopt(tasks) => self.on_adopt(tasks),
            Command::Finish => {}
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Offered { admitted, reporter, started, reports, answer: Answer::New } => {
                crash::point("journal.delivered");
                reports.iter().for_each(|report| reporter.send(report));
                let accepted = Accepted { admitted, reporter };
                if started {
                    self.execute(accepted);
                } else {
                    self.lanes.wait(accepted.admitted.exclusive, accepted);
                }
            }
            Done::Offered { admitted, reporter, started, answer: Answer::Known(stage), .. } => {
                if started {
                    self.lanes.give_back(admitted.exclusive);
                }
                self.on_known(admitted.key, reporter, stage);
            }
            Done::Refused { reporter, reports, answer: Answer::New, .. } => {
                reports.iter().for_each(|report| reporter.send(report));
            }
            Done::Refused { key, reporter, answer: Answer::Known(stage), .. } => {
                self.on_known(key, reporter, stage)
            }
            Done::Begun { accepted, begun: true } => self.execute(accepted),
            Done::Begun { accepted, begun: false } => self.lanes.give_back(accepted.admitted.exclusive),
            Done::Adopted { begun, lost } => self.on_adopted(&begun, lost),
            Done::Resent => self.resending = false,
            Done::Failed { place: Some(exclusive) } => self.lanes.give_back(exclusive),
            Done::Failed { place: None } | Done::Nothing => {}
        }
    }

    /// Ends what runs, so that its end is reported by this life and not guessed by the next.
    async fn drain(mut self) {
        for stop in self.running.values() {
            stop.send_replace(Some(Stop::Shutdown));
        }
        // What is not urgent is not waited for: it is committed now.
        let settled = self.journal().settle();
        self.commits.push(Box::pin(async move { logged(settled.await.map(|()| Done::Nothing), None) }));
        let ended = async {
            while self.executions.join_next().await.is_some() {}
            while self.commits.next().await.is_some() {}
        };
        if tokio::time::timeout(DRAIN, ended).await.is_err() {
            tracing::warn!("tasks did not end in time; they will be reported as lost");
        }
    }
}

fn logged(done: Result<Done, JournalError>, place: Option<bool>) -> Done {
    done.unwrap_or_else(|error| {
        tracing::error!(%error, "a step of a task could not be made durable; it is not taken");
        Done::Failed { place }
    })
}
