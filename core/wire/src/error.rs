//! Why bytes were refused: every error names the field, and so whose fault it is.

use muster_types::{NetworkId, NodeId};

use crate::envelope::EnvelopeError;
use crate::ticket::TicketError;

/// A message that was not understood, or not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("{what} has {actual} bytes; {limit} are the most")]
    TooLarge { what: &'static str, actual: usize, limit: usize },
    #[error("the bytes are no {what}: {reason}")]
    Malformed { what: &'static str, reason: String },
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{field} is invalid: {reason}")]
    Invalid { field: &'static str, reason: String },
    #[error("{field} holds {actual} items; {limit} are the most")]
    TooMany { field: &'static str, actual: usize, limit: usize },
    /// A newer peer's message: to be ignored, not to be answered by closing.
    #[error("the {0} is of a kind that this version does not know")]
    UnknownKind(&'static str),
    #[error("{field} is not believed: {source}")]
    Envelope { field: &'static str, source: EnvelopeError },
    #[error("{field} is not believed: {source}")]
    Ticket { field: &'static str, source: TicketError },
    #[error("{field} speaks for {actual:?}, not for {expected:?}")]
    Stranger { field: &'static str, expected: NodeId, actual: NodeId },
    #[error("{field} belongs to network {actual}, not to {expected}")]
    OtherNetwork { field: &'static str, expected: NetworkId, actual: NetworkId },
}

impl WireError {
    pub(crate) fn invalid(field: &'static str, reason: impl ToString) -> Self {
        Self::Invalid { field, reason: reason.to_string() }
    }
}
