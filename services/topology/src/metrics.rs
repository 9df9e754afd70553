//! What topology tells Prometheus. Each name stands here once; counters begin at 0, so that rates see their first event.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::domain::node::{Position, Presence};
use crate::domain::target::TargetState;

const NODES: &str = "muster_topology_nodes";
const ROLES: &str = "muster_topology_online_nodes_by_role";
const PATHS: &str = "muster_topology_online_nodes_by_path";
const VERSIONS: &str = "muster_topology_online_nodes_by_version";
const ROUND_TRIP: &str = "muster_topology_round_trip_median_seconds";
const ROUND_TRIP_TAIL: &str = "muster_topology_round_trip_p95_seconds";
const CELLS: &str = "muster_topology_cells";
const CELLS_WITHOUT_LSN: &str = "muster_topology_cells_without_lsn";
const LARGEST_CELL: &str = "muster_topology_largest_cell_nodes";
const REPLICAS: &str = "muster_topology_replicas";
const PRESENCE_CHANGES: &str = "muster_topology_presence_changes_total";
const LSN_CHANGES: &str = "muster_topology_lsn_changes_total";
const DISCONNECTIONS: &str = "muster_topology_disconnections_total";
const FAILURES: &str = "muster_topology_operation_failures_total";
const STREAMS: &str = "muster_topology_streams";
const TASKS_CREATED: &str = "muster_topology_tasks_created_total";
const TASKS_OPEN: &str = "muster_topology_tasks_open";
const TARGETS_ENDED: &str = "muster_topology_task_targets_ended_total";
const DELIVERY: &str = "muster_topology_task_delivery_seconds";
const DURATION: &str = "muster_topology_task_target_seconds";
const COMMIT_SECONDS: &str = "muster_topology_commit_seconds";
const COMMANDS: &str = "muster_topology_commit_commands_total";
const CONFLICTS: &str = "muster_topology_commit_conflicts_total";
const STORE_FAILURES: &str = "muster_topology_store_failures_total";
const REPORTS: &str = "muster_topology_reports_total";
const REFUSED: &str = "muster_topology_attach_refusals_total";
const OFFERS: &str = "muster_topology_offers_total";
const OVERLAY_BYTES: &str = "muster_topology_overlay_bytes_total";
const REVOCATIONS: &str = "muster_topology_revocations";
const WATCHERS: &str = "muster_topology_watchers";
const WATCH_LAG: &str = "muster_topology_watch_lag_seconds";
const WATCH_RESETS: &str = "muster_topology_watch_resets_total";
const LEADS: &str = "muster_topology_leader";
const AUDIT_WAITING: &str = "muster_topology_audit_waiting_deeds";
const PURGED: &str = "muster_topology_purged_rows_total";

/// How nodes reach their LSN or topology, as presence says it.
const ALL_PATHS: [&str; 6] = ["udp4", "udp6", "tcp4", "tcp6", "relay", "none"];

/// Why nodes were disconnected, by the number of the contract's DisconnectionReason.
const REASONS: [&str; 8] = [
    "other",
    "lsn_lost",
    "lsn_parted",
    "network_lost",
    "network_changed",
    "master_lost",
    "slept",
    "restarted",
];

const CLASSES: [&str; 6] = ["control", "interactive", "task", "telemetry", "bulk", "other"];

/// Names all metrics; once, when the service starts.
pub fn describe() {
    describe_fleet();
    describe_tasks();
    describe_service();
    begin_at_zero();
}

fn describe_fleet() {
    describe_gauge!(NODES, "Known nodes by state");
    describe_gauge!(ROLES, "Nodes that are online, by their place in the overlay");
    describe_gauge!(PATHS, "Nodes that are online, by the path to their LSN or to topology");
    describe_gauge!(VERSIONS, "Nodes that are online, by their agent's version");
    describe_gauge!(ROUND_TRIP, "Round trip between nodes and their LSNs, the median");
    describe_gauge!(
        ROUND_TRIP_TAIL,
        "Round trip between nodes and their LSNs, of which one in twenty is worse"
    );
    describe_gauge!(CELLS, "Cells");
    describe_gauge!(CELLS_WITHOUT_LSN, "Cells with nodes online that no LSN serves");
    describe_gauge!(LARGEST_CELL, "Nodes online in the largest cell; a cell holds 1,000");
    describe_counter!(PRESENCE_CHANGES, "Nodes that changed their state, by the new one");
    describe_counter!(LSN_CHANGES, "Cells that changed their LSN");
    describe_counter!(DISCONNECTIONS, "Disconnections that nodes reported afterwards, by reason");
    describe_counter!(FAILURES, "Background operations that failed on nodes");
}

