//! AdmissionService: topology learns whom auth has admitted, and tells whom the next ones may meet first.

use std::sync::Arc;

use bytes::Bytes;
use muster_proto::auth::v1 as wire;
use muster_proto::auth::v1::admission_service_server::AdmissionService;
use muster_wire::time::to_wire;
use tonic::{Request, Response, Status};

use super::contacts::Contacts;
use super::fault;
use crate::domain::Principal;
use crate::service::{Auth, AuthError};
use crate::store::Revision;

/// Admissions on a page, at most and by default: some 300 KiB.
const PAGE: u32 = 1_000;

pub(super) struct Admissions {
    auth: Arc<Auth>,
    contacts: Contacts,
}

impl Admissions {
    pub(super) fn new(auth: Arc<Auth>, contacts: Contacts) -> Self {
        Self { auth, contacts }
    }
}

#[tonic::async_trait]
impl AdmissionService for Admissions {
    async fn list_admissions(
        &self,
        request: Request<wire::ListAdmissionsRequest>,
    ) -> Result<Response<wire::ListAdmissionsResponse>, Status> {
        let wire::ListAdmissionsRequest { after_revision, page_size } = request.into_inner();
        let after = Revision(i64::try_from(after_revision).unwrap_or(i64::MAX));
        let limit = u32::try_from(page_size).ok().filter(|size| (1..PAGE).contains(size)).unwrap_or(PAGE);
        let page = self.auth.store().nodes(after, limit).await.map_err(AuthError::from).map_err(fault::of)?;
        let last_revision = page.last().map_or(after_revision, |last| last.revision.0.unsigned_abs());
        let admissions = page.into_iter().filter_map(|stored| admission(stored.record)).collect();
        Ok(Response::new(wire::ListAdmissionsResponse { admissions, last_revision }))
    }

    async fn publish_contacts(
        &self,
        request: Request<wire::PublishContactsRequest>,
    ) -> Result<Response<wire::PublishContactsResponse>, Status> {
        self.contacts.publish(request.into_inner().contacts);
        Ok(Response::new(wire::PublishContactsResponse {}))
    }
}

/// `None` for whoever is no node.
fn admission(principal: Principal) -> Option<wire::Admission> {
    Some(wire::Admission {
        node_id: Bytes::copy_from_slice(principal.identity.node_id()?.as_bytes()),
        host_name: principal.host_name,
        software_version: principal.software_version,
        labels: principal.labels.into_iter().collect(),
        enroll_time: Some(to_wire(principal.enroll_time)),
        revoked: principal.revocation.is_some(),
    })
}
