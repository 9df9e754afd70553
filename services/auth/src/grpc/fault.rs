//! Every error of auth as a caller sees it: a code, a reason for programs, a message for people.

use std::time::Duration;

use muster_kit::listen::PeerInfo;
use muster_kit::status::{Fault, fault};
use muster_types::Identity;
use tonic::{Code, Extensions};

use crate::domain::approval::ApprovalError;
use crate::domain::authority::AuthorityError;
use crate::domain::challenge::ChallengeError;
use crate::domain::device::DeviceError;
use crate::domain::enrollment::EnrollmentError;
use crate::domain::link::{LinkRefusal, TermsError};
use crate::domain::renewal::RenewalError;
use crate::domain::request::RequestError;
use crate::domain::revocation::RevocationError;
use crate::domain::rotation::ImportError;
use crate::domain::signer::SigningRefusal;
use crate::service::AuthError;
use crate::store::StoreError;

pub(super) fn of(error: AuthError) -> Fault {
    match error {
        AuthError::UnknownToken => fault(Code::NotFound, "LINK_UNKNOWN", error.to_string()),
        AuthError::Link(refusal) => link(refusal),
        AuthError::Enrollment(error) => enrollment(error),
        AuthError::Renewal(error) => renewal(error),
        AuthError::Terms(error) => terms(&error),
        AuthError::Approval(error) => approval(&error),
        AuthError::Revocation(error) => revocation(&error),
        AuthError::Device(error) => device(&error),
        AuthError::Import(ImportError::Authority(error)) => authority(&error),
        AuthError::Import(error) => fault(Code::FailedPrecondition, "IMPORT_REFUSED", error.to_string()),
        AuthError::NotFound(_) => fault(Code::NotFound, "NOT_FOUND", error.to_string()),
        AuthError::Authority(error) => authority(&error),
        AuthError::Store(error) => store(&error),
    }
}

fn link(refusal: LinkRefusal) -> Fault {
    let reason = match refusal {
        LinkRefusal::Used => "LINK_USED",
        LinkRefusal::Expired => "LINK_EXPIRED",
        LinkRefusal::Revoked => "LINK_REVOKED",
        LinkRefusal::Bound(_) => "LINK_BOUND",
        LinkRefusal::Protocol(_) => "LINK_PROTOCOL",
    };
    fault(Code::FailedPrecondition, reason, refusal.to_string())
}

/// How long whoever waits for an operator's word should let pass before it asks again.
const APPROVAL_LOOK: Duration = Duration::from_secs(30);

fn approval(error: &ApprovalError) -> Fault {
    let message = error.to_string();
    match error {
        ApprovalError::Pending(_) => {
            fault(Code::FailedPrecondition, "APPROVAL_PENDING", message).retry_after(APPROVAL_LOOK)
        }
        ApprovalError::Denied => fault(Code::PermissionDenied, "APPROVAL_DENIED", message),
        ApprovalError::TooMany => fault(Code::ResourceExhausted, "APPROVALS_TOO_MANY", message),
        ApprovalError::Decided(_) => fault(Code::FailedPrecondition, "APPROVAL_DECIDED", message),
    }
}

fn revocation(error: &RevocationError) -> Fault {
    let message = error.to_string();
    match error {
        RevocationError::Unknown(_) => fault(Code::NotFound, "NOT_FOUND", message),
        RevocationError::NotLost(_) => fault(Code::FailedPrecondition, "NOT_LOST", message),
        RevocationError::NotAllowed { .. } => {
            fault(Code::PermissionDenied, "REVOCATION_NOT_ALLOWED", message)
        }
        RevocationError::NotRestored => fault(Code::FailedPrecondition, "NOT_RESTORED", message),
        RevocationError::Unbelieved(_) => invalid("LIST_UNBELIEVED", message),
        RevocationError::Comment => invalid("COMMENT_INVALID", message),
        RevocationError::Reason => invalid("REASON_INVALID", message),
    }
}

fn device(error: &DeviceError) -> Fault {
    match error {
        DeviceError::Authority(error) => authority(error),
        _ => invalid("REQUEST_REFUSED", error.to_string()),
    }
}

