//! CreateTask: checked, its targets frozen, signed, then durable in one transaction; the streams wake by that.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use muster_kit::status::Fault;
use muster_kit::{clock, crash, telemetry};
use muster_proto::fleet::v1 as fleet;
use muster_proto::task::v1 as task;
use muster_types::{NodeId, Timestamp, limits};
use prost::Message;
use uuid::Uuid;

use super::{policy as rules, select, signed, tasks};
use crate::authority::Statement;
use crate::domain::cell::CellId;
use crate::domain::filter::NodeFilter;
use crate::domain::ledger::Request;
use crate::domain::opaque::Opaque;
use crate::domain::scope::TaskPolicy;
use crate::domain::target::TargetState;
use crate::domain::task::{Approval, DEFAULT_LIFETIME, OfflinePolicy, Task, TaskId};
use crate::domain::tasks::CreateTask;
use crate::grpc::refusal::{self, invalid};
use crate::grpc::{render, wire};
use crate::hub::Hub;
use crate::metrics;
use crate::store::TaskSummary;

/// Targets of one task; it is one transaction.
const TARGETS: usize = 100_000;

/// Characters of names that people give.
const NAME: usize = 256;

pub(super) async fn create(
    hub: &Hub,
    creator: String,
    request: fleet::CreateTaskRequest,
) -> Result<fleet::Task, Fault> {
    let made = (!request.request_id.is_empty())
        .then(|| Request { caller: creator.clone(), id: request.request_id.clone() });
    if let Some(repeated) = &made {
        let earlier = hub.store.request(repeated).await.map_err(|error| refusal::store(&error))?;
        if let Some(id) = earlier {
            return tasks::summary(hub, id).await.map(|summary| render::task(&summary));
        }
    }
    let (mut spec, lifetime) = check(&request)?;
    if spec.class() == task::TaskClass::Confidential && spec.result_key.is_empty() {
        spec.result_key = Bytes::copy_from_slice(hub.sealing.public());
    }
    let offline = policy(request.offline_policy)?;
    let policy = rules::current(hub)?;
    let parts = freeze(hub, &request, (&policy, &creator, &spec.r#type)).await?;
    let now = clock::wall();
    let signed = signed::read(hub, &request, &parts, now)?;
    let parts = signed.as_ref().map_or(parts, |signed| signed.parts.clone());
    let parts = if spec.class() == task::TaskClass::Confidential { one_by_one(parts) } else { parts };
    let task = Task {
        id: signed.as_ref().map_or_else(|| TaskId(Uuid::now_v7()), |signed| signed.task),
        kind: spec.r#type.clone(),
        spec: Opaque(shown(&spec).encode_to_vec()),
        offline,
        created: now,
        expires: now + lifetime,
        creator,
        display_name: request.display_name.chars().take(NAME).collect(),
        target_count: u32::try_from(parts.iter().map(Vec::len).sum::<usize>()).unwrap_or(u32::MAX),
        traceparent: telemetry::traceparent().unwrap_or_default(),
        approval: if policy.wants_approval(parts.iter().map(Vec::len).sum()) {
            Approval::Wanted
        } else {
            Approval::NotWanted
        },
    };
    if request.validate_only {
        return Ok(render::task(&preview(task)));
    }
    let orders = match &signed {
        Some(signed) => signed::countersign(hub, signed).await?,
        None => sign(hub, &task, &spec, &parts, (now, lifetime)).await?,
    };
    let targets = number(&parts);
    let command = CreateTask { task, orders, targets, request: made };
    let id = hub.writer.submit(command).await.map_err(|error| refusal::write(&error))?;
    crash::point("task.created");
    metrics::task_created();
    tracing::info!(task = %id, targets = parts.iter().map(Vec::len).sum::<usize>(), "task created");
    tasks::summary(hub, id).await.map(|summary| render::task(&summary))
}

/// What would be made.
fn preview(task: Task) -> TaskSummary {
    let counts = BTreeMap::from([(TargetState::Queued, task.target_count)]);
    TaskSummary { open: task.target_count, task, cancelled: None, cancellation: Opaque::default(), counts }
}

fn check(request: &fleet::CreateTaskRequest) -> Result<(task::TaskSpec, Duration), Fault> {
    let mut spec = request.spec.clone().ok_or_else(|| invalid("SPEC_MISSING", "a task has a spec"))?;
    if spec.r#type.is_empty() || spec.r#type.len() > NAME {
        return Err(invalid("BAD_TYPE", "a task has a type, as in \"run\""));
    }
    if spec.class == i32::from(task::TaskClass::Unspecified) {
        spec.class = task::TaskClass::Open.into();
    }
    match spec.arguments.as_ref().and_then(|content| content.source.as_ref()) {
        Some(task::content::Source::Inline(bytes)) if bytes.len() > limits::INLINE_BYTES => {
            let most = limits::INLINE_BYTES;
            let message =
                format!("arguments have {} bytes; inline at most {most}: pass a reference", bytes.len());
            return Err(invalid("ARGUMENTS_TOO_LARGE", message));
        }
        _ => {}
    }
    let lifetime = wire::span(request.lifetime, DEFAULT_LIFETIME)
        .filter(|lifetime| !lifetime.is_zero() && *lifetime <= limits::TASK_LIFETIME)
        .ok_or_else(|| {
            invalid("BAD_LIFETIME", format!("a lifetime is at most {:?}", limits::TASK_LIFETIME))
        })?;
    if request.request_id.len() > NAME {
        return Err(invalid("BAD_REQUEST_ID", "a request id is a UUID"));
    }
    Ok((spec, lifetime))
}

fn policy(wire: i32) -> Result<OfflinePolicy, Fault> {
    match fleet::OfflinePolicy::try_from(wire) {
        Ok(fleet::OfflinePolicy::Unspecified | fleet::OfflinePolicy::Queue) => Ok(OfflinePolicy::Queue),
        Ok(fleet::OfflinePolicy::Skip) => Ok(OfflinePolicy::Skip),
        Err(_) => Err(invalid("BAD_OFFLINE_POLICY", format!("there is no offline policy {wire}"))),
    }
}

/// The targets, for good, by order: nodes of one cell stand together, so that one order serves one LSN.
async fn freeze(
    hub: &Hub,
    request: &fleet::CreateTaskRequest,
    (policy, creator, kind): (&TaskPolicy, &str, &str),
) -> Result<Vec<Vec<NodeId>>, Fault> {
    let filter = select::filter(hub, request.filter.clone().unwrap_or_default()).await?;
    if !request.all_nodes && filter == NodeFilter::default() {
        return Err(invalid("NO_TARGETS", "name the nodes by a filter, or set all_nodes"));
    }
    let selected = select::targets(hub, &filter, TARGETS + 1).await?;
    if selected.is_empty() {
        return Err(invalid("NO_TARGETS", "the filter selects no node"));
    }
    if selected.len() > TARGETS {
        return Err(invalid("TOO_MANY_TARGETS", format!("a task has at most {TARGETS} targets")));
    }
    policy.check(creator, kind, &selected).map_err(|refused| rules::out_of_scope(&refused))?;
    let mut cells: BTreeMap<Option<CellId>, Vec<NodeId>> = BTreeMap::new();
    for node in selected {
        cells.entry(node.cell).or_default().push(node.id);
    }
    let parts = cells
        .into_values()
        .flat_map(|nodes| nodes.chunks(limits::ORDER_TARGETS).map(<[NodeId]>::to_vec).collect::<Vec<_>>());
    Ok(parts.collect())
}

fn number(parts: &[Vec<NodeId>]) -> Vec<(NodeId, u32)> {
    (0_u32..).zip(parts).flat_map(|(part, nodes)| nodes.iter().map(move |node| (*node, part))).collect()
}

/// What the master itself keeps of a specification: of a confidential task, everything but its arguments.
fn shown(spec: &task::TaskSpec) -> task::TaskSpec {
    let confidential = spec.class() == task::TaskClass::Confidential;
    let arguments = if confidential { None } else { spec.arguments.clone() };
    task::TaskSpec { arguments, ..spec.clone() }
}

/// What is sealed to one node makes an order of its own.
fn one_by_one(parts: Vec<Vec<NodeId>>) -> Vec<Vec<NodeId>> {
    parts.into_iter().flatten().map(|node| vec![node]).collect()
}

async fn sign(
    hub: &Hub,
    task: &Task,
    spec: &task::TaskSpec,
    parts: &[Vec<NodeId>],
    (issued, lifetime): (Timestamp, Duration),
) -> Result<Vec<Opaque>, Fault> {
    let mut statements = Vec::with_capacity(parts.len());
    for targets in parts {
        let spec = match &targets[..] {
            [node] if spec.class() == task::TaskClass::Confidential => {
                signed::sealed_spec(hub, task.id, *node, spec).await?
            }
            _ => spec.clone(),
        };
        let (targets, spec) = (targets.clone(), Opaque(spec.encode_to_vec()));
        statements.push(Statement::Order { task: task.id, targets, issued, lifetime, spec });
    }
    hub.sign(&statements).await.map_err(|error| refusal::authority(&error))
}
