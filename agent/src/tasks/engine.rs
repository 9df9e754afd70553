//! The one loop through which every task of this node goes.
//!
//! In: offers, cancellations and acknowledgements, by whatever route. Out: upstream items, through the outbox.
//! Commits of several offers are under way at once, so that they share an fsync and none waits for another's program.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use muster_kit::crash;
use muster_proto::control::v1::{
    OperationFailure, TaskOffer, TaskReportAck, TrafficClass, UpstreamItem, upstream_item,
};
use muster_proto::task::v1::task_report::Step;
use muster_proto::task::v1::{Delivered, Finished, Started, TaskState};
use muster_proto::trust::v1::Envelope;
use muster_types::limits::TASK_LIFETIME;
use muster_wire::time::to_wire;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::journal::{self, Admission as Answer, Journal, JournalError, Offer, Stage, TaskKey, Trust};
use crate::tasks::admission::{Admission, Admitted, Refusal};
use crate::tasks::execution::execute;
use crate::tasks::lanes::Lanes;
use crate::tasks::reporter::{Outbox, Reporter, Signer, item_of};
use crate::tasks::{Context, Outcome, Stop};

/// Commands that wait for the engine. When full, the route to the master waits, and with it the master.
const COMMANDS: usize = 256;

/// Reports that the master did not acknowledge are sent again after this, and whenever a route comes up.
const RESEND_INTERVAL: Duration = Duration::from_secs(30);

/// Ids are forgotten some time after no order of theirs can be valid any more.
const KEPT_IDS: Duration = Duration::from_secs(31 * 24 * 3600);
const PURGE_INTERVAL: Duration = Duration::from_secs(3600);

