//! `muster revoke`, `lost`, `found`, `lock`, `erase`: who is not admitted any more, and what a lost device still gets.

use std::path::PathBuf;

use muster_proto::auth::v1::{
    self as auth, ReinstateCertificateRequest, RevokeCertificateRequest, revoke_certificate_request::Subject,
};
use muster_proto::fleet::v1::{CreateTaskRequest, NodeFilter, OfflinePolicy, Task};
use muster_proto::task::v1 as task;
use muster_proto::trust::v1::RevocationReason;
use muster_types::limits::TASK_LIFETIME;
use prost::Message;
use serde_json::Value;

use crate::cli::{Lock, Lost, Output, Place, Revoke, RevokeReason};
use crate::context::Session;
use crate::exit::{Exit, Failure};
use crate::fleet as listing;
use crate::render::{json, words};
use crate::{run, signing};

pub async fn revoke(place: &Place, output: Output, wanted: Revoke) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let name = principal(&session, &wanted.name).await?;
    let reason = match wanted.reason {
        RevokeReason::Withdrawn => RevocationReason::PrivilegeWithdrawn,
        RevokeReason::KeyCompromise => RevocationReason::KeyCompromise,
        RevokeReason::Moved => RevocationReason::AffiliationChanged,
        RevokeReason::Ceased => RevocationReason::CessationOfOperation,
    };
    let revoked = say(&session, name, reason, wanted.comment).await?;
    match output {
        Output::Json => json::print("Revocation", [("revocation", shown(&revoked))]),
        Output::Table => {
            let count = revoked.certificate_serials.len();
            eprintln!("{} is not admitted any more ({count} certificates)", revoked.name);
        }
    }
    Ok(Exit::Ok)
}

pub async fn lost(place: &Place, output: Output, wanted: Lost) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let name = listing::node(&session, &wanted.node).await?.name;
    let revoked = say(&session, name.clone(), RevocationReason::Lost, wanted.comment).await?;
    let mut orders = Vec::new();
    if wanted.lock {
        orders
            .push(order(&session, &name, "lock", &task::LockArguments::default(), &wanted.sign_with).await?);
    }
    if wanted.erase {
        orders.push(order(&session, &name, "erase", &task::EraseArguments {}, &wanted.sign_with).await?);
    }
    match output {
        Output::Json => json::print(
            "Lost",
            [("revocation", shown(&revoked)), ("tasks", orders.iter().map(json::task).collect())],
        ),
        Output::Table => {
            eprintln!("{name} is cut off. If it comes back, it is admitted for a lock or an erase alone.");
            for order in &orders {
                let kind = order.spec.as_ref().map(|spec| spec.r#type.as_str()).unwrap_or_default();
                eprintln!("Its {kind} waits for it: muster task {} --follow", words::short(&order.name));
            }
        }
    }
    Ok(Exit::Ok)
}

pub async fn found(place: &Place, output: Output, node: &str) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let name = listing::node(&session, node).await?.name;
    let request = ReinstateCertificateRequest { name, comment: String::new() };
    let answer = session.revocations().reinstate_certificate(request).await;
    let answer = answer.map_err(session.failed("cannot admit it again"))?.into_inner();
    match output {
        Output::Json => json::print("Found", [("name", answer.name.into())]),
        Output::Table => eprintln!("{} takes part again", answer.name),
    }
    Ok(Exit::Ok)
}

pub async fn lock(place: &Place, output: Output, wanted: Lock) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let name = listing::node(&session, &wanted.node).await?.name;
    let arguments = task::LockArguments { message: wanted.message, release: wanted.release };
    let order = order(&session, &name, "lock", &arguments, &wanted.sign_with).await?;
    run::follow(&session, output, &order.name).await
}

pub async fn erase(
    place: &Place,
    output: Output,
    node: &str,
    sign_with: Option<PathBuf>,
) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let name = listing::node(&session, node).await?.name;
    let order = order(&session, &name, "erase", &task::EraseArguments {}, &sign_with).await?;
    run::follow(&session, output, &order.name).await
}

/// A host by any of its names, anybody else by the resource name.
async fn principal(session: &Session, name: &str) -> Result<String, Failure> {
    if name.contains('/') && !name.starts_with("nodes/") {
        return Ok(name.to_owned());
    }
    Ok(listing::node(session, name).await?.name)
}

async fn say(
    session: &Session,
    name: String,
    reason: RevocationReason,
    comment: String,
) -> Result<auth::RevokeCertificateResponse, Failure> {
    let request = RevokeCertificateRequest {
        subject: Some(Subject::Name(name)),
        reason: reason.into(),
        comment,
        validate_only: false,
    };
    let answer = session.revocations().revoke_certificate(request).await;
    Ok(answer.map_err(session.failed("cannot revoke"))?.into_inner())
}

/// A task for one host, which waits for it as long as a task can.
async fn order(
    session: &Session,
    node: &str,
    kind: &str,
    arguments: &impl Message,
    sign_with: &Option<PathBuf>,
) -> Result<Task, Failure> {
    let request = CreateTaskRequest {
        spec: Some(task::TaskSpec {
            r#type: kind.to_owned(),
            arguments: Some(run::inline(arguments)),
            class: task::TaskClass::Open.into(),
            ..task::TaskSpec::default()
        }),
        filter: Some(NodeFilter { names: vec![node.to_owned()], ..NodeFilter::default() }),
        offline_policy: OfflinePolicy::Queue.into(),
        lifetime: Some(words::to_duration(TASK_LIFETIME)),
        request_id: uuid::Uuid::now_v7().to_string(),
        display_name: format!("{kind} {}", words::short(node)),
        ..CreateTaskRequest::default()
    };
    let request = signing::signed_if(session, sign_with.as_deref(), request).await?;
    let created = session.fleet().create_task(request).await;
    Ok(created.map_err(session.failed("cannot make the task"))?.into_inner())
}

fn shown(revoked: &auth::RevokeCertificateResponse) -> Value {
    let serial = |serial: &prost::bytes::Bytes| Value::from(data_encoding::HEXLOWER.encode(serial));
    serde_json::json!({
        "name": revoked.name,
        "certificateSerials": revoked.certificate_serials.iter().map(serial).collect::<Value>(),
        "listNumber": revoked.list_number,
    })
}
