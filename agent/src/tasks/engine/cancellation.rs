//! Cancellations: of what runs, what waits, and what has not come yet.

use muster_proto::task::v1::TaskState;
use muster_proto::trust::v1::Envelope;

use super::{Done, Engine, logged};
use crate::journal::TaskKey;
use crate::tasks::{Outcome, Stop};

impl Engine {
    pub(super) fn on_cancel(&mut self, envelope: &Envelope) {
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
}