fn describe_tasks() {
    describe_counter!(TASKS_CREATED, "Tasks made");
    describe_gauge!(TASKS_OPEN, "Tasks that have not ended everywhere");
    describe_counter!(TARGETS_ENDED, "Targets of tasks that ended, by result");
    describe_histogram!(DELIVERY, "From a task's creation to its delivery to one host");
    describe_histogram!(DURATION, "From a task's creation to its end on one host");
    describe_counter!(REPORTS, "Task reports received, by whether they could be verified");
    describe_counter!(OFFERS, "Task orders sent down control streams");
}

fn describe_service() {
    describe_gauge!(REPLICAS, "Replicas that hold a lease");
    describe_gauge!(STREAMS, "Open control streams of this replica");
    describe_histogram!(COMMIT_SECONDS, "One durable transaction, reading included");
    describe_counter!(COMMANDS, "Commands committed; divided by transactions, how many share one");
    describe_counter!(CONFLICTS, "Transactions tried again because another writer was faster");
    describe_counter!(STORE_FAILURES, "Transactions that the store did not take");
    describe_counter!(REFUSED, "Control streams refused");
    describe_counter!(OVERLAY_BYTES, "Traffic that nodes counted, by class and direction");
    describe_gauge!(REVOCATIONS, "Principals that are not admitted any more");
    describe_gauge!(WATCHERS, "Open watches of this replica");
    describe_histogram!(WATCH_LAG, "From an event's commit to its way to a watcher");
    describe_counter!(WATCH_RESETS, "Watches that had to begin anew, because their token had expired");
    describe_gauge!(LEADS, "Whether this replica makes the rounds for all: 1 or 0");
    describe_gauge!(
        AUDIT_WAITING,
        "Deeds that the audit log does not have yet; at 10,000 commands are refused"
    );
    describe_counter!(PURGED, "Rows removed because they were kept long enough");
}

pub(crate) fn waiting_deeds(count: i64) {
    gauge!(AUDIT_WAITING).set(count as f64);
}

fn begin_at_zero() {
    for name in [
        LSN_CHANGES,
        FAILURES,
        TASKS_CREATED,
        COMMANDS,
        CONFLICTS,
        STORE_FAILURES,
        REFUSED,
        OFFERS,
        WATCH_RESETS,
        PURGED,
    ] {
        counter!(name).absolute(0);
    }
    for presence in Presence::ALL {
        counter!(PRESENCE_CHANGES, "to" => presence.as_str()).absolute(0);
    }
    for reason in REASONS {
        counter!(DISCONNECTIONS, "reason" => reason).absolute(0);
    }
    for state in TargetState::ALL.into_iter().filter(|state| state.is_terminal()) {
        counter!(TARGETS_ENDED, "result" => state.as_str()).absolute(0);
    }
    for verified in ["yes", "no"] {
        counter!(REPORTS, "verified" => verified).absolute(0);
    }
    for class in CLASSES {
        overlay_bytes(class, 0, 0);
    }
    for gauge in [STREAMS, WATCHERS, LEADS] {
        gauge!(gauge).set(0.0);
    }
}

/// The fleet as one look at the store found it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Census {
    pub(crate) presence: [usize; Presence::ALL.len()],
    pub(crate) roles: [usize; Position::ALL.len()],
    pub(crate) paths: [usize; ALL_PATHS.len()],
    /// Version -> nodes; bounded by whoever counts.
    pub(crate) versions: std::collections::BTreeMap<String, usize>,
    pub(crate) round_trip: Option<(Duration, Duration)>,
    pub(crate) cells: usize,
    pub(crate) cells_without_lsn: usize,
    pub(crate) largest_cell: usize,
    pub(crate) tasks_open: usize,
    pub(crate) replicas: usize,
}

