//! The one place where a `tonic::Status` is made, and where a client reads it back: every error carries an ErrorInfo.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::connect::ConnectError;

/// Whose reasons these are (google.rpc.ErrorInfo.domain).
pub const DOMAIN: &str = "muster";

/// An error on its way to a client: a code for gRPC, a reason in UPPER_SNAKE for programs, a message for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({reason})")]
pub struct Fault {
    pub code: Code,
    pub reason: &'static str,
    pub message: String,
    metadata: HashMap<String, String>,
    retry_after: Option<Duration>,
}

/// A [`Fault`] without metadata.
pub fn fault(code: Code, reason: &'static str, message: impl Into<String>) -> Fault {
    Fault { code, reason, message: message.into(), metadata: HashMap::new(), retry_after: None }
}

impl Fault {
    /// Adds a fact that programs may want, under a lowerCamelCase key.
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// Says when it makes sense to try again.
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let mut details = ErrorDetails::with_error_info(fault.reason, DOMAIN, fault.metadata);
        if let Some(delay) = fault.retry_after {
            details.set_retry_info(Some(delay));
        }
        Status::with_error_details(fault.code, fault.message, details)
    }
}

/// The reason that a [`Fault`] gave, if this status was made of one.
pub fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().filter(|info| info.domain == DOMAIN).map(|info| info.reason)
}

/// The facts that a [`Fault`] carried.
pub fn metadata(status: &Status) -> HashMap<String, String> {
    status.get_details_error_info().map(|info| info.metadata).unwrap_or_default()
}

/// When the server said that it makes sense to try again, whether it answered the call or sent the connection away.
pub fn retry_after(status: &Status) -> Option<Duration> {
    let answered = status.get_details_retry_info().and_then(|info| info.retry_delay);
    answered.or_else(|| sent_away(status))
}

fn sent_away(status: &Status) -> Option<Duration> {
    let causes = std::iter::successors(status.source(), |&error| error.source());
    causes.into_iter().find_map(|error| match error.downcast_ref() {
        Some(ConnectError::Busy { retry_after, .. }) => Some(*retry_after),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_fault_says_is_read_back_by_the_client() {
        let delay = Duration::from_secs(3);
        let status: Status = fault(Code::FailedPrecondition, "NODE_ONLINE", "nodes/ab is online")
            .with("node", "nodes/ab")
            .retry_after(delay)
            .into();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.message(), "nodes/ab is online");
        assert_eq!(reason(&status).as_deref(), Some("NODE_ONLINE"));
        assert_eq!(metadata(&status)["node"], "nodes/ab");
        assert_eq!(retry_after(&status), Some(delay));
    }

    #[test]
    fn a_status_of_somebody_else_has_no_reason() {
        assert_eq!(reason(&Status::internal("x")), None);
        assert_eq!(retry_after(&Status::internal("x")), None);
    }
}
