//! Rows as messages of the contract, and names as they stand in it.

use std::collections::HashMap;

use muster_proto::control::v1::DisconnectionReason;
use muster_proto::fleet::v1 as fleet;
use muster_proto::task::v1 as task;
use muster_proto::trust::v1::Envelope;
use muster_types::{NodeId, Timestamp};
use muster_wire::time::{span_to_wire, to_wire};
use prost::Message;

use crate::domain::cell::{Cell, CellId};
use crate::domain::clone::Life;
use crate::domain::event::EventBody;
use crate::domain::filter::place_of;
use crate::domain::node::{Node, Position, Presence};
use crate::domain::opaque::Opaque;
use crate::domain::table::Revision;
use crate::domain::target::{Ending, TargetState};
use crate::domain::task::{Approval, OfflinePolicy, TaskId};
use crate::store::{self, TaskSummary};

pub(super) fn node_name(id: NodeId) -> String {
    format!("nodes/{id}")
}

pub(super) fn cell_name(id: CellId) -> String {
    format!("cells/{id}")
}

pub(super) fn task_name(id: TaskId) -> String {
    format!("tasks/{id}")
}

/// `None` if the bytes in the store are no envelope, which only we could have put there.
pub(super) fn envelope(sealed: &Opaque) -> Option<Envelope> {
    Envelope::decode(&sealed.0[..]).ok().filter(|envelope| !envelope.payload.is_empty())
}

pub(super) fn etag(revision: Revision) -> String {
    revision.to_string()
}

/// Names of cells for people, by which nodes without a label have their place.
pub(super) struct Places(HashMap<CellId, String>);

impl Places {
    pub(super) fn of<'a>(cells: impl IntoIterator<Item = &'a Cell>) -> Self {
        Self(cells.into_iter().map(|cell| (cell.id, cell.display_name())).collect())
    }

    /// Cells that bear one of these names.
    pub(super) fn named(&self, places: &[String]) -> Vec<CellId> {
        self.0.iter().filter(|(_, name)| places.contains(name)).map(|(id, _)| *id).collect()
    }

    pub(super) fn place(&self, node: &Node) -> String {
        place_of(node, node.cell.and_then(|id| self.0.get(&id)).map(String::as_str))
    }
}

pub(super) fn presence(presence: Presence) -> fleet::NodeState {
    match presence {
        Presence::Online => fleet::NodeState::Online,
        Presence::Offline => fleet::NodeState::Offline,
        Presence::Unreachable => fleet::NodeState::Unreachable,
        Presence::NeverSeen => fleet::NodeState::NeverSeen,
        Presence::Held => fleet::NodeState::Held,
    }
}

pub(super) fn node(node: &Node, place: String, revision: Revision, now: Timestamp) -> fleet::Node {
    let role = match node.position {
        _ if matches!(node.presence, Presence::NeverSeen | Presence::Held) => fleet::NodeRole::Unspecified,
        Position::Child => fleet::NodeRole::Child,
        Position::Lsn => fleet::NodeRole::Lsn,
        Position::Direct => fleet::NodeRole::Direct,
    };
    let profile = &node.profile;
    let round_trip = std::time::Duration::from_micros(profile.round_trip_micros);
    fleet::Node {
        name: node_name(node.id),
        host_name: profile.host_name.clone(),
        state: presence(node.presence).into(),
        since_time: Some(to_wire(node.since)),
        role: role.into(),
        lsn: node.lsn.map(node_name).unwrap_or_default(),
        cell: node.cell.map(cell_name).unwrap_or_default(),
        place,
        route: node.route().into_iter().map(node_name).collect(),
        addresses: profile.addresses.clone(),
        observed_address: node.observed.map(|ip| ip.to_string()).unwrap_or_default(),
        software_version: profile.software_version.clone(),
        round_trip: (profile.round_trip_micros > 0).then(|| span_to_wire(round_trip)),
        path: profile.path.clone(),
        labels: node.effective_labels().into_iter().collect(),
        uptime_basis_points: u32::from(node.uptime.basis_points(now)),
        enroll_time: Some(to_wire(node.enrolled)),
        last_seen_time: (node.presence != Presence::NeverSeen).then(|| to_wire(node.last_seen)),
        offline_reason: node.reason.clone(),
        os: profile.os.clone(),
        architecture: profile.architecture.clone(),
        wired: profile.wired,
        mains_powered: profile.mains_powered,
        etag: etag(revision),
        sealing_key: node.attested.sealing_key.0.clone().into(),
        lives: node.lives.iter().map(life).collect(),
    }
}