/// Where a path's name is counted.
pub(crate) fn path_index(path: &str) -> usize {
    ALL_PATHS.iter().position(|known| *known == path).unwrap_or(ALL_PATHS.len() - 1)
}

/// Shows a census in place of the one shown before. Only the replica that counts shows one; the others, an empty one.
pub(crate) fn census(before: &Census, census: &Census) {
    for (presence, count) in Presence::ALL.into_iter().zip(census.presence) {
        gauge!(NODES, "state" => presence.as_str()).set(count as f64);
    }
    for (role, count) in Position::ALL.into_iter().zip(census.roles) {
        gauge!(ROLES, "role" => role.as_str()).set(count as f64);
    }
    for (path, count) in ALL_PATHS.into_iter().zip(census.paths) {
        gauge!(PATHS, "path" => path).set(count as f64);
    }
    for gone in before.versions.keys().filter(|it| !census.versions.contains_key(*it)) {
        gauge!(VERSIONS, "version" => gone.clone()).set(0.0);
    }
    for (version, count) in &census.versions {
        gauge!(VERSIONS, "version" => version.clone()).set(*count as f64);
    }
    let (median, tail) = census.round_trip.unwrap_or_default();
    gauge!(ROUND_TRIP).set(median.as_secs_f64());
    gauge!(ROUND_TRIP_TAIL).set(tail.as_secs_f64());
    gauge!(CELLS).set(census.cells as f64);
    gauge!(CELLS_WITHOUT_LSN).set(census.cells_without_lsn as f64);
    gauge!(LARGEST_CELL).set(census.largest_cell as f64);
    gauge!(TASKS_OPEN).set(census.tasks_open as f64);
    gauge!(REPLICAS).set(census.replicas as f64);
}

pub(crate) fn presence_changed(to: Presence) {
    counter!(PRESENCE_CHANGES, "to" => to.as_str()).increment(1);
}

pub(crate) fn lsn_changed() {
    counter!(LSN_CHANGES).increment(1);
}

pub(crate) fn disconnection(reason: i32) {
    let reason = usize::try_from(reason).ok().and_then(|at| REASONS.get(at)).unwrap_or(&REASONS[0]);
    counter!(DISCONNECTIONS, "reason" => *reason).increment(1);
}

pub(crate) fn operation_failed() {
    counter!(FAILURES).increment(1);
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

pub(crate) fn target_ended(state: TargetState, took: Duration) {
    counter!(TARGETS_ENDED, "result" => state.as_str()).increment(1);
    histogram!(DURATION).record(took.as_secs_f64());
}

pub(crate) fn delivered(took: Duration) {
    histogram!(DELIVERY).record(took.as_secs_f64());
}

pub(crate) fn task_created() {
    counter!(TASKS_CREATED).increment(1);
}

pub(crate) fn committed(took: Duration, commands: usize) {
    histogram!(COMMIT_SECONDS).record(took.as_secs_f64());
    counter!(COMMANDS).increment(commands as u64);
}

pub(crate) fn store_failed() {
    counter!(STORE_FAILURES).increment(1);
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

/// A watch that is open as long as this lives.
pub(crate) struct Watching;

impl Watching {
    pub(crate) fn begin() -> Self {
        gauge!(WATCHERS).increment(1.0);
        Self
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        gauge!(WATCHERS).decrement(1.0);
    }
}

pub(crate) fn watch_lag(lag: Duration) {
    histogram!(WATCH_LAG).record(lag.as_secs_f64());
}

pub(crate) fn watch_reset() {
    counter!(WATCH_RESETS).increment(1);
}

pub(crate) fn leads(chosen: bool) {
    gauge!(LEADS).set(f64::from(u8::from(chosen)));
}

pub(crate) fn purged(rows: u64) {
    counter!(PURGED).increment(rows);
}
