//! Tasks that an operator signs here, before the master sees them: targets are frozen, orders written and signed with a key
//! that no master has.

use std::path::Path;

use bytes::Bytes;
use muster_kit::clock;
use muster_proto::fleet::v1::{CreateTaskRequest, Node, NodeFilter};
use muster_proto::payload_type::TASK;
use muster_proto::task::v1::{Content, TaskClass, TaskOrder, TaskSpec, content::Source};
use muster_proto::trust::v1::Envelope;
use muster_types::limits::ORDER_TARGETS;
use muster_types::{NetworkId, NodeId, Timestamp};
use muster_wire::envelope::sign_p256;
use muster_wire::sealing::{self, ARGUMENTS, place_of_task};
use muster_wire::time::to_wire;
use prost::Message;
use ring::signature::EcdsaKeyPair;
use uuid::Uuid;

use crate::context::Session;
use crate::exit::Failure;
use crate::fleet as listing;

/// An operator's hand, under the operators' own root.
pub struct OperatorKey {
    pub(crate) key: EcdsaKeyPair,
    pub(crate) key_id: Bytes,
    /// DER, the operator's own first.
    pub(crate) certificates: Vec<Bytes>,
}

/// What all orders of one task have in common.
struct Common {
    network: NetworkId,
    task: Uuid,
    issued: Timestamp,
    lifetime: prost_types::Duration,
    spec: TaskSpec,
}

impl OperatorKey {
    fn sign(&self, order: &TaskOrder) -> Result<Envelope, Failure> {
        let payload = Bytes::from(order.encode_to_vec());
        let mut sealed = sign_p256(TASK, payload, &self.key, self.key_id.clone())
            .map_err(|error| Failure::internal("cannot sign", error))?;
        for signature in &mut sealed.signatures {
            signature.certificates.clone_from(&self.certificates);
        }
        Ok(sealed)
    }
}

/// The same, if there is a key to sign with.
pub async fn signed_if(
    session: &Session,
    key: Option<&Path>,
    request: CreateTaskRequest,
) -> Result<CreateTaskRequest, Failure> {
    match key {
        Some(file) => signed(session, &OperatorKey::open(file)?, request).await,
        None => Ok(request),
    }
}

/// Turns a request into one whose orders this operator has signed, for exactly the hosts that it selects now.
pub async fn signed(
    session: &Session,
    key: &OperatorKey,
    mut request: CreateTaskRequest,
) -> Result<CreateTaskRequest, Failure> {
    name_result_key(session, &mut request).await?;
    let filter = request.filter.take().unwrap_or_default();
    let nodes = listing::nodes(session, filter).await?;
    if nodes.is_empty() {
        return Err(Failure::usage("no host is named", "the selection is empty").next("muster nodes"));
    }
    let common = Common {
        network: session.network,
        task: Uuid::now_v7(),
        issued: clock::wall(),
        lifetime: request.lifetime.unwrap_or(DEFAULT_LIFETIME),
        spec: request.spec.clone().unwrap_or_default(),
    };
    let confidential = common.spec.class() == TaskClass::Confidential;
    let orders = if confidential {
        nodes.iter().map(|node| common.sealed_order(node)).collect::<Result<Vec<_>, _>>()?
    } else {
        let ids = nodes.iter().map(id_of).collect::<Result<Vec<_>, _>>()?;
        ids.chunks(ORDER_TARGETS).map(|targets| common.order(targets, common.spec.clone())).collect()
    };
    request.signed_orders = orders.iter().map(|order| key.sign(order)).collect::<Result<_, _>>()?;
    request.filter = Some(NodeFilter {
        names: nodes.into_iter().map(|node| node.name).collect(),
        ..NodeFilter::default()
    });
    request.all_nodes = false;
    if confidential && let Some(spec) = &mut request.spec {
        // Each host's own stands in its order, sealed.
        spec.arguments = None;
    }
    Ok(request)
}

/// What is sealed to the master is sealed to a key that it names: the signature covers that too.
async fn name_result_key(session: &Session, request: &mut CreateTaskRequest) -> Result<(), Failure> {
    let confidential = request.spec.as_ref().is_some_and(|spec| spec.class() == TaskClass::Confidential);
    if confidential {
        let asked = CreateTaskRequest { validate_only: true, request_id: String::new(), ..request.clone() };
        let planned = session.fleet().create_task(asked).await.map_err(session.failed("cannot run this"))?;
        let key = planned.into_inner().spec.map(|spec| spec.result_key).unwrap_or_default();
        if let Some(spec) = &mut request.spec {
            spec.result_key = key;
        }
    }
    Ok(())
}

/// As the API says.
const DEFAULT_LIFETIME: prost_types::Duration = prost_types::Duration { seconds: 3_600, nanos: 0 };

fn id_of(node: &Node) -> Result<NodeId, Failure> {
    let id = node.name.strip_prefix("nodes/").and_then(|id| id.parse().ok());
    id.ok_or_else(|| Failure::internal("the master names a host", format!("{:?} is no name", node.name)))
}

impl Common {
    fn order(&self, targets: &[NodeId], spec: TaskSpec) -> TaskOrder {
        TaskOrder {
            network_id: Bytes::copy_from_slice(self.network.as_bytes()),
            task_id: Bytes::copy_from_slice(self.task.as_bytes()),
            occurrence: String::new(),
            targets: targets.iter().map(|node| Bytes::copy_from_slice(node.as_bytes())).collect(),
            issue_time: Some(to_wire(self.issued)),
            lifetime: Some(self.lifetime),
            spec: Some(spec),
        }
    }

    fn sealed_order(&self, node: &Node) -> Result<TaskOrder, Failure> {
        let id = id_of(node)?;
        let mut spec = self.spec.clone();
        let plain = match spec.arguments.take().and_then(|content| content.source) {
            Some(Source::Inline(bytes)) => bytes,
            _ => Bytes::new(),
        };
        let place = place_of_task(self.network, self.task.as_bytes(), id);
        let sealed = sealing::seal(&node.sealing_key, ARGUMENTS, &place, &plain).map_err(|error| {
            Failure::usage(format!("nothing can be sealed to {}", node.name), error)
                .next("it must have attached once since it enrolled")
        })?;
        spec.arguments = Some(Content { source: Some(Source::Inline(sealed.encode_to_vec().into())) });
        Ok(self.order(&[id], spec))
    }
}
