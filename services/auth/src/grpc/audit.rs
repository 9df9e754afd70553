//! AuditService: other services tell what was done, operators and auditors read it.

use std::sync::Arc;

use bytes::Bytes;
use muster_kit::status::Fault;
use muster_proto::auth::v1::audit_service_server::AuditService;
use muster_proto::auth::v1::{
    AuditAction, AuditDeed, AuditEntry, ListAuditEntriesRequest, ListAuditEntriesResponse,
    RecordAuditEntriesRequest, RecordAuditEntriesResponse,
};
use muster_wire::time;
use tonic::{Request, Response, Status};

use super::fault;
use super::link::page_size_of;
use super::wire::is_uuid;
use crate::domain::audit::{Action, Deed, Entry};
use crate::service::{Auth, Told};

/// Deeds in one call.
const DEEDS: usize = 500;

/// Characters of a name or a detail.
const TEXT_CHARS: usize = 1_000;

pub(super) struct Log {
    auth: Arc<Auth>,
}

impl Log {
    pub(super) fn new(auth: Arc<Auth>) -> Self {
        Self { auth }
    }
}

fn action(deed: &AuditDeed) -> Option<Action> {
    Some(match deed.action() {
        AuditAction::Unspecified => return None,
        AuditAction::CreateTask => Action::CreateTask,
        AuditAction::CancelTask => Action::CancelTask,
        AuditAction::ApproveTask => Action::ApproveTask,
        AuditAction::DenyTask => Action::DenyTask,
        AuditAction::Refuse => Action::Refuse,
        AuditAction::ChangeRole => Action::ChangeRole,
        AuditAction::ChangeLabels => Action::ChangeLabels,
        AuditAction::ChangeScope => Action::ChangeScope,
        AuditAction::DeleteNode => Action::DeleteNode,
        AuditAction::Omit => Action::Omit,
        AuditAction::HoldNode => Action::HoldNode,
        AuditAction::ResolveClone => Action::ResolveClone,
    })
}

fn told(deed: AuditDeed) -> Result<Told, Fault> {
    let wrong =
        |what: &str| fault::invalid("DEED_INVALID", format!("a deed's {what} is missing or malformed"));
    let action = action(&deed).ok_or_else(|| wrong("action"))?;
    let at = deed.time.and_then(time::from_wire).ok_or_else(|| wrong("time"))?;
    if !is_uuid(&deed.id) {
        return Err(wrong("id"));
    }
    let AuditDeed { id, actor, subject, detail, .. } = deed;
    for text in [&actor, &subject, &detail] {
        if text.chars().count() > TEXT_CHARS || text.chars().any(char::is_control) {
            return Err(wrong("text"));
        }
    }
    Ok(Told { id, deed: Deed { time: at, action, actor, subject, detail } })
}

fn entry_to_wire(entry: Entry) -> AuditEntry {
    AuditEntry {
        revision: entry.revision,
        chain: entry.chain,
        sequence: entry.sequence,
        time: Some(time::to_wire(entry.time)),
        action: entry.action,
        actor: entry.actor,
        subject: entry.subject,
        detail: entry.detail,
        hash: Bytes::copy_from_slice(&entry.hash),
    }
}

#[tonic::async_trait]
impl AuditService for Log {
    async fn record_audit_entries(
        &self,
        request: Request<RecordAuditEntriesRequest>,
    ) -> Result<Response<RecordAuditEntriesResponse>, Status> {
        let service = fault::caller(request.extensions())?.resource_name();
        let deeds = request.into_inner().deeds;
        if deeds.len() > DEEDS {
            let message = format!("{} deeds; {DEEDS} are the most in one call", deeds.len());
            return Err(fault::invalid("TOO_MANY_DEEDS", message).into());
        }
        let told = deeds.into_iter().map(told).collect::<Result<_, _>>()?;
        self.auth.record(&service, told).await.map_err(fault::of)?;
        Ok(Response::new(RecordAuditEntriesResponse {}))
    }

    async fn list_audit_entries(
        &self,
        request: Request<ListAuditEntriesRequest>,
    ) -> Result<Response<ListAuditEntriesResponse>, Status> {
        let ListAuditEntriesRequest { after_revision, page_size } = request.into_inner();
        let size = page_size_of(page_size)?;
        let entries = self.auth.audit(after_revision, size).await.map_err(fault::of)?;
        let last_revision = entries.last().map_or(after_revision, |entry| entry.revision);
        // The signed ends are read last: what they say is already in what was listed, or comes with the next look.
        let heads = match entries.len() < size as usize {
            true => Some(self.auth.signed_heads().await.map_err(fault::of)?),
            false => None,
        };
        let entries = entries.into_iter().map(entry_to_wire).collect();
        Ok(Response::new(ListAuditEntriesResponse { entries, last_revision, heads }))
    }
}