fn life(life: &Life) -> fleet::NodeLife {
    fleet::NodeLife {
        id: life.id(),
        host_name: life.host_name.clone(),
        addresses: life.addresses.clone(),
        observed_address: life.observed.map(|ip| ip.to_string()).unwrap_or_default(),
        attach_time: Some(to_wire(life.since)),
        gone: life.gone,
    }
}

pub(super) fn target_state(state: TargetState) -> i32 {
    i32::try_from(state.number()).unwrap_or_default()
}

/// How a target ended: the host's own word, or the master's decision in the same form.
pub(super) fn finished(state: TargetState, ending: &Ending) -> task::Finished {
    let word = task::Finished::decode(&ending.word.0[..]).ok().filter(|_| !ending.word.is_empty());
    word.unwrap_or_else(|| task::Finished {
        state: target_state(state),
        reason: ending.reason.clone(),
        reason_code: ending.reason_code.clone(),
        ..task::Finished::default()
    })
}

pub(super) fn target(
    node: NodeId,
    host_name: String,
    state: TargetState,
    ending: Option<&Ending>,
    at: Timestamp,
) -> fleet::TaskTarget {
    fleet::TaskTarget {
        node: node_name(node),
        host_name,
        state: target_state(state),
        update_time: Some(to_wire(at)),
        finished: ending.map(|ending| finished(state, ending)),
    }
}

pub(super) fn task(summary: &TaskSummary) -> fleet::Task {
    let task = &summary.task;
    let counts = summary
        .counts
        .iter()
        .map(|(state, count)| fleet::StateCount { state: target_state(*state), count: *count })
        .collect();
    fleet::Task {
        name: task_name(task.id),
        spec: task::TaskSpec::decode(&task.spec.0[..]).ok(),
        offline_policy: offline_policy(task.offline).into(),
        create_time: Some(to_wire(task.created)),
        expire_time: Some(to_wire(task.expires)),
        creator: task.creator.clone(),
        target_count: task.target_count,
        counts,
        done: summary.open == 0,
        cancel_time: summary.cancelled.map(to_wire),
        display_name: task.display_name.clone(),
        approval_wanted: task.approval == Approval::Wanted,
        approver: match &task.approval {
            Approval::Given { by, .. } => by.clone(),
            _ => String::new(),
        },
    }
}

fn offline_policy(policy: OfflinePolicy) -> fleet::OfflinePolicy {
    match policy {
        OfflinePolicy::Queue => fleet::OfflinePolicy::Queue,
        OfflinePolicy::Skip => fleet::OfflinePolicy::Skip,
    }
}

/// An event; `task` is the task that it names, as it stands now.
pub(super) fn event(event: &store::Event, task: Option<&TaskSummary>) -> fleet::Event {
    use fleet::event::Body;
    let body = match &event.body {
        EventBody::NodeChanged { node, place, changed, previous, reason, deleted } => {
            Body::NodeChanged(fleet::NodeChanged {
                node: Some(self::node(node, place.clone(), 0, event.at)),
                changed_fields: changed.clone(),
                previous_state: previous.map(|it| presence(it).into()).unwrap_or_default(),
                reason: reason.clone(),
                deleted: *deleted,
            })
        }
        EventBody::TaskChanged { task: id } => {
            let gone = || fleet::Task { name: task_name(*id), ..fleet::Task::default() };
            Body::TaskChanged(fleet::TaskChanged { task: Some(task.map_or_else(gone, self::task)) })
        }
        EventBody::OperationFailed { node, operation, reason_code, reason } => {
            Body::OperationFailed(fleet::OperationFailed {
                operation: operation.clone(),
                node: node_name(*node),
                reason_code: reason_code.clone(),
                reason: reason.clone(),
            })
        }
        EventBody::Disconnection { node, begin, duration, reason, detail } => {
            Body::Disconnection(fleet::Disconnection {
                node: node_name(*node),
                begin_time: Some(to_wire(*begin)),
                duration: Some(span_to_wire(*duration)),
                reason: DisconnectionReason::try_from(*reason).unwrap_or_default().into(),
                detail: detail.clone(),
            })
        }
    };
    fleet::Event {
        name: format!("events/{}", event.position.number),
        event_time: Some(to_wire(event.at)),
        body: Some(body),
    }
}
