//! Orders that the master did not write alone: those that an operator signed, and those that only one node can read.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_kit::status::Fault;
use muster_proto::fleet::v1 as fleet;
use muster_proto::payload_type::TASK;
use muster_proto::task::v1::{Content, TaskClass, TaskOrder, TaskSpec, content::Source};
use muster_proto::trust::v1::{Envelope, Signature};
use muster_types::{NodeId, Timestamp};
use muster_wire::sealing::{self, ARGUMENTS, place_of_task};
use muster_wire::time::from_wire;
use prost::Message;

use crate::authority::Statement;
use crate::domain::opaque::Opaque;
use crate::domain::task::TaskId;
use crate::grpc::refusal::{self, invalid};
use crate::grpc::{render, wire};
use crate::hub::Hub;

/// How far the clock of an operator's computer may be from the master's.
const CLOCK: Duration = Duration::from_secs(300);

/// Orders as an operator signed them.
pub(super) struct Signed {
    pub(super) task: TaskId,
    pub(super) parts: Vec<Vec<NodeId>>,
    orders: Vec<Envelope>,
}

/// Reads the operator's orders, if the request has any: they must say what the request says, and to whom.
pub(super) fn read(
    hub: &Hub,
    request: &fleet::CreateTaskRequest,
    selected: &[Vec<NodeId>],
    now: Timestamp,
) -> Result<Option<Signed>, Fault> {
    if request.signed_orders.is_empty() {
        return Ok(None);
    }
    let wrong = |why: &str| invalid("BAD_SIGNED_ORDER", format!("a signed order {why}"));
    let mut parts = Vec::with_capacity(request.signed_orders.len());
    let mut tasks = BTreeSet::new();
    for sealed in &request.signed_orders {
        let order = TaskOrder::decode(sealed.payload.clone()).map_err(|error| wrong(&error.to_string()))?;
        if sealed.payload_type != TASK || order.network_id != hub.trust.network().as_bytes() {
            return Err(wrong("is no order, or another network's"));
        }
        let issued = order.issue_time.and_then(from_wire).ok_or_else(|| wrong("has no time of issue"))?;
        if now.since(issued) > CLOCK || issued.since(now) > CLOCK {
            return Err(wrong("was issued at another time, by the master's clock"));
        }
        if order.lifetime != request.lifetime.or(order.lifetime) || !says_the_same(&order, request) {
            return Err(wrong("says something else than the request"));
        }
        tasks.insert(TaskId::from_bytes(&order.task_id).ok_or_else(|| wrong("has no task id"))?);
        let targets = order.targets.iter().map(|id| wire::node_id(id, "target"));
        parts.push(targets.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(&error.to_string()))?);
    }
    let (signed, wanted): (BTreeSet<_>, BTreeSet<_>) =
        (parts.iter().flatten().collect(), selected.iter().flatten().collect());
    if signed != wanted || parts.iter().map(Vec::len).sum::<usize>() != signed.len() {
        return Err(wrong("is not for exactly the nodes that the filter selects"));
    }
    let mut tasks = tasks.into_iter();
    match (tasks.next(), tasks.next()) {
        (Some(task), None) => Ok(Some(Signed { task, parts, orders: request.signed_orders.clone() })),
        _ => Err(wrong("is of another task than the others")),
    }
}

/// Arguments apart, which may be sealed, each host's its own.
fn says_the_same(order: &TaskOrder, request: &fleet::CreateTaskRequest) -> bool {
    let bare = |spec: &Option<TaskSpec>| spec.clone().map(|spec| TaskSpec { arguments: None, ..spec });
    let confidential = order.spec.as_ref().is_some_and(|spec| spec.class() == TaskClass::Confidential);
    if confidential { bare(&order.spec) == bare(&request.spec) } else { order.spec == request.spec }
}

/// The master's signature beside the operator's.
pub(super) async fn countersign(hub: &Hub, signed: &Signed) -> Result<Vec<Opaque>, Fault> {
    let statements: Vec<_> = signed
        .orders
        .iter()
        .map(|order| Statement::Countersigned { payload: Opaque(order.payload.to_vec()) })
        .collect();
    let countersigned = hub.sign(&statements).await.map_err(|error| refusal::authority(&error))?;
    let orders = signed.orders.iter().zip(countersigned).map(|(order, master)| {
        let masters: Vec<Signature> = render::envelope(&master).map(|it| it.signatures).unwrap_or_default();
        let signatures = masters.into_iter().chain(order.signatures.clone()).collect();
        Opaque(Envelope { signatures, ..order.clone() }.encode_to_vec())
    });
    Ok(orders.collect())
}

/// A specification whose arguments only `node` can read, and whose results only the holder of its result key.
pub(super) async fn sealed_spec(
    hub: &Hub,
    task: TaskId,
    node: NodeId,
    spec: &TaskSpec,
) -> Result<TaskSpec, Fault> {
    let stored = hub.store.nodes_by_id(&[node]).await.map_err(|error| refusal::store(&error))?;
    let key = stored.into_iter().next().map(|stored| stored.row.attested.sealing_key.0).unwrap_or_default();
    let plain = match spec.arguments.as_ref().and_then(|content| content.source.as_ref()) {
        Some(Source::Inline(bytes)) => bytes.clone(),
        None => bytes::Bytes::new(),
        Some(Source::Reference(_)) => {
            return Err(invalid("ARGUMENTS_NOT_SEALED", "arguments by reference cannot be sealed"));
        }
    };
    let place = place_of_task(hub.trust.network(), task.as_bytes(), node);
    let sealed = sealing::seal(&key, ARGUMENTS, &place, &plain).map_err(|error| {
        let reason = format!("nothing can be sealed to nodes/{node}, which has not attached yet: {error}");
        muster_kit::status::fault(tonic::Code::FailedPrecondition, "NO_SEALING_KEY", reason)
    })?;
    let mut spec = spec.clone();
    spec.arguments = Some(Content { source: Some(Source::Inline(sealed.encode_to_vec().into())) });
    Ok(spec)
}
