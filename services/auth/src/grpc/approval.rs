//! EnrollmentRequestService: operators let enrollments go on, or end them.

use std::sync::Arc;

use muster_kit::status::Fault;
use muster_proto::auth::v1::enrollment_request_service_server::EnrollmentRequestService;
use muster_proto::auth::v1::{
    ApproveEnrollmentRequestRequest, DenyEnrollmentRequestRequest, EnrollmentRequest,
    ListEnrollmentRequestsRequest, ListEnrollmentRequestsResponse,
};
use tonic::{Extensions, Request, Response, Status};

use super::fault;
use super::link::page_size_of;
use super::link::wire::approval_to_wire;
use crate::service::Auth;

pub(super) struct Approvals {
    auth: Arc<Auth>,
}

impl Approvals {
    pub(super) fn new(auth: Arc<Auth>) -> Self {
        Self { auth }
    }

    async fn decide(
        &self,
        extensions: &Extensions,
        name: &str,
        approve: bool,
    ) -> Result<EnrollmentRequest, Fault> {
        let actor = fault::caller(extensions)?;
        let id = name.strip_prefix("enrollmentRequests/").ok_or_else(|| {
            fault::invalid("NAME_INVALID", "an enrollment request's name is enrollmentRequests/{id}")
        })?;
        let decided = self.auth.decide(actor, id, approve).await.map_err(fault::of)?;
        Ok(approval_to_wire(&decided))
    }
}

#[tonic::async_trait]
impl EnrollmentRequestService for Approvals {
    async fn list_enrollment_requests(
        &self,
        request: Request<ListEnrollmentRequestsRequest>,
    ) -> Result<Response<ListEnrollmentRequestsResponse>, Status> {
        let limit = page_size_of(request.get_ref().page_size)?;
        let known = self.auth.approvals(limit).await.map_err(fault::of)?;
        let requests = known.iter().map(approval_to_wire).collect();
        Ok(Response::new(ListEnrollmentRequestsResponse { requests }))
    }

    async fn approve_enrollment_request(
        &self,
        request: Request<ApproveEnrollmentRequestRequest>,
    ) -> Result<Response<EnrollmentRequest>, Status> {
        Ok(Response::new(self.decide(request.extensions(), &request.get_ref().name, true).await?))
    }

    async fn deny_enrollment_request(
        &self,
        request: Request<DenyEnrollmentRequestRequest>,
    ) -> Result<Response<EnrollmentRequest>, Status> {
        Ok(Response::new(self.decide(request.extensions(), &request.get_ref().name, false).await?))
    }
}
