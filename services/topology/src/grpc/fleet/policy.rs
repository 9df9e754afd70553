//! The administrator's policy for tasks: read anew for each, so that a change needs no restart; and the second person's word.

use std::io::ErrorKind;

use muster_kit::clock;
use muster_kit::status::{Fault, fault};
use muster_proto::fleet::v1 as fleet;
use tonic::Code;

use super::{page, tasks};
use crate::domain::node::Node;
use crate::domain::scope::{OutOfScope, TaskPolicy};
use crate::domain::task::{Approval, Task};
use crate::domain::tasks::ApproveTask;
use crate::grpc::{refusal, render};
use crate::hub::Hub;
use crate::store::READ_ROWS;

/// The policy of this moment. One that cannot be read lets nobody do anything.
pub(super) fn current(hub: &Hub) -> Result<TaskPolicy, Fault> {
    let unreadable = |error: &dyn std::fmt::Display| {
        let message =
            format!("the policy for tasks in {} is not understood: {error}", hub.task_policy_file.display());
        fault(Code::FailedPrecondition, "POLICY_UNREADABLE", message)
    };
    match std::fs::read_to_string(&hub.task_policy_file) {
        Ok(text) => toml::from_str(&text).map_err(|error| unreadable(&error)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(TaskPolicy::default()),
        Err(error) => Err(unreadable(&error)),
    }
}

pub(super) fn out_of_scope(refused: &OutOfScope) -> Fault {
    fault(Code::PermissionDenied, "OUT_OF_SCOPE", refused.to_string())
}

/// Whether `who` may change these labels of a host, or, with none, remove it.
pub(super) fn may_label<'a>(
    hub: &Hub,
    who: &str,
    node: &Node,
    keys: impl IntoIterator<Item = &'a String>,
) -> Result<(), Fault> {
    let allowed = current(hub)?.check_labels(who, node, keys);
    allowed.map_err(|refused| fault(Code::PermissionDenied, "OUT_OF_SCOPE", refused.to_string()))
}

/// Whether a task that exists lies within what `who` may do: all its hosts that are still there.
pub(super) async fn within_scope(hub: &Hub, who: &str, task: &Task) -> Result<(), Fault> {
    let policy = current(hub)?;
    if !policy.limits(who) {
        return Ok(());
    }
    let store = |error| refusal::store(&error);
    let mut after = None;
    loop {
        let page = hub.store.targets_after(task.id, after, READ_ROWS).await.map_err(store)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.node);
        let ids: Vec<_> = page.iter().map(|target| target.node).collect();
        let nodes = hub.store.nodes_by_id(&ids).await.map_err(store)?;
        let nodes = nodes.iter().map(|stored| &stored.row);
        policy.check(who, &task.kind, nodes).map_err(|refused| out_of_scope(&refused))?;
    }
}

/// Approving twice is approving once.
pub(super) async fn approve(
    hub: &Hub,
    approver: String,
    request: fleet::ApproveTaskRequest,
) -> Result<fleet::Task, Fault> {
    let id = page::task_id(&request.name)?;
    let before = tasks::summary(hub, id).await?;
    if before.task.approval != Approval::Wanted {
        return Ok(render::task(&before));
    }
    if before.task.creator == approver {
        let message = format!("{approver} made this task: somebody else must approve it");
        return Err(fault(Code::PermissionDenied, "SECOND_PERSON_WANTED", message));
    }
    within_scope(hub, &approver, &before.task).await?;
    let carriers = hub.store.carriers_of(id).await.map_err(|error| refusal::store(&error))?;
    let approval = Approval::Given { by: approver.clone(), at: clock::wall() };
    let command = ApproveTask { task: Task { approval, ..before.task }, carriers };
    hub.writer.submit(command).await.map_err(|error| refusal::write(&error))?;
    tracing::info!(task = %id, approver, "task approved");
    tasks::summary(hub, id).await.map(|summary| render::task(&summary))
}
