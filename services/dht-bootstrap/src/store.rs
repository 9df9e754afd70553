//! What outlives a restart: the nodes' identities, and contacts to begin with.

pub mod postgres;
pub mod sqlite;

use async_trait::async_trait;
use muster_types::Timestamp;
use muster_wire::datagram::PeerAddress;

use crate::domain::identity::Identity;

/// Contacts that are kept.
pub const CONTACTS: usize = 256;

/// The store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error("its schema cannot be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("it holds a damaged {0}")]
    Damaged(&'static str),
}

#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// In the order of their slots.
    async fn identities(&self) -> Result<Vec<Identity>, StoreError>;

    /// Keeps a new identity, or the port of a known one. What stood there first stays: two replicas that begin at once
    /// agree by reading again.
    async fn keep_identity(&self, identity: &Identity) -> Result<(), StoreError>;

    /// Takes or prolongs the lease on an identity; `false` while somebody else holds it.
    async fn hold(
        &self,
        slot: u16,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Ends every lease of this holder.
    async fn let_go(&self, holder: &str) -> Result<(), StoreError>;

    async fn contacts(&self) -> Result<Vec<PeerAddress>, StoreError>;

    /// In place of those kept before; at most [`CONTACTS`].
    async fn keep_contacts(&self, contacts: &[PeerAddress]) -> Result<(), StoreError>;
}
