//! CertificateAuthorityService: operators look at the authority and replace it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use muster_kit::status::Fault;
use muster_proto::auth::v1::certificate_authority_service_server::CertificateAuthorityService;
use muster_proto::auth::v1::rotate_certificate_authority_request::Tier;
use muster_proto::auth::v1::{
    CertificateAuthority, GetCertificateAuthorityRequest, ImportCertificatesRequest,
    RotateCertificateAuthorityRequest, SignerPurpose, WithdrawSignersRequest,
};
use tonic::{Request, Response, Status};

use super::fault;
use crate::domain::authority::Subordinate;
use crate::domain::signer::Purpose;
use crate::service::Auth;

/// Certificates in one import: a root, its two cross certificates, and two authorities, several times over.
const CERTIFICATES: usize = 16;

pub(super) struct Authorities {
    auth: Arc<Auth>,
}

impl Authorities {
    pub(super) fn new(auth: Arc<Auth>) -> Self {
        Self { auth }
    }

    async fn shown(&self) -> Result<Response<CertificateAuthority>, Fault> {
        let authority = self.auth.authority();
        let subordinates = |known: &[Subordinate]| {
            known.iter().map(|one| Bytes::copy_from_slice(&one.certificate)).collect::<Vec<_>>()
        };
        let requests = self.auth.requests().await.map_err(fault::of)?;
        let bytes = |ders: &[Vec<u8>]| ders.iter().map(|der| Bytes::copy_from_slice(der)).collect::<Vec<_>>();
        Ok(Response::new(CertificateAuthority {
            roots: bytes(authority.roots()),
            issuing_authorities: subordinates(authority.issuing()),
            device_authorities: subordinates(authority.devices()),
            cross_certificates: bytes(authority.crosses()),
            certificate_requests: requests.into_iter().map(|(_, der)| der.into()).collect(),
            version: authority.version(),
            signers: authority.signers(self.auth.now()).map(Bytes::copy_from_slice).collect(),
            withdrawals: authority.withdrawals(self.auth.now()).map(Bytes::copy_from_slice).collect(),
        }))
    }
}

fn purpose(wire: SignerPurpose) -> Option<Purpose> {
    match wire {
        SignerPurpose::Tasks => Some(Purpose::Tasks),
        SignerPurpose::Tickets => Some(Purpose::Tickets),
        SignerPurpose::Receipts => Some(Purpose::Receipts),
        SignerPurpose::Unspecified => None,
    }
}

#[tonic::async_trait]
impl CertificateAuthorityService for Authorities {
    async fn get_certificate_authority(
        &self,
        _: Request<GetCertificateAuthorityRequest>,
    ) -> Result<Response<CertificateAuthority>, Status> {
        Ok(self.shown().await?)
    }

    async fn rotate_certificate_authority(
        &self,
        request: Request<RotateCertificateAuthorityRequest>,
    ) -> Result<Response<CertificateAuthority>, Status> {
        let actor = fault::caller(request.extensions())?.resource_name();
        let rotated = match request.get_ref().tier() {
            Tier::Issuing => self.auth.rotate_issuing(&actor).await,
            Tier::Root => self.auth.rotate_root(&actor).await,
            Tier::Signers => self.auth.rotate_signers(&actor).await,
            Tier::Unspecified => return Err(fault::invalid("TIER_INVALID", "say which tier").into()),
        };
        rotated.map_err(fault::of)?;
        Ok(self.shown().await?)
    }

    async fn withdraw_signers(
        &self,
        request: Request<WithdrawSignersRequest>,
    ) -> Result<Response<CertificateAuthority>, Status> {
        let actor = fault::caller(request.extensions())?.resource_name();
        let purposes: BTreeSet<_> = request.get_ref().purposes().filter_map(purpose).collect();
        if purposes.is_empty() {
            return Err(fault::invalid("PURPOSE_INVALID", "say which: tasks, tickets or receipts").into());
        }
        let purposes: Vec<_> = purposes.into_iter().collect();
        self.auth.withdraw_signers(&actor, &purposes).await.map_err(fault::of)?;
        Ok(self.shown().await?)
    }

    async fn import_certificates(
        &self,
        request: Request<ImportCertificatesRequest>,
    ) -> Result<Response<CertificateAuthority>, Status> {
        let actor = fault::caller(request.extensions())?.resource_name();
        let certificates = request.into_inner().certificates;
        if certificates.len() > CERTIFICATES {
            let message = format!("{CERTIFICATES} certificates are the most in one import");
            return Err(fault::invalid("TOO_MANY_CERTIFICATES", message).into());
        }
        let certificates: Vec<_> = certificates.iter().map(|der| der.to_vec()).collect();
        self.auth.import(&actor, &certificates).await.map_err(fault::of)?;
        Ok(self.shown().await?)
    }
}
