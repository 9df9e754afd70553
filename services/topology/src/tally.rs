//! What a committed transaction means to those who count: changes of presence, of LSNs, ends of targets.

use std::time::Duration;

use muster_types::Timestamp;

use crate::domain::event::EventBody;
use crate::domain::ledger::Changes;
use crate::domain::target::TargetState;
use crate::domain::task::TaskId;
use crate::metrics;

pub(crate) fn count(changes: &Changes, now: Timestamp) {
    for change in &changes.nodes {
        let before = change.before.as_ref().map(|node| node.presence);
        if let Some(after) = change.after.as_ref().map(|node| node.presence).filter(|it| Some(*it) != before)
        {
            metrics::presence_changed(after);
        }
    }
    for change in &changes.cells {
        let lsn = |cell: &Option<crate::domain::cell::Cell>| cell.as_ref().and_then(|cell| cell.lsn);
        if lsn(&change.before) != lsn(&change.after) {
            metrics::lsn_changed();
        }
    }
    for change in &changes.targets {
        let Some(after) = &change.after else { continue };
        let before = change.before.as_ref().map_or(TargetState::Queued, |target| target.state);
        if after.state.is_terminal() && !before.is_terminal() {
            metrics::target_ended(after.state, since_creation(after.task, now));
        }
        let reached = [TargetState::Delivered, TargetState::Started].contains(&after.state);
        if reached && before == TargetState::Queued {
            metrics::delivered(since_creation(after.task, now));
        }
    }
    for event in &changes.events {
        match &event.body {
            EventBody::Disconnection { reason, .. } => metrics::disconnection(*reason),
            EventBody::OperationFailed { .. } => metrics::operation_failed(),
            EventBody::NodeChanged { .. } | EventBody::TaskChanged { .. } => {}
        }
    }
}

/// A task's id holds the moment of its creation (UUIDv7, RFC 9562, section 5.7).
fn since_creation(task: TaskId, now: Timestamp) -> Duration {
    let created = task.0.get_timestamp().map_or(Duration::ZERO, |at| {
        let (seconds, nanoseconds) = at.to_unix();
        Duration::new(seconds, nanoseconds)
    });
    let created = i64::try_from(created.as_micros()).unwrap_or_default();
    now.since(Timestamp::from_micros(created))
}