/// Reports may have gone out whose commit did not survive a crash: a later life of the agent numbers far beyond them.
const SEQUENCES_OF_ONE_LIFE: u64 = 1 << 20;
/// After the loss of the journal nothing is known of the numbers used.
const SEQUENCE_AFTER_LOSS: u64 = 1 << 40;

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
        Reporter::new(key.clone(), next, self.signer.clone(), self.outbox.clone(), traceparent.to_owned())
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut resend = tokio::time::interval(RESEND_INTERVAL);
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

    async fn recover(&mut self) -> Result<(), JournalError> {
        let left = self.journal().recover().await?;
        for (key, next) in left.interrupted {
            self.report_lost(&key, next + SEQUENCES_OF_ONE_LIFE).await;
            crash::point("journal.lost");
        }
        for (key, next, bytes) in left.waiting {
            let now = self.signer.clock.now();
            let Ok(offer) = TaskOffer::decode(bytes) else { continue };
            let mut reporter = self.reporter(&key, next + SEQUENCES_OF_ONE_LIFE, &offer.traceparent);
            match self.admission.judge(&offer, now) {
                Ok(admitted) => {
                    self.lanes.wait(admitted.exclusive, Accepted { admitted, reporter });
                }
                Err(Refusal::Answered { state, code, reason, .. }) => {
                    reporter.finish(Outcome::ended(state, code, reason).finished).await;
                }
                // The master offers it again once we can read it.
                Err(error) => tracing::warn!(task = %key, %error, "an accepted task cannot be taken up"),
            }
        }
        Ok(())
    }

    async fn report_lost(&self, key: &TaskKey, sequence: u64) {
        tracing::warn!(task = %key, "a task was interrupted by the end of the agent; it is reported as lost");
        let reason = "the agent or the host ended while it ran; whether it took effect is unknown";
        let lost = Outcome::ended(TaskState::Lost, "AGENT_ENDED", reason);
        self.reporter(key, sequence, "").finish(lost.finished).await;
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

    fn on_offer(&mut self, offer: TaskOffer) {
        crash::point("order.received");
        if self.asking || !self.lanes.has_room() {
            // Unanswered: the master offers it again.
            tracing::debug!(self.asking, "an offer is left unanswered for now");
            return;
        }
        match self.admission.judge(&offer, self.signer.clock.now()) {
            Ok(admitted) => self.accept(admitted, &offer),
            Err(Refusal::Answered { key, state, code, reason }) => {
                tracing::warn!(task = %key, code, reason, "an order is refused");
                self.refuse(key, &offer, Outcome::ended(state, code, reason).finished);
            }
            Err(refusal) => self.report_failure("task.verify", "UNVERIFIED_ORDER", refusal.to_string()),
        }
    }

    fn accept(&mut self, admitted: Admitted, offer: &TaskOffer) {
        crash::point("order.verified");
        let started = self.lanes.take(admitted.exclusive);
        let mut reporter = self.reporter(&admitted.key, 1, &offer.traceparent);
        let mut reports = vec![reporter.write(Step::Delivered(Delivered {}))];
        if started {
            reports.push(reporter.write(Step::Started(Started {})));
        }
        let bytes = Bytes::from(offer.encode_to_vec());
        let kept = Offer { key: admitted.key.clone(), bytes, reports: reports.clone() };
        let commit = self.journal().admit(kept, started, self.signer.clock.now());
        self.commits.push(Box::pin(async move {
            let place = started.then_some(admitted.exclusive);
            let answer = commit.await;
            let done = answer.map(|answer| Done::Offered { admitted, reporter, started, reports, answer });
            logged(done, place)
        }));
    }

    fn refuse(&mut self, key: TaskKey, offer: &TaskOffer, finished: Finished) {
        let mut reporter = self.reporter(&key, 1, &offer.traceparent);
        let reports = vec![reporter.write(Step::Finished(finished))];
        let kept = Offer { key: key.clone(), bytes: Bytes::new(), reports: reports.clone() };
        let commit = self.journal().admit(kept, false, self.signer.clock.now());
        self.commits.push(Box::pin(async move {
            logged(commit.await.map(|answer| Done::Refused { key, reporter, reports, answer }), None)
        }));
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

    /// The master offers again what is known here: it has not heard of it.
    fn on_known(&mut self, key: TaskKey, mut reporter: Reporter, stage: Stage) {
        tracing::debug!(task = %key, ?stage, "a known task is offered again");
        if stage == Stage::Cancelled {
            self.commits.push(Box::pin(async move {
                reporter.finish(Outcome::stopped(Stop::Cancelled).finished).await;
                Done::Nothing
            }));
        } else {
            let outbox = self.outbox.clone();
            self.commits.push(Box::pin(async move {
                send_unacknowledged(&outbox, Some(key)).await;
                Done::Nothing
            }));
        }
    }

    /// STARTED is durable: from here on there may be effects.
    fn execute(&mut self, accepted: Accepted) {
        crash::point("journal.started");
        let Accepted { admitted: Admitted { key, job, exclusive, timeout, .. }, reporter } = accepted;
        tracing::info!(task = %key, exclusive, ?timeout, "a task starts");
        let (stop, stopped) = watch::channel(None);
        self.running.insert(key.clone(), stop.clone());
        let name = name_of(&key);
        let context = Context { name, reporter, stop: stopped };
        self.executions.spawn(async move {
            execute(job, context, stop, timeout).await;
            (key, exclusive)
        });
    }

    fn on_ended(&mut self, ended: Result<(TaskKey, bool), tokio::task::JoinError>) {
        match ended {
            Ok((key, exclusive)) => {
                tracing::info!(task = %key, "a task ended");
                self.running.remove(&key);
                self.lanes.give_back(exclusive);
            }
            // Panics are caught inside; only the end of the runtime cancels.
            Err(error) => tracing::error!(%error, "an execution ended without a word"),
        }
    }

    /// Begins waiting tasks as places become free.
    fn fill_lanes(&mut self) {
        while !self.asking
            && let Some(mut accepted) = self.lanes.next()
        {
            if self.signer.clock.now() > accepted.admitted.expires {
                self.lanes.give_back(accepted.admitted.exclusive);
                self.end_unstarted(
                    accepted,
                    Outcome::ended(TaskState::Expired, "EXPIRED", "it waited beyond its lifetime"),
                );
                continue;
            }
            let report = accepted.reporter.write(Step::Started(Started {}));
            let begun = self.journal().start(report.clone());
            self.commits.push(Box::pin(async move {
                let place = Some(accepted.admitted.exclusive);
                let begun = begun.await;
                if matches!(begun, Ok(true)) {
                    accepted.reporter.send(&report);
                }
                logged(begun.map(|begun| Done::Begun { accepted, begun }), place)
            }));
        }
    }

    fn end_unstarted(&mut self, mut accepted: Accepted, outcome: Outcome) {
        self.commits.push(Box::pin(async move {
            accepted.reporter.finish(outcome.finished).await;
            Done::Nothing
        }));
    }

    fn on_cancel(&mut self, envelope: &Envelope) {
        let task = match self.admission.judge_cancellation(envelope) {
            Ok(task) => task,
            Err(refusal) => {
                return self.report_failure("task.cancel", "UNVERIFIED_CANCELLATION", refusal.to_string());
            }
        };
        for (key, stop) in self.running.iter().filter(|(key, _)| key.task == task) {
            tracing::info!(task = %key, "a running task is cancelled");
            stop.send_replace(Some(Stop::Cancelled));
        }
        for accepted in self.lanes.withdraw(|accepted| accepted.admitted.key.task == task) {
            let reason = "it was cancelled before it started";
            self.end_unstarted(accepted, Outcome::ended(TaskState::Cancelled, "CANCELLED", reason));
        }
        // If it is not known at all, its order must not be carried out when it comes.
        let key = TaskKey { task, occurrence: String::new() };
        let marked = self.journal().cancel(&key, self.signer.clock.now());
        self.commits.push(Box::pin(async move { logged(marked.await.map(|_| Done::Nothing), None) }));
    }

    fn on_acknowledged(&mut self, ack: &TaskReportAck) {
        crash::point("ack.received");
        let Some(key) = TaskKey::new(&ack.task_id, &ack.occurrence) else { return };
        let forgotten = self.journal().acknowledge(key, ack.sequence);
        self.commits.push(Box::pin(async move {
            let done = forgotten.await.map(|()| Done::Nothing);
            crash::point("ack.recorded");
            logged(done, None)
        }));
    }

    fn on_adopt(&mut self, tasks: Vec<(TaskKey, String)>) {
        let state = |state: &str| state.trim_start_matches("TASK_STATE_").to_owned();
        let begun: Vec<_> = tasks
            .iter()
            .filter(|(_, of)| !matches!(state(of).as_str(), "QUEUED" | "DELIVERED"))
            .map(|(key, _)| key.clone())
            .collect();
        let open: Vec<_> =
            tasks.into_iter().filter(|(_, of)| state(of) == "STARTED").map(|(key, _)| key).collect();
        let adopted = self.journal().adopt(begun, self.signer.clock.now());
        self.commits.push(Box::pin(async move {
            let done = adopted.await.map(|begun| {
                let lost = begun.iter().filter(|key| open.contains(key)).cloned().collect();
                Done::Adopted { begun, lost }
            });
            logged(done, None)
        }));
    }

    fn on_adopted(&mut self, begun: &[TaskKey], lost: Vec<TaskKey>) {
        // What waits in a rolled-back journal and was begun before is not begun again.
        let withdrawn = self.lanes.withdraw(|accepted| begun.contains(&accepted.admitted.key));
        tracing::info!(
            known = begun.len(),
            withdrawn = withdrawn.len(),
            "the master said what was begun here"
        );
        for key in lost {
            let mut reporter = self.reporter(&key, SEQUENCE_AFTER_LOSS, "");
            let reason = "the node's task journal was lost while it ran or afterwards; whether it took effect is unknown";
            let finished = Outcome::ended(TaskState::Lost, "JOURNAL_LOST", reason).finished;
            self.commits.push(Box::pin(async move {
                reporter.finish(finished).await;
                Done::Nothing
            }));
        }
        match self.pairing.confirm() {
            Ok(()) => self.asking = false,
            Err(error) => {
                tracing::error!(%error, "tasks stay untouched until the journal's marker can be written")
            }
        }
    }

    /// Tells the master of something that no task can be blamed for.
    fn report_failure(&mut self, operation: &'static str, code: &'static str, reason: String) {
        tracing::warn!(operation, code, reason, "an operation failed");
        let made = self.signer.clock.now();
        let id = uuid::Uuid::now_v7().to_string();
        let failure = OperationFailure {
            item_id: id.clone(),
            operation: operation.to_owned(),
            reason_code: code.to_owned(),
            reason,
            failure_time: Some(to_wire(made)),
        };
        let body = Some(upstream_item::Body::Failure(failure));
        let item = UpstreamItem { class: TrafficClass::Telemetry.into(), body };
        let outbox = self.outbox.clone();
        self.commits.push(Box::pin(async move {
            outbox.keep(id, made, item).await;
            Done::Nothing
        }));
    }

    fn resend(&mut self) {
        if std::mem::replace(&mut self.resending, true) {
            return;
        }
        let outbox = self.outbox.clone();
        self.commits.push(Box::pin(async move {
            send_unacknowledged(&outbox, None).await;
            Done::Resent
        }));
    }

    fn purge(&mut self) {
        debug_assert!(KEPT_IDS > TASK_LIFETIME);
        let purged = self.journal().purge(self.signer.clock.now() - KEPT_IDS);
        self.commits.push(Box::pin(async move { logged(purged.await.map(|_| Done::Nothing), None) }));
    }

    /// Ends what runs, so that its end is reported by this life and not guessed by the next.
    async fn drain(mut self) {
        for stop in self.running.values() {
            stop.send_replace(Some(Stop::Shutdown));
        }
        let ended = async {
            while self.executions.join_next().await.is_some() {}
            while self.commits.next().await.is_some() {}
        };
        if tokio::time::timeout(DRAIN, ended).await.is_err() {
            tracing::warn!("tasks did not end in time; they will be reported as lost");
        }
    }
}

/// A name for directory and cgroup: unique, short, of harmless characters.
fn name_of(key: &TaskKey) -> String {
    let id = data_encoding::HEXLOWER.encode(&key.task);
    if key.occurrence.is_empty() {
        return id;
    }
    let hash = ring::digest::digest(&ring::digest::SHA256, key.occurrence.as_bytes());
    format!("{id}-{}", data_encoding::HEXLOWER.encode(&hash.as_ref()[..4]))
}

fn logged(done: Result<Done, JournalError>, place: Option<bool>) -> Done {
    done.unwrap_or_else(|error| {
        tracing::error!(%error, "a step of a task could not be made durable; it is not taken");
        Done::Failed { place }
    })
}

/// Sends what the master has not acknowledged: of one task, or everything.
async fn send_unacknowledged(outbox: &Outbox, only: Option<TaskKey>) {
    let mut after = only.clone().map(|key| (key, 0));
    loop {
        let page = match outbox.journal().unacknowledged(after.take()).await {
            Ok(page) => page,
            Err(error) => return tracing::warn!(%error, "unacknowledged reports cannot be read"),
        };
        for report in &page {
            if only.as_ref().is_some_and(|key| *key != report.key) {
                return;
            }
            if let Some(item) = item_of(report)
                && !outbox.send(item).await
            {
                return;
            }
        }
        match page.last() {
            Some(last) if page.len() == journal::REPORT_PAGE => {
                after = Some((last.key.clone(), last.sequence))
            }
            _ => break,
        }
    }
    if only.is_none() {
        send_items(outbox).await;
    }
}

async fn send_items(outbox: &Outbox) {
    let items = outbox.journal().items().await.unwrap_or_default();
    for item in items {
        if let Ok(item) = UpstreamItem::decode(item.body)
            && !outbox.send(item).await
        {
            return;
        }
    }
}
