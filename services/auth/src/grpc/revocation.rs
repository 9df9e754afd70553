//! RevocationService: operators say who counts no longer, other services learn of it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use muster_kit::status::Fault;
use muster_proto::auth::v1::revocation_service_server::RevocationService;
use muster_proto::auth::v1::revoke_certificate_request::Subject as WireSubject;
use muster_proto::auth::v1::{
    AdoptRevocationListRequest, AdoptRevocationListResponse, GetRevocationListRequest,
    GetRevocationListResponse, ReinstateCertificateRequest, ReinstateCertificateResponse,
    RevokeCertificateRequest, RevokeCertificateResponse, WatchRevocationListRequest,
    WatchRevocationListResponse,
};
use muster_proto::payload_type::REVOCATION_LIST;
use muster_proto::trust::v1 as trust;
use muster_wire::time;
use prost::Message;
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status};

use super::{fault, wire};
use crate::domain::leaf::Serial;
use crate::domain::request::KeyHash;
use crate::domain::revocation::{Reason, Revoked, Subject};
use crate::domain::signer::Purpose;
use crate::metrics;
use crate::service::{Auth, List, Revocation, RevocationRequest};

/// How often a watch looks for what another replica changed.
const LOOK: Duration = Duration::from_millis(500);

/// How often a watch is told that nothing changed.
const SIGN_OF_LIFE: Duration = Duration::from_secs(60);

pub(super) struct Revocations {
    auth: Arc<Auth>,
}

impl Revocations {
    pub(super) fn new(auth: Arc<Auth>) -> Self {
        Self { auth }
    }
}

fn request_from_wire(request: RevokeCertificateRequest) -> Result<RevocationRequest, Fault> {
    let reason = Reason::from_code(i64::from(request.reason))
        .ok_or_else(|| fault::invalid("REASON_INVALID", "the reason is none of RFC 5280, section 5.3.1"))?;
    let subject = match request.subject {
        Some(WireSubject::Name(name)) => Subject::Name(name),
        Some(WireSubject::CertificateSerial(serial)) => Subject::Serial(Serial(serial.to_vec())),
        Some(WireSubject::KeyHash(hash)) => Subject::Key(KeyHash(
            hash[..].try_into().map_err(|_| fault::invalid("SUBJECT_INVALID", "key_hash has no 32 bytes"))?,
        )),
        None => return Err(fault::invalid("SUBJECT_INVALID", "name a subject: name, serial or key")),
    };
    Ok(RevocationRequest { subject, reason, comment: request.comment, validate_only: request.validate_only })
}

fn serials(revocation: &Revocation) -> Vec<Bytes> {
    revocation.certificates.iter().map(|certificate| certificate.serial.0.clone().into()).collect()
}

fn revoked_to_wire(entry: &Revoked) -> trust::Revocation {
    trust::Revocation {
        number: entry.number,
        certificate_serial: entry.serial.0.clone().into(),
        key_hash: Bytes::copy_from_slice(&entry.key.0),
        node_id: entry.node().map_or_else(Bytes::new, |node| Bytes::copy_from_slice(node.as_bytes())),
        revoke_time: Some(time::to_wire(entry.revoke_time)),
        expire_time: Some(time::to_wire(entry.expire_time)),
        reason: i32::try_from(entry.reason.code()).unwrap_or_default(),
    }
}

fn sign(auth: &Auth, list: &List) -> Result<trust::Envelope, Fault> {
    let message = trust::RevocationList {
        number: list.number,
        base_number: list.base,
        issue_time: Some(time::to_wire(list.time)),
        revocations: list.entries.iter().map(revoked_to_wire).collect(),
        restored_number: list.restored,
    };
    wire::sign(&auth.authority(), Purpose::Tickets, REVOCATION_LIST, message.encode_to_vec().into())
}

/// Waits for a list behind `after`, or for the time to say that there is none.
async fn next_list(auth: &Auth, after: u64, first: bool) -> Result<List, Fault> {
    let quiet_until = Instant::now() + if first { Duration::ZERO } else { SIGN_OF_LIFE };
    loop {
        let list = auth.revocation_list(after).await.map_err(fault::of)?;
        if list.number != after || Instant::now() >= quiet_until {
            return Ok(list);
        }
        // A wake-up that is lost costs a look, never a change.
        let _ = timeout(LOOK, auth.revocations_changed()).await;
    }
}

#[tonic::async_trait]
impl RevocationService for Revocations {
    async fn revoke_certificate(
        &self,
        request: Request<RevokeCertificateRequest>,
    ) -> Result<Response<RevokeCertificateResponse>, Status> {
        let actor = fault::caller(request.extensions())?.resource_name();
        let request = request_from_wire(request.into_inner())?;
        let revocation = self.auth.revoke(&actor, &request).await.map_err(fault::of)?;
        metrics::count_revocations(revocation.certificates.len());
        let certificate_serials = serials(&revocation);
        let Revocation { principal, number, .. } = revocation;
        Ok(Response::new(RevokeCertificateResponse {
            name: principal,
            certificate_serials,
            list_number: number,
        }))
    }

    async fn reinstate_certificate(
        &self,
        request: Request<ReinstateCertificateRequest>,
    ) -> Result<Response<ReinstateCertificateResponse>, Status> {
        let actor = fault::caller(request.extensions())?.resource_name();
        let ReinstateCertificateRequest { name, comment } = request.into_inner();
        let revocation = self.auth.reinstate(&actor, &name, &comment).await.map_err(fault::of)?;
        let certificate_serials = serials(&revocation);
        let number = revocation.number;
        Ok(Response::new(ReinstateCertificateResponse { name, certificate_serials, list_number: number }))
    }

    async fn get_revocation_list(
        &self,
        request: Request<GetRevocationListRequest>,
    ) -> Result<Response<GetRevocationListResponse>, Status> {
        let list = self.auth.revocation_list(request.get_ref().after_number).await.map_err(fault::of)?;
        Ok(Response::new(GetRevocationListResponse {
            revocation_list: Some(sign(&self.auth, &list)?),
            number: list.number,
            issue_time: Some(time::to_wire(list.time)),
        }))
    }

    async fn adopt_revocation_list(
        &self,
        request: Request<AdoptRevocationListRequest>,
    ) -> Result<Response<AdoptRevocationListResponse>, Status> {
        let actor = fault::caller(request.extensions())?.resource_name();
        let list = request.into_inner().revocation_list.unwrap_or_default();
        let bundle = wire::trust_bundle(&self.auth.authority(), self.auth.now());
        let adopted = self.auth.adopt_revocations(&actor, &list, &bundle).await.map_err(fault::of)?;
        Ok(Response::new(AdoptRevocationListResponse { adopted }))
    }

    type WatchRevocationListStream =
        Pin<Box<dyn Stream<Item = Result<WatchRevocationListResponse, Status>> + Send>>;

    async fn watch_revocation_list(
        &self,
        request: Request<WatchRevocationListRequest>,
    ) -> Result<Response<Self::WatchRevocationListStream>, Status> {
        let begin = (self.auth.clone(), request.get_ref().after_number, true);
        let lists = futures::stream::try_unfold(begin, |(auth, after, first)| async move {
            let list = next_list(&auth, after, first).await?;
            let revocation_list = Some(sign(&auth, &list)?);
            let number = list.number;
            Ok::<_, Status>(Some((
                WatchRevocationListResponse { revocation_list, number },
                (auth, number, false),
            )))
        });
        Ok(Response::new(Box::pin(lists)))
    }
}