fn enrollment(error: EnrollmentError) -> Fault {
    let message = error.to_string();
    match error {
        EnrollmentError::Request(error) => request(error),
        EnrollmentError::Text(_) => invalid("FIELD_INVALID", message),
        EnrollmentError::KeyRevoked => fault(Code::PermissionDenied, "KEY_REVOKED", message),
        EnrollmentError::KeyTaken(_) => fault(Code::AlreadyExists, "KEY_TAKEN", message),
        EnrollmentError::Authority(error) => authority(&error),
    }
}

fn renewal(error: RenewalError) -> Fault {
    let message = error.to_string();
    match error {
        RenewalError::Challenge(ChallengeError::Foreign) => invalid("CHALLENGE_INVALID", message),
        RenewalError::Challenge(ChallengeError::Expired) => {
            fault(Code::FailedPrecondition, "CHALLENGE_EXPIRED", message)
        }
        RenewalError::Request(error) => request(error),
        RenewalError::Certificate => invalid("CERTIFICATE_INVALID", message),
        RenewalError::BadProof => invalid("REQUEST_BAD_PROOF", message),
        RenewalError::TooLate => fault(Code::FailedPrecondition, "RENEWAL_TOO_LATE", message),
        RenewalError::Unknown => fault(Code::NotFound, "CERTIFICATE_UNKNOWN", message),
        RenewalError::Revoked => fault(Code::PermissionDenied, "KEY_REVOKED", message),
        RenewalError::Authority(error) => authority(&error),
    }
}

pub(super) fn request(error: RequestError) -> Fault {
    let reason = match error {
        RequestError::ForeignNodeKeys => "WRONG_ROLE",
        _ if error.is_bad_proof() => "REQUEST_BAD_PROOF",
        _ => "REQUEST_MALFORMED",
    };
    invalid(reason, error.to_string())
}

fn terms(error: &TermsError) -> Fault {
    match error {
        TermsError::NotAllowed { .. } => fault(Code::PermissionDenied, "LINK_NOT_ALLOWED", error.to_string()),
        _ => invalid("LINK_TERMS_INVALID", error.to_string()),
    }
}

pub(super) fn signing(refusal: &SigningRefusal) -> Fault {
    fault(Code::PermissionDenied, "SIGNING_REFUSED", refusal.to_string())
}

/// Our own fault: the caller learns that, the log learns what.
pub(super) fn authority(error: &AuthorityError) -> Fault {
    if let AuthorityError::Elsewhere(_) = error {
        return fault(Code::FailedPrecondition, "KEY_ELSEWHERE", error.to_string());
    }
    if let AuthorityError::Token(_) | AuthorityError::Unsigned = error {
        tracing::error!(%error, "the token failed");
        return fault(
            Code::Unavailable,
            "TOKEN_UNAVAILABLE",
            "the token with the authority's keys does not work; auth's log says why",
        );
    }
    tracing::error!(%error, "the authority failed");
    fault(Code::Internal, "AUTHORITY_FAILED", "the authority could not do its work; its log says why")
}

fn store(error: &StoreError) -> Fault {
    match error {
        StoreError::Conflict => {
            fault(Code::Aborted, "CONFLICT", "others keep changing the same record: try again")
        }
        StoreError::Open(_) | StoreError::Unavailable(_) => {
            tracing::warn!(%error, "the store does not answer");
            fault(Code::Unavailable, "STORE_UNAVAILABLE", "auth's store does not answer; try again")
        }
        StoreError::Corrupt(_) => {
            tracing::error!(%error, "the store is damaged");
            fault(Code::DataLoss, "STORE_CORRUPT", "a record cannot be read; auth's log says which")
        }
    }
}

pub(super) fn invalid(reason: &'static str, message: impl Into<String>) -> Fault {
    fault(Code::InvalidArgument, reason, message)
}

/// Who calls. The policy has let nobody through who has no certificate.
pub(super) fn caller(extensions: &Extensions) -> Result<&Identity, Fault> {
    extensions.get::<PeerInfo>().and_then(|peer| peer.identity.as_ref()).ok_or_else(|| {
        fault(Code::Unauthenticated, "CERTIFICATE_REQUIRED", "this call needs a client certificate")
    })
}
