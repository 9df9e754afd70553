//! Auth's gRPC services, and whom each method is open to. Adapters: wire in, one call of [`Auth`], wire out.

use std::path::PathBuf;
use std::sync::Arc;

use muster_kit::grpc::Routes;
use muster_kit::policy::{Callers, Policy};
use muster_proto::auth::v1::admission_service_server::AdmissionServiceServer;
use muster_proto::auth::v1::audit_service_server::AuditServiceServer;
use muster_proto::auth::v1::authority_service_server::AuthorityServiceServer;
use muster_proto::auth::v1::certificate_authority_service_server::CertificateAuthorityServiceServer;
use muster_proto::auth::v1::enrollment_request_service_server::EnrollmentRequestServiceServer;
use muster_proto::auth::v1::enrollment_service_server::EnrollmentServiceServer;
use muster_proto::auth::v1::link_service_server::LinkServiceServer;
use muster_proto::auth::v1::revocation_service_server::RevocationServiceServer;
use muster_types::Role;

use crate::service::Auth;

mod admission;
mod approval;
mod audit;
mod authority;
mod certificate_authority;
mod contacts;
mod enrollment;
mod fault;
mod link;
mod revocation;
mod wire;

pub use authority::{SIGN_BYTES, SIGN_PAYLOADS};
use contacts::Contacts;
use wire::Directory;

/// A message to enrollment: two certificates' worth of DER and a few texts.
const ENROLLMENT_BYTES: usize = 32 * 1024;

/// A list of revoked certificates: some hundred bytes each.
const LIST_BYTES: usize = 256 * crate::service::LIST as usize;

/// Where whoever was enrolled finds the master later.
#[derive(Debug, Clone, Default)]
pub struct Whereabouts {
    /// `host:port`, best first.
    pub addresses: Vec<String>,
    /// Domain of `_muster._tcp` SRV records; empty: none.
    pub discovery_domain: String,
    /// The operators' policy lies here, if the network has one.
    pub operator_policy_file: PathBuf,
}

/// Everything that is served under `auth.muster`.
pub fn routes(auth: &Arc<Auth>, whereabouts: Whereabouts) -> Routes {
    let contacts = Contacts::default();
    let directory = Directory::new(whereabouts, contacts.clone());
    let enrollment = EnrollmentServiceServer::new(enrollment::Enrollment::new(auth.clone(), directory))
        .max_decoding_message_size(ENROLLMENT_BYTES);
    let authority = AuthorityServiceServer::new(authority::Signing::new(auth.clone()))
        .max_decoding_message_size(SIGN_BYTES)
        .max_encoding_message_size(2 * SIGN_BYTES);
    let links = LinkServiceServer::new(link::Links::new(auth.clone()));
    let admissions = AdmissionServiceServer::new(admission::Admissions::new(auth.clone(), contacts));
    let revocations = RevocationServiceServer::new(revocation::Revocations::new(auth.clone()))
        .max_encoding_message_size(LIST_BYTES);
    let approvals = EnrollmentRequestServiceServer::new(approval::Approvals::new(auth.clone()));
    let log = AuditServiceServer::new(audit::Log::new(auth.clone()));
    let authorities =
        CertificateAuthorityServiceServer::new(certificate_authority::Authorities::new(auth.clone()));
    Routes::new()
        .with(enrollment)
        .with(links)
        .with(authority)
        .with(revocations)
        .with(approvals)
        .with(log)
        .with(authorities)
        .with(admissions)
}

/// Who may call what. Only enrollment and renewal are open to callers without a certificate.
pub fn policy() -> Policy {
    const SERVICES: &[Role] = &[Role::Service];
    Policy::new()
        .allow("/muster.auth.v1.EnrollmentService/Enroll", Callers::Anybody)
        .allow("/muster.auth.v1.EnrollmentService/Renew", Callers::Anybody)
        .allow("/muster.auth.v1.EnrollmentService/CreateRenewalChallenge", Callers::Anybody)
        .roles("/muster.auth.v1.LinkService/CreateLink", Role::COMMANDERS)
        .roles("/muster.auth.v1.LinkService/ListLinks", Role::READERS)
        .roles("/muster.auth.v1.LinkService/GetLink", Role::READERS)
        .roles("/muster.auth.v1.LinkService/RevokeLink", Role::COMMANDERS)
        .roles("/muster.auth.v1.EnrollmentRequestService/ListEnrollmentRequests", Role::READERS)
        .roles("/muster.auth.v1.EnrollmentRequestService/ApproveEnrollmentRequest", Role::OPERATORS)
        .roles("/muster.auth.v1.EnrollmentRequestService/DenyEnrollmentRequest", Role::OPERATORS)
        .roles("/muster.auth.v1.RevocationService/RevokeCertificate", Role::COMMANDERS)
        .roles("/muster.auth.v1.RevocationService/ReinstateCertificate", Role::OPERATORS)
        .roles("/muster.auth.v1.RevocationService/GetRevocationList", Role::PEERS)
        .roles("/muster.auth.v1.RevocationService/WatchRevocationList", SERVICES)
        .roles("/muster.auth.v1.RevocationService/AdoptRevocationList", SERVICES)
        .roles("/muster.auth.v1.AuditService/RecordAuditEntries", SERVICES)
        .roles("/muster.auth.v1.AuditService/ListAuditEntries", Role::AUDITORS)
        .roles("/muster.auth.v1.CertificateAuthorityService/GetCertificateAuthority", Role::READERS)
        .roles("/muster.auth.v1.CertificateAuthorityService/RotateCertificateAuthority", Role::ADMINS)
        .roles("/muster.auth.v1.CertificateAuthorityService/WithdrawSigners", Role::ADMINS)
        .roles("/muster.auth.v1.CertificateAuthorityService/ImportCertificates", Role::ADMINS)
        .roles("/muster.auth.v1.AuthorityService/Sign", SERVICES)
        .roles("/muster.auth.v1.AuthorityService/GetTrustBundle", SERVICES)
        .roles("/muster.auth.v1.AdmissionService/ListAdmissions", SERVICES)
        .roles("/muster.auth.v1.AdmissionService/PublishContacts", SERVICES)
}
