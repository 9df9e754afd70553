//! What topology has auth sign, in its own terms.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use muster_proto::trust::v1::{Envelope, TrustBundle};
use muster_types::{NodeId, Timestamp};

use crate::domain::admission::Admissions;
use crate::domain::opaque::Opaque;
use crate::domain::task::TaskId;
use crate::store::WaitingDeed;

/// Statements that one call signs at most (contract of SignRequest).
pub const STATEMENTS: usize = 1_000;

/// What the master puts its name to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    Order {
        task: TaskId,
        targets: Vec<NodeId>,
        issued: Timestamp,
        lifetime: Duration,
        spec: Opaque,
    },
    /// An order that an operator wrote and signed: the payload as it is.
    Countersigned {
        payload: Opaque,
    },
    Cancellation {
        task: TaskId,
        issued: Timestamp,
    },
    Uptime {
        node: NodeId,
        basis_points: u16,
        issued: Timestamp,
        expires: Timestamp,
    },
    Receipt {
        node: NodeId,
        lsn: NodeId,
        boot_nonce: u64,
        received: Timestamp,
        attached: Timestamp,
    },
}

/// An LSN, as the answer of an enrollment may name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Its claim, as signed by it.
    pub claim: Opaque,
    pub observed: Option<IpAddr>,
}

/// Auth did not sign, or did not tell whom to trust.
#[derive(Debug, Clone, thiserror::Error)]
#[error("auth does not answer as it should: {0}")]
pub struct AuthorityError(pub String);

/// Increments of the list of revocations, as they come.
pub type Increments = BoxStream<'static, Result<Envelope, AuthorityError>>;

/// The holder of the signing keys.
#[async_trait]
pub trait Authority: Send + Sync + 'static {
    /// One sealed envelope for each statement, in their order.
    async fn sign(&self, statements: &[Statement]) -> Result<Vec<Opaque>, AuthorityError>;
    /// Whom it has admitted behind this place of its feed.
    async fn admissions(&self, after: u64) -> Result<Admissions, AuthorityError>;
    /// LSNs that devices may meet first.
    async fn publish(&self, contacts: Vec<Contact>) -> Result<(), AuthorityError>;
    /// Puts deeds into the audit log, in their order; those that it has already are not repeated.
    async fn record(&self, deeds: Vec<WaitingDeed>) -> Result<(), AuthorityError>;
    /// Whose signatures are to be believed.
    async fn trust_bundle(&self) -> Result<TrustBundle, AuthorityError>;
    /// What nodes know of revocations and a restored auth does not.
    async fn adopt(&self, list: Envelope) -> Result<(), AuthorityError>;
    /// Signed increments of the list of revocations: all behind `after`, one at least, then those to come.
    async fn revocations(&self, after: u64) -> Result<Increments, AuthorityError>;
}
