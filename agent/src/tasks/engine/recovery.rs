//! What an earlier life left, and what the master remembers better than a lost journal.

use muster_kit::crash;
use muster_proto::control::v1::TaskOffer;
use muster_proto::task::v1::TaskState;
use prost::Message;

use super::{Accepted, Done, Engine, logged};
use crate::journal::{JournalError, TaskKey};
use crate::tasks::Outcome;
use crate::tasks::admission::Refusal;

/// Reports may have gone out whose commit did not survive a crash: a later life of the agent numbers far beyond them.
const SEQUENCES_OF_ONE_LIFE: u64 = 1 << 20;
/// After the loss of the journal nothing is known of the numbers used.
const SEQUENCE_AFTER_LOSS: u64 = 1 << 40;

impl Engine {
    pub(super) async fn recover(&mut self) -> Result<(), JournalError> {
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
                    let reporter = reporter.sealing_to(admitted.result_key.clone());
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

    pub(super) async fn report_lost(&self, key: &TaskKey, sequence: u64) {
        tracing::warn!(task = %key, "a task was interrupted by the end of the agent; it is reported as lost");
        let reason = "the agent or the host ended while it ran; whether it took effect is unknown";
        let lost = Outcome::ended(TaskState::Lost, "AGENT_ENDED", reason);
        self.reporter(key, sequence, "").finish(lost.finished).await;
    }

    pub(super) fn on_adopt(&mut self, tasks: Vec<(TaskKey, String)>) {
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

    pub(super) fn on_adopted(&mut self, begun: &[TaskKey], lost: Vec<TaskKey>) {
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
        if let Err(error) = self.pairing.confirm() {
            return tracing::error!(%error, "tasks stay untouched until the journal's marker can be written");
        }
        self.asking = false;
        for offer in std::mem::take(&mut self.early) {
            self.on_offer(offer);
        }
    }
}
