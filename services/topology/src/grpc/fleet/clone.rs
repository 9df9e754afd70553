//! ResolveClone: an operator's word on devices that live under one identity.

use std::time::Duration;

use muster_kit::status::{Fault, fault};
use muster_proto::fleet::v1 as fleet;
use muster_types::{EnrollmentLink, NodeId};
use tonic::Code;

use super::{nodes, page, policy};
use crate::domain::clone::Resolve;
use crate::grpc::refusal::{self, invalid};
use crate::hub::{Hub, Mail};

/// How long a device may take to open its stream again.
const COMES_BACK: Duration = Duration::from_secs(3);

/// Between two looks for it.
const LOOK: Duration = Duration::from_millis(50);

/// The decision is durable before anybody hears of it. Whoever does not hear, or cannot enroll, comes back with the old
/// identity, and is found out again.
pub(super) async fn resolve(
    hub: &Hub,
    actor: String,
    request: fleet::ResolveCloneRequest,
) -> Result<fleet::Node, Fault> {
    let node = page::node_id(&request.name)?;
    policy::may_label(hub, &actor, &nodes::stored(hub, node).await?.row, [])?;
    let leaves = leaving(&request)?;
    if let Some((life, _)) = &leaves
        && !is_reached(hub, node, *life).await
    {
        let message = format!("{}: the device {} is not attached now", request.name, request.life);
        return Err(fault(Code::FailedPrecondition, "LIFE_NOT_ATTACHED", message));
    }
    let life = leaves.as_ref().map(|(life, _)| *life);
    let command = Resolve { node, actor, life };
    let resolved = hub.writer.submit(command).await.map_err(|error| refusal::write(&error))?;
    let released = resolved.map_err(|refused| refusal::node(refused, &node.to_string()))?;
    tracing::info!(%node, released, "an operator has decided about a clone");
    if let Some((life, link)) = leaves {
        hub.mail_every_life(node, Mail::NewIdentity { life, link });
    }
    if released {
        hub.mail_every_life(node, Mail::Release { but: life });
    }
    nodes::node(hub, node).await
}

/// A device that has just been held begins its stream anew.
async fn is_reached(hub: &Hub, node: NodeId, life: u64) -> bool {
    let reached = async {
        while !hub.may_reach(node, life) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(COMES_BACK, reached).await.is_ok()
}

/// Who becomes another device, and by which link.
fn leaving(request: &fleet::ResolveCloneRequest) -> Result<Option<(u64, String)>, Fault> {
    let (life, link) = (&request.life, &request.enrollment_link);
    if life.is_empty() && link.is_empty() {
        return Ok(None);
    }
    let number = u64::from_str_radix(life, 16)
        .map_err(|_| invalid("BAD_LIFE", "a life is one of the node's `lives`, 16 hexadecimal digits"))?;
    if link.parse::<EnrollmentLink>().is_err() {
        return Err(invalid("BAD_LINK", "the device enrolls anew by a link that CreateLink made for a node"));
    }
    Ok(Some((number, link.clone())))
}
