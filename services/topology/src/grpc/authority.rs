//! Auth by gRPC: statements become signed messages of the contracts.

use std::net::IpAddr;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use muster_kit::connect::MasterChannel;
use muster_proto::auth::v1::admission_service_client::AdmissionServiceClient;
use muster_proto::auth::v1::audit_service_client::AuditServiceClient;
use muster_proto::auth::v1::authority_service_client::AuthorityServiceClient;
use muster_proto::auth::v1::revocation_service_client::RevocationServiceClient;
use muster_proto::auth::v1::{
    self as wire, AdoptRevocationListRequest, GetTrustBundleRequest, ListAdmissionsRequest, Payload,
    RecordAuditEntriesRequest, SignRequest, WatchRevocationListRequest,
};
use muster_proto::control::v1::{CancellationOrder, PresenceReceipt};
use muster_proto::payload_type;
use muster_proto::task::v1::{TaskOrder, TaskSpec};
use muster_proto::trust::v1::{Envelope, TrustBundle, UptimeTicket};
use muster_types::{NetworkId, NodeId};
use muster_wire::time::{from_wire, span_to_wire, to_wire};
use prost::Message;

use crate::authority::{Authority, AuthorityError, Contact, Increments, STATEMENTS, Statement};
use crate::domain::admission::{Admission, Admissions};
use crate::domain::deed::Action;
use crate::domain::opaque::Opaque;
use crate::grpc::render;
use crate::store::WaitingDeed;

/// Bytes that one call has signed: half of what auth takes; signed they come back somewhat larger.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// The client of auth's AuthorityService, and of its list of revocations.
pub struct AuthClient {
    network: NetworkId,
    client: AuthorityServiceClient<MasterChannel>,
    revocations: RevocationServiceClient<MasterChannel>,
    admissions: AdmissionServiceClient<MasterChannel>,
    audit: AuditServiceClient<MasterChannel>,
}

impl AuthClient {
    pub fn new(network: NetworkId, channel: MasterChannel) -> Self {
        let revocations = RevocationServiceClient::new(channel.clone());
        let client = AuthorityServiceClient::new(channel.clone()).max_decoding_message_size(2 * BATCH_BYTES);
        let admissions = AdmissionServiceClient::new(channel.clone());
        let audit = AuditServiceClient::new(channel);
        Self { network, client, revocations, admissions, audit }
    }
}

#[async_trait]
impl Authority for AuthClient {
    async fn sign(&self, statements: &[Statement]) -> Result<Vec<Opaque>, AuthorityError> {
        let mut signed = Vec::with_capacity(statements.len());
        let payloads = statements.iter().map(|statement| payload(self.network, statement));
        for payloads in batches(payloads.collect::<Result<Vec<_>, _>>()?) {
            let batch = payloads.len();
            let answer =
                self.client.clone().sign(SignRequest { payloads }).await.map_err(|it| failed(&it))?;
            let envelopes = answer.into_inner().envelopes;
            if envelopes.len() != batch {
                return Err(AuthorityError(format!("{} of {batch} are signed", envelopes.len())));
            }
            signed.extend(envelopes.iter().map(|envelope| Opaque(envelope.encode_to_vec())));
        }
        Ok(signed)
    }

    async fn admissions(&self, after: u64) -> Result<Admissions, AuthorityError> {
        let request = ListAdmissionsRequest { after_revision: after, page_size: 0 };
        let answer = self.admissions.clone().list_admissions(request).await;
        let answer = answer.map_err(|status| failed(&status))?.into_inner();
        let nodes = answer.admissions.into_iter().filter(|it| !it.revoked).filter_map(admission).collect();
        Ok(Admissions { nodes, last: answer.last_revision })
    }

    async fn publish(&self, contacts: Vec<Contact>) -> Result<(), AuthorityError> {
        let contacts = contacts.iter().map(contact).collect();
        let request = wire::PublishContactsRequest { contacts };
        self.admissions.clone().publish_contacts(request).await.map_err(|status| failed(&status))?;
        Ok(())
    }

    async fn record(&self, deeds: Vec<WaitingDeed>) -> Result<(), AuthorityError> {
        let request = RecordAuditEntriesRequest { deeds: deeds.into_iter().map(deed).collect() };
        self.audit.clone().record_audit_entries(request).await.map_err(|status| failed(&status))?;
        Ok(())
    }

    async fn trust_bundle(&self) -> Result<TrustBundle, AuthorityError> {
        let answer = self.client.clone().get_trust_bundle(GetTrustBundleRequest {}).await;
        let bundle = answer.map_err(|status| failed(&status))?.into_inner().trust_bundle;
        bundle.ok_or_else(|| AuthorityError("it has no trust bundle".to_owned()))
    }

    async fn adopt(&self, list: Envelope) -> Result<(), AuthorityError> {
        let request = AdoptRevocationListRequest { revocation_list: Some(list) };
        let answer = self.revocations.clone().adopt_revocation_list(request).await;
        let adopted = answer.map_err(|status| failed(&status))?.into_inner().adopted;
        tracing::info!(adopted, "auth has revocations again that it had lost");
        Ok(())
    }

    async fn revocations(&self, after: u64) -> Result<Increments, AuthorityError> {
        let request = WatchRevocationListRequest { after_number: after };
        let answer = self.revocations.clone().watch_revocation_list(request).await;
        let lists = answer.map_err(|status| failed(&status))?.into_inner();
        Ok(lists
            .map(|answer| {
                let list = answer.map_err(|status| failed(&status))?.revocation_list;
                list.ok_or_else(|| AuthorityError("it sent no list".to_owned()))
            })
            .boxed())
    }
}

