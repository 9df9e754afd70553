//! AuthorityService: other services have their payloads signed.

use std::sync::Arc;

use bytes::Bytes;
use muster_kit::status::{Fault, fault as make};
use muster_proto::auth::v1::authority_service_server::AuthorityService;
use muster_proto::auth::v1::{
    GetTrustBundleRequest, GetTrustBundleResponse, Payload, SignRequest, SignResponse,
};
use muster_proto::trust::v1::Envelope;
use tonic::{Code, Request, Response, Status};

use super::{fault, wire};
use crate::domain::Authority;
use crate::domain::signer::{Purpose, may_hold, purpose_for};
use crate::metrics;
use crate::service::Auth;

/// Payloads in one call.
pub const SIGN_PAYLOADS: usize = 1_000;

/// Bytes of one call: a thousand tickets, or some two hundred orders with all the inline arguments they may have.
pub const SIGN_BYTES: usize = 16 * 1024 * 1024;

pub(super) struct Signing {
    auth: Arc<Auth>,
}

/// A payload that may be signed, with the signer that signs it.
struct Granted {
    purpose: Purpose,
    payload_type: &'static str,
    payload: Bytes,
}

impl Signing {
    pub(super) fn new(auth: Arc<Auth>) -> Self {
        Self { auth }
    }
}

/// All payloads or none: one that `service` may not have signed refuses the call.
fn grant(service: &str, payloads: Vec<Payload>) -> Result<Vec<Granted>, Fault> {
    if payloads.len() > SIGN_PAYLOADS {
        let message = format!("{} payloads; {SIGN_PAYLOADS} are the most in one call", payloads.len());
        return Err(fault::invalid("TOO_MANY_PAYLOADS", message));
    }
    let granted = payloads.into_iter().map(|Payload { payload_type, payload }| {
        let (purpose, payload_type) =
            purpose_for(service, &payload_type).map_err(|refusal| fault::signing(&refusal))?;
        if !may_hold(service, payload_type, &payload) {
            let message = format!("{service} may have tickets of bootstrap nodes signed, and this is none");
            return Err(fault::invalid("NOT_A_BOOTSTRAP_TICKET", message));
        }
        Ok(Granted { purpose, payload_type, payload })
    });
    granted.collect()
}

fn sign(authority: &Authority, granted: Vec<Granted>) -> Result<Vec<Envelope>, Fault> {
    let envelopes = granted.into_iter().map(|Granted { purpose, payload_type, payload }| {
        metrics::count_signature(purpose);
        wire::sign(authority, purpose, payload_type, payload)
    });
    envelopes.collect()
}

#[tonic::async_trait]
impl AuthorityService for Signing {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let service = fault::caller(request.extensions())?.name.clone();
        let granted = grant(&service, request.into_inner().payloads)?;
        let authority = self.auth.authority();
        // A full batch takes some 30 ms of a core: not on a thread that serves others.
        let signed = tokio::task::spawn_blocking(move || sign(&authority, granted)).await;
        let envelopes =
            signed.map_err(|_| make(Code::Internal, "AUTHORITY_FAILED", "signing was broken off"))??;
        Ok(Response::new(SignResponse { envelopes }))
    }

    async fn get_trust_bundle(
        &self,
        _: Request<GetTrustBundleRequest>,
    ) -> Result<Response<GetTrustBundleResponse>, Status> {
        let authority = self.auth.authority();
        Ok(Response::new(GetTrustBundleResponse {
            trust_bundle: Some(wire::trust_bundle(&authority, self.auth.now())),
            network_id: Bytes::copy_from_slice(authority.network().as_bytes()),
        }))
    }
}
