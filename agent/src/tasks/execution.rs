//! One execution from STARTED to its durable result.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt;
use muster_kit::crash;
use muster_wire::time::span_to_wire;
use tokio::sync::watch;

use crate::tasks::{Context, Job, Outcome, Stop};

/// What a stopped job may take to end: a kill and the removal of its traces.
const STOPPING: Duration = Duration::from_secs(10);

/// Runs a job within its time, and reports how it ended.
pub(super) async fn execute(
    job: Box<dyn Job>,
    mut context: Context,
    stop: watch::Sender<Option<Stop>>,
    timeout: Duration,
) {
    let began = Instant::now();
    let mut outcome = run(job, &mut context, stop, timeout).await;
    outcome.finished.wall_time = Some(span_to_wire(began.elapsed()));
    crash::point("process.ended");
    context.reporter.finish(outcome.finished).await;
}

async fn run(
    job: Box<dyn Job>,
    context: &mut Context,
    stop: watch::Sender<Option<Stop>>,
    timeout: Duration,
) -> Outcome {
    let mut stopping = stop.subscribe();
    // A job that panics is a fault of ours, and must not take the agent with it.
    let work = AssertUnwindSafe(job.run(context)).catch_unwind();
    let overdue = async {
        tokio::select! {
            () = tokio::time::sleep(timeout) => {
                stop.send_if_modified(|reason| {
                    let first = reason.is_none();
                    reason.get_or_insert(Stop::TimedOut);
                    first
                });
            }
            _ = stopping.wait_for(Option::is_some) => {}
        }
        tokio::time::sleep(STOPPING).await;
    };
    let done = tokio::select! {
        done = work => done,
        () = overdue => return Outcome::failed("NOT_STOPPED", "it did not end when it was told to"),
    };
    done.unwrap_or_else(|_| Outcome::failed("INTERNAL", "the agent's own code failed; its log has more"))
}