/// In their order, each few enough and small enough for one call.
fn batches(payloads: Vec<Payload>) -> Vec<Vec<Payload>> {
    let mut batches = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for payload in payloads {
        let size = payload.encoded_len();
        if !batch.is_empty() && (batch.len() == STATEMENTS || bytes + size > BATCH_BYTES) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += size;
        batch.push(payload);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// `None` if it names nobody; auth is not who would do that.
fn admission(wire: wire::Admission) -> Option<Admission> {
    Some(Admission {
        node: NodeId::try_from(&wire.node_id[..]).ok()?,
        host_name: wire.host_name,
        software_version: wire.software_version,
        labels: wire.labels.into_iter().collect(),
        enrolled: wire.enroll_time.and_then(from_wire)?,
    })
}

fn deed(waiting: WaitingDeed) -> wire::AuditDeed {
    let WaitingDeed { id, deed, .. } = waiting;
    let action = match deed.action {
        Action::CreateTask => wire::AuditAction::CreateTask,
        Action::CancelTask => wire::AuditAction::CancelTask,
        Action::ApproveTask => wire::AuditAction::ApproveTask,
        Action::Refuse => wire::AuditAction::Refuse,
        Action::ChangeRole => wire::AuditAction::ChangeRole,
        Action::ChangeLabels => wire::AuditAction::ChangeLabels,
        Action::DeleteNode => wire::AuditAction::DeleteNode,
        Action::Omit => wire::AuditAction::Omit,
        Action::HoldNode => wire::AuditAction::HoldNode,
        Action::ResolveClone => wire::AuditAction::ResolveClone,
    };
    wire::AuditDeed {
        id,
        time: Some(to_wire(deed.at)),
        action: action.into(),
        actor: deed.actor,
        subject: deed.subject,
        detail: deed.detail,
    }
}

fn contact(contact: &Contact) -> wire::Contact {
    let observed_ip = match contact.observed.map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(ip)) => Bytes::copy_from_slice(&ip.octets()),
        Some(IpAddr::V6(ip)) => Bytes::copy_from_slice(&ip.octets()),
        None => Bytes::new(),
    };
    wire::Contact { claim: render::envelope(&contact.claim), observed_ip }
}

fn failed(status: &tonic::Status) -> AuthorityError {
    AuthorityError(format!("{:?}: {}", status.code(), status.message()))
}

fn id(node: NodeId) -> Bytes {
    Bytes::copy_from_slice(node.as_bytes())
}

/// What is signed: the message of the contract that says it.
pub fn payload(network: NetworkId, statement: &Statement) -> Result<Payload, AuthorityError> {
    let network_id = Bytes::copy_from_slice(network.as_bytes());
    let (payload_type, payload) = match statement {
        Statement::Order { task, targets, issued, lifetime, spec } => {
            let spec = TaskSpec::decode(&spec.0[..]).map_err(|error| AuthorityError(error.to_string()))?;
            let order = TaskOrder {
                network_id,
                task_id: Bytes::copy_from_slice(task.as_bytes()),
                occurrence: String::new(),
                targets: targets.iter().copied().map(id).collect(),
                issue_time: Some(to_wire(*issued)),
                lifetime: Some(span_to_wire(*lifetime)),
                spec: Some(spec),
            };
            (payload_type::TASK, order.encode_to_vec())
        }
        Statement::Countersigned { payload } => (payload_type::TASK, payload.0.clone()),
        Statement::Cancellation { task, issued } => {
            let task_id = Bytes::copy_from_slice(task.as_bytes());
            let order = CancellationOrder { network_id, task_id, issue_time: Some(to_wire(*issued)) };
            (payload_type::TASK_CANCELLATION, order.encode_to_vec())
        }
        Statement::Uptime { node, basis_points, issued, expires } => {
            let ticket = UptimeTicket {
                node_id: id(*node),
                uptime_basis_points: u32::from(*basis_points),
                issue_time: Some(to_wire(*issued)),
                expire_time: Some(to_wire(*expires)),
            };
            (payload_type::UPTIME_TICKET, ticket.encode_to_vec())
        }
        Statement::Receipt { node, lsn, boot_nonce, received, attached } => {
            let receipt = PresenceReceipt {
                node_id: id(*node),
                lsn_id: id(*lsn),
                boot_nonce: *boot_nonce,
                receipt_time: Some(to_wire(*received)),
                attach_time: Some(to_wire(*attached)),
            };
            (payload_type::PRESENCE_RECEIPT, receipt.encode_to_vec())
        }
    };
    Ok(Payload { payload_type: payload_type.to_owned(), payload: payload.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_goes_in_calls_that_fit_and_keeps_its_order() {
        let of = |size: usize| Payload { payload_type: String::new(), payload: vec![0; size].into() };
        let large: Vec<_> = (0..70).map(|_| of(256 * 1024)).collect();
        let sizes: Vec<_> = batches(large).iter().map(Vec::len).collect();
        assert!(sizes.len() == 3 && sizes.iter().sum::<usize>() == 70, "{sizes:?}");
        let small: Vec<_> = (0..2_500)
            .map(of)
            .map(|mut it| {
                it.payload.truncate(9);
                it
            })
            .collect();
        let lengths: Vec<_> = batches(small).iter().map(Vec::len).collect();
        assert_eq!(lengths, [1_000, 1_000, 500]);
        assert!(batches(Vec::new()).is_empty());
    }
}
