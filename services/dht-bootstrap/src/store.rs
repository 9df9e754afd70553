//! What outlives a restart: the nodes' identities, and contacts to begin with.

pub mod postgres;
pub mod sqlite;

use async_trait::async_trait;
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

    async fn contacts(&self) -> Result<Vec<PeerAddress>, StoreError>;

    /// In place of those kept before; at most [`CONTACTS`].
    async fn keep_contacts(&self, contacts: &[PeerAddress]) -> Result<(), StoreError>;
}

const IDENTITIES: &str = "SELECT slot, noise_secret, signing_key, port FROM dht_nodes ORDER BY slot";
const KEEP_IDENTITY: &str = "INSERT INTO dht_nodes (slot, noise_secret, signing_key, port) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (slot) DO UPDATE SET port = excluded.port";
const ALL_CONTACTS: &str = "SELECT node_id, noise_key, address FROM dht_contacts";
const DROP_CONTACTS: &str = "DELETE FROM dht_contacts";
const KEEP_CONTACT: &str = "INSERT INTO dht_contacts (node_id, noise_key, address) VALUES ($1, $2, $3)";

type IdentityRow = (i64, Vec<u8>, Vec<u8>, i64);
type ContactRow = (Vec<u8>, Vec<u8>, String);

fn identity((slot, noise_secret, signing_key, port): IdentityRow) -> Result<Identity, StoreError> {
    Ok(Identity {
        slot: u16::try_from(slot).map_err(|_| StoreError::Damaged("slot"))?,
        noise_secret: noise_secret.try_into().map_err(|_| StoreError::Damaged("Noise key"))?,
        signing_key,
        port: u16::try_from(port).map_err(|_| StoreError::Damaged("port"))?,
    })
}

/// A damaged contact is none.
fn contact((node, key, at): ContactRow) -> Option<PeerAddress> {
    Some(PeerAddress {
        node: node.as_slice().try_into().ok()?,
        key: key.try_into().ok()?,
        at: at.parse().ok()?,
    })
}
