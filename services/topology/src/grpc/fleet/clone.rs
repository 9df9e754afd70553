//! ResolveClone: an operator's word on devices that live under one identity.

use muster_kit::status::{Fault, fault};
use muster_proto::fleet::v1 as fleet;
use muster_types::EnrollmentLink;
use tonic::Code;

use super::{nodes, page, policy};
use crate::domain::clone::Resolve;
use crate::grpc::refusal::{self, invalid};
use crate::hub::{Hub, Mail};

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
        && !hub.may_reach(node, *life)
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
