//! What auth must not forget, and the one way to change it: a [`Change`] takes hold whole, with its entry in the
//! audit log, or not at all.
//!
//! Truth is in the store. The domain decides on what it read; [`Write`]s carry the revision they were decided on, and
//! whoever comes second gets [`StoreError::Conflict`], reads again and decides again. Revisions rise with every change.

use std::time::Duration;

use async_trait::async_trait;
use muster_types::Timestamp;

use crate::domain::approval::Approval;
use crate::domain::audit::{Deed, Entry, Head};
use crate::domain::device::DeviceLeaf;
use crate::domain::key::StoredKey;
use crate::domain::leaf::{Leaf, Serial};
use crate::domain::link::Use;
use crate::domain::request::KeyHash;
use crate::domain::revocation::{Reason, Revoked};
use crate::domain::{Link, Principal};

pub mod postgres;
mod row;
pub mod sqlite;

pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Somebody else was first: read again.
    #[error("the record was changed meanwhile")]
    Conflict,
    #[error("the store cannot be opened: {0}")]
    Open(String),
    /// It may have taken hold or not.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    #[error("the store holds a record that cannot be read: {0}")]
    Corrupt(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(error.to_string()),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// Rises with every change; opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

/// A record, and the revision of its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<T> {
    pub record: T,
    pub revision: Revision,
}

/// What auth keeps of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub serial: Serial,
    pub key: KeyHash,
    /// Resource name of its holder.
    pub principal: String,
    /// Which authority signed it, as in `issuing/1`.
    pub issuer: String,
    pub not_after: Timestamp,
    pub revoke_time: Option<Timestamp>,
    /// DER, of devices without our agent.
    pub der: Option<Vec<u8>>,
}

/// A create call that was answered: the same caller with the same id gets the same record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Resource name.
    pub caller: String,
    pub id: String,
    /// Id of the link that the first call made.
    pub link: String,
    pub time: Timestamp,
}

/// One record to write. Exhaustive, so that a back end that forgets one does not compile.
#[derive(Debug, Clone)]
pub enum Write {
    /// [`StoreError::Conflict`] if the kind has this generation already.
    AddKey(StoredKey),
    AddLink(Link),
    ReplaceLink {
        link: Link,
        expected: Revision,
    },
    /// One use of a link, without regard to its revision: many devices may use one at once. [`StoreError::Conflict`] if it is
    /// used up or revoked by now, or this key has used it.
    UseLink {
        /// Its id.
        link: String,
        usage: Use,
    },
    /// `expected: None` for a new principal.
    PutPrincipal {
        principal: Principal,
        expected: Option<Revision>,
    },
    AddCertificate(Leaf),
    AddDeviceCertificate(DeviceLeaf),
    /// Puts a certificate into the list of revoked ones, or changes the reason; [`Reason::Removed`] takes it out.
    Revoke {
        certificate: Certificate,
        time: Timestamp,
        reason: Reason,
    },
    /// Numbers of revocations leap: those behind the newest were given out in a past that this store has lost.
    OpenPast {
        leap: u64,
    },
    /// A certificate that was issued in that past.
    AddForeignCertificate(Certificate),
    AddRequest(Request),
    /// `expected: None` for a new one; [`StoreError::Conflict`] if link and key have one.
    PutApproval {
        approval: Approval,
        expected: Option<Revision>,
    },
}

/// Writes that take hold together, and the deed that they are.
#[derive(Debug, Clone)]
pub struct Change {
    pub writes: Vec<Write>,
    pub deed: Deed,
}

/// Where a page of links ends: links are listed newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    pub create_time: Timestamp,
    pub id: String,
}

/// What a purge forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// Certificates that expired before it.
    pub certificates: Timestamp,
    /// Answered requests older than it.
    pub requests: Timestamp,
    /// Links that expired before it, and uses and enrollment requests older than it.
    pub links: Timestamp,
    /// Revoked certificates that ended before it.
    pub revocations: Timestamp,
}

#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Takes all writes and the deed, durably, or none.
    async fn commit(&self, change: Change) -> Result<Revision, StoreError>;

    async fn keys(&self) -> Result<Vec<StoredKey>, StoreError>;
    async fn link(&self, id: &str) -> Result<Option<Stored<Link>>, StoreError>;
    async fn link_by_token(&self, hash: &[u8; 32]) -> Result<Option<Stored<Link>>, StoreError>;
    /// Newest first, from behind `after`.
    async fn links(&self, after: Option<&Cursor>, limit: u32) -> Result<Vec<Stored<Link>>, StoreError>;
    /// How `key` used a link.
    async fn link_use(&self, link: &str, key: KeyHash) -> Result<Option<Use>, StoreError>;
    /// By resource name.
    async fn principal(&self, name: &str) -> Result<Option<Stored<Principal>>, StoreError>;
    /// Nodes, by the revision of their last change, from behind `after`.
    async fn nodes(&self, after: Revision, limit: u32) -> Result<Vec<Stored<Principal>>, StoreError>;
    async fn certificate(&self, serial: &Serial) -> Result<Option<Certificate>, StoreError>;
    /// A certificate for this key: a revoked one before others, a newer before an older.
    async fn certificate_by_key(&self, key: KeyHash) -> Result<Option<Certificate>, StoreError>;
    /// Of a principal (resource name), the newest first, at most `limit`.
    async fn certificates_of(&self, principal: &str, limit: u32) -> Result<Vec<Certificate>, StoreError>;
    async fn approval(&self, id: &str) -> Result<Option<Stored<Approval>>, StoreError>;
    async fn approval_of(&self, link: &str, key: KeyHash) -> Result<Option<Stored<Approval>>, StoreError>;
    /// The newest of a key, by whichever link.
    async fn approval_by_key(&self, key: KeyHash) -> Result<Option<Stored<Approval>>, StoreError>;
    /// The waiting ones first, the newest first.
    async fn approvals(&self, limit: u32) -> Result<Vec<Approval>, StoreError>;
    /// How many of a link wait.
    async fn waiting(&self, link: &str) -> Result<u32, StoreError>;
    /// The number of the newest revocation.
    async fn revocation_number(&self) -> Result<u64, StoreError>;
    /// Up to where revocations were numbered when the store was last restored.
    async fn restored_number(&self) -> Result<Option<u64>, StoreError>;
    /// The revision of the newest change.
    async fn newest_revision(&self) -> Result<u64, StoreError>;
    /// Revocations with numbers above `after`, in their order.
    async fn revocations(&self, after: u64, limit: u32) -> Result<Vec<Revoked>, StoreError>;
    async fn request(&self, caller: &str, id: &str) -> Result<Option<Request>, StoreError>;
    /// The audit log behind revision `after`, in order.
    async fn audit(&self, after: u64, limit: u32) -> Result<Vec<Entry>, StoreError>;
    /// The end of every replica's chain.
    async fn heads(&self) -> Result<Vec<Head>, StoreError>;
    /// The chain that this store writes.
    fn chain(&self) -> &str;

    /// Takes or prolongs the lease `name` for `holder`; `false` while somebody else holds it.
    async fn lease(
        &self,
        name: &str,
        holder: &str,
        now: Timestamp,
        term: Duration,
    ) -> Result<bool, StoreError>;
    /// Forgets at most `limit` records of each kind; says how many.
    async fn purge(&self, horizon: Horizon, limit: u32) -> Result<u64, StoreError>;
}
