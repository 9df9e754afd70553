//! Faults of this service: every reason that a client can meet, in one place.

use muster_kit::status::{Fault, fault};
use tonic::Code;

use crate::authority::AuthorityError;
use crate::domain::labels::NodeRefusal;
use crate::store::{DEEDS, StoreError};
use crate::writer::WriteError;

/// What the caller asked makes no sense.
pub(super) fn invalid(reason: &'static str, message: impl Into<String>) -> Fault {
    fault(Code::InvalidArgument, reason, message)
}

pub(super) fn not_found(reason: &'static str, name: &str) -> Fault {
    fault(Code::NotFound, reason, format!("there is no {name}")).with("name", name)
}

/// The store failed: ours, not the caller's.
pub(super) fn store(error: &StoreError) -> Fault {
    tracing::error!(%error, "the store failed");
    fault(Code::Unavailable, "STORE_FAILED", "the store failed; try again")
}

pub(super) fn write(error: &WriteError) -> Fault {
    match error {
        WriteError::Store(error) => store(error),
        WriteError::Ended => fault(Code::Unavailable, "SHUTTING_DOWN", "topology is shutting down"),
    }
}

pub(super) fn audit_behind() -> Fault {
    let message = format!(
        "{DEEDS} deeds wait for auth's audit log: until it takes them, nothing new is done that it \
         would not have; see to auth, then try again"
    );
    fault(Code::Unavailable, "AUDIT_BEHIND", message)
}

pub(super) fn authority(error: &AuthorityError) -> Fault {
    fault(Code::Unavailable, "AUTH_UNAVAILABLE", error.to_string())
}

pub(super) fn node(refusal: NodeRefusal, name: &str) -> Fault {
    let message = format!("nodes/{name}: {refusal}");
    match refusal {
        NodeRefusal::Unknown => not_found("NODE_NOT_FOUND", &format!("nodes/{name}")),
        NodeRefusal::Changed => fault(Code::Aborted, "ETAG_MISMATCH", message),
        NodeRefusal::Online => fault(Code::FailedPrecondition, "NODE_ONLINE", message),
        NodeRefusal::NotHeld => fault(Code::FailedPrecondition, "NODE_NOT_HELD", message),
        NodeRefusal::UnknownLife => fault(Code::NotFound, "LIFE_NOT_FOUND", message),
        NodeRefusal::TooManyLabels => invalid("TOO_MANY_LABELS", message),
    }
}
