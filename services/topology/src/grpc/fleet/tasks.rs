//! Calls about tasks that exist.

use std::collections::HashMap;

use muster_kit::clock;
use muster_kit::status::Fault;
use muster_proto::fleet::v1 as fleet;
use muster_proto::task::v1 as task;
use muster_types::NodeId;
use prost::Message;

use super::{page, policy as rules};
use crate::authority::Statement;
use crate::domain::log::LogBody;
use crate::domain::opaque::Opaque;
use crate::domain::task::TaskId;
use crate::domain::tasks::CancelTask;
use crate::grpc::refusal::{self, not_found};
use crate::grpc::render;
use crate::hub::Hub;
use crate::store::{Position, TaskSummary};

pub(super) async fn summary(hub: &Hub, id: TaskId) -> Result<TaskSummary, Fault> {
    let found = hub.store.task(id).await.map_err(|error| refusal::store(&error))?;
    found.ok_or_else(|| unknown(id))
}

pub(super) fn unknown(id: TaskId) -> Fault {
    not_found("TASK_NOT_FOUND", &render::task_name(id))
}

pub(super) async fn get(hub: &Hub, request: fleet::GetTaskRequest) -> Result<fleet::Task, Fault> {
    summary(hub, page::task_id(&request.name)?).await.map(|summary| render::task(&summary))
}

pub(super) async fn list(
    hub: &Hub,
    request: fleet::ListTasksRequest,
) -> Result<fleet::ListTasksResponse, Fault> {
    let limit = page::size(request.page_size)?;
    let before = page::key(&request.page_token)?;
    let found = hub
        .store
        .tasks_before(before, request.only_running, limit)
        .await
        .map_err(|error| refusal::store(&error))?;
    let next = next_token(&found, limit, |last| page::token(last.task.id));
    Ok(fleet::ListTasksResponse { tasks: found.iter().map(render::task).collect(), next_page_token: next })
}

/// The token of the page after a full one.
fn next_token<T>(rows: &[T], limit: i64, token: impl Fn(&T) -> String) -> String {
    let full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
    rows.last().filter(|_| full).map(token).unwrap_or_default()
}

/// Cancelling twice is cancelling once, so the request id needs no record.
pub(super) async fn cancel(
    hub: &Hub,
    actor: &str,
    request: fleet::CancelTaskRequest,
) -> Result<fleet::Task, Fault> {
    let id = page::task_id(&request.name)?;
    let before = summary(hub, id).await?;
    if before.open == 0 || before.cancelled.is_some() {
        return Ok(render::task(&before));
    }
    rules::within_scope(hub, actor, &before.task).await?;
    let statement = Statement::Cancellation { task: id, issued: clock::wall() };
    let signed = hub.sign(&[statement]).await.map_err(|error| refusal::authority(&error))?;
    let order = signed.into_iter().next().unwrap_or_else(Opaque::default);
    let carriers = hub.store.carriers_of(id).await.map_err(|error| refusal::store(&error))?;
    let command = CancelTask { task: id, actor: actor.to_owned(), order, carriers };
    hub.writer.submit(command).await.map_err(|error| refusal::write(&error))?;
    muster_kit::crash::point("task.cancelled");
    tracing::info!(task = %id, "task cancelled");
    summary(hub, id).await.map(|summary| render::task(&summary))
}

/// Host names of these nodes; of those that were deleted none.
pub(super) async fn host_names(
    hub: &Hub,
    ids: impl IntoIterator<Item = NodeId>,
) -> Result<HashMap<NodeId, String>, Fault> {
    let ids: Vec<_> = ids.into_iter().collect();
    let nodes = hub.store.nodes_by_id(&ids).await.map_err(|error| refusal::store(&error))?;
    Ok(nodes.into_iter().map(|stored| (stored.row.id, stored.row.profile.host_name)).collect())
}

pub(super) async fn targets(
    hub: &Hub,
    request: fleet::ListTaskTargetsRequest,
) -> Result<fleet::ListTaskTargetsResponse, Fault> {
    let id = summary(hub, page::task_id(&request.name)?).await?.task.id;
    let limit = page::size(request.page_size)?;
    let after = page::key(&request.page_token)?;
    let found = hub.store.targets_after(id, after, limit).await.map_err(|error| refusal::store(&error))?;
    let next = next_token(&found, limit, |last| page::token(last.node));
    let mut names = host_names(hub, found.iter().map(|target| target.node)).await?;
    let targets = found
        .iter()
        .map(|it| {
            let name = names.remove(&it.node).unwrap_or_default();
            render::target(it.node, name, it.state, it.ending.as_ref(), it.updated)
        })
        .collect();
    Ok(fleet::ListTaskTargetsResponse { targets, next_page_token: next })
}

pub(super) async fn output(
    hub: &Hub,
    request: fleet::ListTaskOutputRequest,
) -> Result<fleet::ListTaskOutputResponse, Fault> {
    let id = summary(hub, page::task_id(&request.name)?).await?.task.id;
    let node = page::node_id(&request.node)?;
    let limit = page::size(request.page_size)?;
    let after = page::position(hub.epoch, &request.page_token)?.unwrap_or_else(Position::default);
    let found = hub.store.outputs(id, node, after, limit).await.map_err(|error| refusal::store(&error))?;
    let next = next_token(&found, limit, |last| page::resume_token(hub.epoch, last.position));
    let outputs = found
        .iter()
        .filter_map(|it| match &it.body {
            LogBody::Output(bytes) => task::Output::decode(&bytes.0[..]).ok(),
            LogBody::State(_) | LogBody::Progress(_) => None,
        })
        .collect();
    Ok(fleet::ListTaskOutputResponse { outputs, next_page_token: next })
}
