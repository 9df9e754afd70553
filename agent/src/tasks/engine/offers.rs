//! Orders on their way to a lane: judged, made durable, begun when there is a place.

use bytes::Bytes;
use muster_kit::crash;
use muster_proto::control::v1::TaskOffer;
use muster_proto::task::v1::task_report::Step;
use muster_proto::task::v1::{Delivered, Finished, Started, TaskState};
use muster_types::NodeId;
use prost::Message;
use tokio::sync::watch;
use tracing::Instrument;

use super::unheard::send_unacknowledged;
use super::{Accepted, Done, Engine, logged};
use crate::journal::{Offer, Stage, TaskKey};
use crate::tasks::admission::{Admitted, Refusal};
use crate::tasks::execution::execute;
use crate::tasks::reporter::Reporter;
use crate::tasks::{Context, Outcome, Stop};

/// Offers that wait for the master's word on what was begun here; those beyond are left unanswered.
const EARLY: usize = 64;

impl Engine {
    pub(super) fn on_offer(&mut self, offer: TaskOffer) {
        crash::point("order.received");
        if self.asking && self.early.len() < EARLY {
            return self.early.push(offer);
        }
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

    pub(super) fn accept(&mut self, admitted: Admitted, offer: &TaskOffer) {
        crash::point("order.verified");
        let started = self.lanes.take(admitted.exclusive);
        let mut reporter =
            self.reporter(&admitted.key, 1, &offer.traceparent).sealing_to(admitted.result_key.clone());
        let mut reports = vec![reporter.write(Step::Delivered(Delivered {}))];
        if started {
            reports.push(reporter.write(Step::Started(Started {})));
        }
        let bytes = Bytes::from(offer.encode_to_vec());
        let kept = Offer { key: admitted.key.clone(), bytes, reports: reports.clone() };
        let commit = self.journal().admit(kept, started, self.signer.clock.now());
        let receive = tracing::info_span!(parent: reporter.span(), "task.receive");
        self.commits.push(Box::pin(async move {
            let place = started.then_some(admitted.exclusive);
            let answer = commit.instrument(receive).await;
            let done = answer.map(|answer| Done::Offered { admitted, reporter, started, reports, answer });
            logged(done, place)
        }));
    }

    pub(super) fn refuse(&mut self, key: TaskKey, offer: &TaskOffer, finished: Finished) {
        let mut reporter = self.reporter(&key, 1, &offer.traceparent);
        let reports = vec![reporter.write(Step::Finished(finished))];
        let kept = Offer { key: key.clone(), bytes: Bytes::new(), reports: reports.clone() };
        let commit = self.journal().admit(kept, false, self.signer.clock.now());
        self.commits.push(Box::pin(async move {
            logged(commit.await.map(|answer| Done::Refused { key, reporter, reports, answer }), None)
        }));
    }

    /// The master offers again what is known here: it has not heard of it.
    pub(super) fn on_known(&mut self, key: TaskKey, mut reporter: Reporter, stage: Stage) {
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
    pub(super) fn execute(&mut self, accepted: Accepted) {
        crash::point("journal.started");
        let Accepted { admitted: Admitted { key, job, exclusive, timeout, .. }, reporter } = accepted;
        tracing::info!(task = %key, exclusive, ?timeout, "a task starts");
        let (stop, stopped) = watch::channel(None);
        self.running.insert(key.clone(), stop.clone());
        let name = name_of(self.signer.node, &key);
        let context = Context { name, reporter, stop: stopped };
        let run = tracing::info_span!(parent: context.reporter.span(), "task.run");
        self.executions.spawn(async move {
            execute(job, context, stop, timeout).instrument(run).await;
            (key, exclusive)
        });
    }

    pub(super) fn on_ended(&mut self, ended: Result<(TaskKey, bool), tokio::task::JoinError>) {
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
    pub(super) fn fill_lanes(&mut self) {
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

    pub(super) fn end_unstarted(&mut self, mut accepted: Accepted, outcome: Outcome) {
        self.commits.push(Box::pin(async move {
            accepted.reporter.finish(outcome.finished).await;
            Done::Nothing
        }));
    }
}

/// A name for directory and cgroup: unique, short, of harmless characters.
fn name_of(node: NodeId, key: &TaskKey) -> String {
    let name = format!("{}-{}", node.short(), data_encoding::HEXLOWER.encode(&key.task));
    if key.occurrence.is_empty() {
        return name;
    }
    let hash = ring::digest::digest(&ring::digest::SHA256, key.occurrence.as_bytes());
    format!("{name}-{}", data_encoding::HEXLOWER.encode(&hash.as_ref()[..4]))
}
