//! What topology tells Prometheus. Each name stands here once.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::domain::node::Presence;
use crate::domain::target::TargetState;

const NODES: &str = "muster_topology_nodes";
const STREAMS: &str = "muster_topology_streams";
const TARGETS_ENDED: &str = "muster_topology_task_targets_ended_total";
const TASKS_CREATED: &str = "muster_topology_tasks_created_total";
const COMMIT_SECONDS: &str = "muster_topology_commit_seconds";
const COMMIT_COMMANDS: &str = "muster_topology_commit_commands";
const CONFLICTS: &str = "muster_topology_commit_conflicts_total";
const REPORTS: &str = "muster_topology_reports_total";
const REFUSED: &str = "muster_topology_attach_refusals_total";
const OFFERS: &str = "muster_topology_offers_total";
const OVERLAY_BYTES: &str = "muster_topology_overlay_bytes_total";
const REVOCATIONS: &str = "muster_topology_revocations";
const PURGED: &str = "muster_topology_purged_rows_total";

/// Names all metrics; once, when the service starts.
pub fn describe() {
    describe_gauge!(NODES, "Known nodes by state");
    describe_gauge!(STREAMS, "Open control streams of this replica");
    describe_counter!(TARGETS_ENDED, "Targets of tasks that ended, by result");
    describe_counter!(TASKS_CREATED, "Tasks made");
    describe_histogram!(COMMIT_SECONDS, "One durable transaction, reading included");
    describe_histogram!(COMMIT_COMMANDS, "Commands that shared one transaction");
    describe_counter!(CONFLICTS, "Transactions tried again because another writer was faster");
    describe_counter!(REPORTS, "Task reports received, by whether they could be verified");
    describe_counter!(REFUSED, "Control streams refused");
    describe_counter!(OFFERS, "Task orders sent down control streams");
    describe_counter!(OVERLAY_BYTES, "Traffic that nodes counted, by class and direction");
    describe_gauge!(REVOCATIONS, "Principals that are not admitted any more");
    describe_counter!(PURGED, "Rows removed because they were kept long enough");
}

pub(crate) fn nodes(presence: Presence, count: usize) {
    gauge!(NODES, "state" => presence.as_str()).set(count as f64);
}

pub(crate) fn revocations(count: usize) {
    gauge!(REVOCATIONS).set(count as f64);
}

pub(crate) fn stream_opened() {
    gauge!(STREAMS).increment(1.0);
}

pub(crate) fn stream_closed() {
    gauge!(STREAMS).decrement(1.0);
}

pub(crate) fn target_ended(state: TargetState) {
    counter!(TARGETS_ENDED, "result" => state.as_str()).increment(1);
}

pub(crate) fn task_created() {
    counter!(TASKS_CREATED).increment(1);
}

pub(crate) fn committed(took: Duration, commands: usize) {
    histogram!(COMMIT_SECONDS).record(took.as_secs_f64());
    histogram!(COMMIT_COMMANDS).record(commands as f64);
}

pub(crate) fn conflict() {
    counter!(CONFLICTS).increment(1);
}

pub(crate) fn report(verified: bool) {
    counter!(REPORTS, "verified" => if verified { "yes" } else { "no" }).increment(1);
}

pub(crate) fn attach_refused() {
    counter!(REFUSED).increment(1);
}

pub(crate) fn offered() {
    counter!(OFFERS).increment(1);
}

pub(crate) fn overlay_bytes(class: &'static str, sent: u64, received: u64) {
    counter!(OVERLAY_BYTES, "class" => class, "direction" => "sent").increment(sent);
    counter!(OVERLAY_BYTES, "class" => class, "direction" => "received").increment(received);
}

pub(crate) fn purged(rows: u64) {
    counter!(PURGED).increment(rows);
}
