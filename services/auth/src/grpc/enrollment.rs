//! EnrollmentService: whoever has no certificate yet, or an expired one.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use muster_kit::clock::BootClock;
use muster_kit::listen::PeerInfo;
use muster_kit::status::{Fault, fault as make};
use muster_proto::auth::v1::enrollment_service_server::EnrollmentService;
use muster_proto::auth::v1::{
    CreateRenewalChallengeRequest, CreateRenewalChallengeResponse, Credentials, EnrollRequest,
    EnrollResponse, RenewRequest, RenewResponse,
};
use muster_types::Token;
use tonic::{Code, Extensions, Request, Response, Status};

use super::fault;
use super::wire::{Directory, node_keys};
use crate::domain::cooldown::Cooldown;
use crate::domain::enrollment::Applicant;
use crate::domain::renewal::Claim;
use crate::domain::request::CertificateRequest;
use crate::metrics;
use crate::service::{Auth, AuthError};

pub(super) struct Enrollment {
    auth: Arc<Auth>,
    directory: Directory,
    clock: BootClock,
    cooldown: Mutex<Cooldown>,
}

impl Enrollment {
    pub(super) fn new(auth: Arc<Auth>, directory: Directory) -> Self {
        Self { auth, directory, clock: BootClock::new(), cooldown: Mutex::default() }
    }

    async fn try_enroll(&self, request: EnrollRequest, source: Option<IpAddr>) -> Result<Credentials, Fault> {
        self.check_cooldown(source)?;
        let token = request.token.parse::<Token>();
        let token = token.map_err(|error| fault::invalid("LINK_MALFORMED", format!("the link: {error}")))?;
        let certificate_request =
            CertificateRequest::parse(&request.certificate_request).map_err(fault::request)?;
        let applicant = Applicant {
            request: certificate_request,
            node_keys: node_keys(request.node_keys, &certificate_request).map_err(fault::request)?,
            host_name: request.host_name,
            software_version: request.software_version,
            hardware_serial: request.hardware_serial,
            source: source.map(|source| source.to_string()).unwrap_or_default(),
        };
        let admission = self.auth.enroll(&token, &applicant).await.inspect_err(|error| {
            if let (AuthError::UnknownToken, Some(source)) = (error, source) {
                self.cooldown().on_failure(source, self.clock.now());
            }
        });
        self.directory.enrolled(&admission.map_err(fault::of)?, source)
    }

    async fn try_renew(&self, request: RenewRequest) -> Result<Credentials, Fault> {
        let certificate_request =
            CertificateRequest::parse(&request.certificate_request).map_err(fault::request)?;
        let claim = Claim {
            certificate: &request.certificate,
            challenge: &request.challenge,
            proof: &request.proof,
            request: certificate_request,
        };
        let keys = node_keys(request.node_keys, &certificate_request).map_err(fault::request)?;
        self.directory.credentials(&self.auth.renew(claim, keys).await.map_err(fault::of)?)
    }

    fn check_cooldown(&self, source: Option<IpAddr>) -> Result<(), Fault> {
        let wait = source.and_then(|source| self.cooldown().wait(source, self.clock.now()));
        wait.map_or(Ok(()), |wait| {
            let message = format!("too many unknown links from this address: wait {} s", wait.as_secs() + 1);
            Err(make(Code::ResourceExhausted, "COOL_DOWN", message).retry_after(wait))
        })
    }

    fn cooldown(&self) -> MutexGuard<'_, Cooldown> {
        // A panic while it was locked leaves at worst one failure uncounted.
        self.cooldown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn source(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<PeerInfo>().map(|peer| peer.remote_addr.ip())
}

#[tonic::async_trait]
impl EnrollmentService for Enrollment {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let source = source(request.extensions());
        let outcome = self.try_enroll(request.into_inner(), source).await;
        metrics::count_enrollment(outcome.as_ref().err());
        let credentials = outcome.inspect_err(|refused| tracing::info!(%refused, "enrollment refused"))?;
        Ok(Response::new(EnrollResponse { credentials: Some(credentials) }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let outcome = self.try_renew(request.into_inner()).await;
        metrics::count_renewal(outcome.as_ref().err());
        let credentials = outcome.inspect_err(|refused| tracing::info!(%refused, "renewal refused"))?;
        Ok(Response::new(RenewResponse { credentials: Some(credentials) }))
    }

    async fn create_renewal_challenge(
        &self,
        _: Request<CreateRenewalChallengeRequest>,
    ) -> Result<Response<CreateRenewalChallengeResponse>, Status> {
        let challenge = self.auth.challenge().into();
        Ok(Response::new(CreateRenewalChallengeResponse { challenge }))
    }
}
