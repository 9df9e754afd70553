//! What goes wrong between nodes, and whose fault it is.

use std::io;

use muster_types::NodeId;
use muster_wire::WireError;
use muster_wire::revocation::Reason;

/// The endpoint could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("no UDP and TCP port could be opened: {0}")]
    Socket(#[from] io::Error),
    #[error("this node's certificate cannot be used: {0}")]
    Identity(String),
    #[error("this node's certificate or the trusted roots cannot be used for TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the trusted roots cannot be used to check peers: {0}")]
    Roots(#[from] rustls::server::VerifierBuilderError),
}

/// No session came about.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DialError {
    #[error("{0:?} has no address that could be dialled")]
    NoAddress(NodeId),
    #[error("{peer:?} was not reached: {reason}")]
    Unreachable { peer: NodeId, reason: String },
    #[error("{peer:?} did not open a session: {reason}")]
    Refused { peer: NodeId, reason: String },
    #[error("this endpoint is closing")]
    Closing,
}

/// A message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("the session with {0:?} has ended")]
    Closed(NodeId),
    #[error("{0:?} does not take in what it is sent; its queue is full")]
    Full(NodeId),
    #[error(transparent)]
    TooLarge(#[from] WireError),
    #[error("a datagram for {peer:?} has {actual} bytes; the path carries {limit}")]
    DatagramTooLarge { peer: NodeId, actual: usize, limit: usize },
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// This node closed it.
    Local,
    /// The peer closed it, and said why.
    Peer { code: u32, reason: String },
    /// The peer is not admitted any more; why, by the list of revocations.
    Revoked(Reason),
    /// The same peer opened another one, which goes on.
    Replaced,
    /// The peer broke the protocol.
    Misbehaved(String),
    /// The path or the peer is gone: time-out, reset, broken TCP connection.
    Lost(String),
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local => f.write_str("closed by this node"),
            Self::Peer { code, reason } => write!(f, "closed by the peer with code {code}: {reason}"),
            Self::Revoked(reason) => write!(f, "the peer's certificate is {reason}"),
            Self::Replaced => f.write_str("replaced by a new session with the same peer"),
            Self::Misbehaved(what) => write!(f, "the peer misbehaved: {what}"),
            Self::Lost(how) => write!(f, "lost: {how}"),
        }
    }
}

/// Codes of QUIC's CONNECTION_CLOSE between nodes. Numbers never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    Done = 0,
    /// The two ends already have, or are about to have, another session.
    Duplicate = 1,
    /// The certificate is not that of a node of this network, or the Hello was not believed.
    Refused = 2,
    /// The peer broke the protocol.
    Misbehaved = 3,
    /// The path under the session broke.
    PathLost = 4,
    /// Too old, or revoked: the overlay has said why.
    NotAdmitted = 5,
}
