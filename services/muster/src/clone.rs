//! `muster clone`: an operator's word on devices that live under one identity.

use muster_proto::auth::v1 as auth;
use muster_proto::fleet::v1::{NodeState, ResolveCloneRequest};

use crate::cli::{Clone, Output, Place};
use crate::context::Session;
use crate::exit::{Exit, Failure};
use crate::fleet as listing;
use crate::render::{json, words};

/// The device is attached and enrolls at once; a master that is busy may have it come again.
const LINK_LIFETIME: std::time::Duration = std::time::Duration::from_secs(3_600);

pub async fn decide(place: &Place, output: Output, wanted: Clone) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let node = listing::node(&session, &wanted.node).await?;
    let (life, enrollment_link) = match wanted.renew {
        Some(life) => {
            let link = link(&session, &node).await?;
            (life, link)
        }
        None => (String::new(), String::new()),
    };
    let renewed = !life.is_empty();
    let request = ResolveCloneRequest { name: node.name, life, enrollment_link };
    let answer = session.fleet().resolve_clone(request).await;
    let node = answer.map_err(session.failed("cannot decide about the host's devices"))?.into_inner();
    match output {
        Output::Json => json::print("Node", [("node", json::node(&node))]),
        Output::Table => {
            let host = words::host(&node.host_name, &node.name);
            if renewed {
                eprintln!("That device enrolls anew and comes as a host of its own.");
            }
            match node.state() {
                NodeState::Held => eprintln!("{host} is still held: several devices are left."),
                _ => eprintln!("{host} is one device again, and takes part."),
            }
        }
    }
    Ok(Exit::Ok)
}

/// One with the labels that auth attested the host when it enrolled.
async fn link(session: &Session, node: &muster_proto::fleet::v1::Node) -> Result<String, Failure> {
    let request = auth::CreateLinkRequest {
        role: auth::Role::Node.into(),
        time_to_live: Some(words::to_duration(LINK_LIFETIME)),
        labels: node.labels.clone(),
        display_name: format!("clone of {}", words::short(&node.name)),
        request_id: uuid::Uuid::now_v7().to_string(),
        use_limit: 1,
        ..auth::CreateLinkRequest::default()
    };
    let answer = session.links().create_link(request).await.map_err(session.failed("cannot make a link"))?;
    Ok(answer.into_inner().url)
}
