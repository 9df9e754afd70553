//! What outlives a restart, and what replicas know of each other: candidates with their history, relays, demand.

pub mod postgres;
pub mod sqlite;

use std::time::Duration;

use async_trait::async_trait;
use muster_types::{NodeId, Timestamp};

use crate::domain::record::{Kept, State};
use crate::domain::relays::Relay;

/// Candidates of other replicas that are read at once: more than would ever serve.
pub const ELSEWHERE: i64 = 10_000;

/// A candidate that was not seen for so long is forgotten.
pub const FORGOTTEN: Duration = Duration::from_secs(90 * 24 * 3600);

/// The store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error("its schema cannot be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("it holds a damaged row: {0}")]
    Damaged(#[from] serde_json::Error),
}

/// What the others have.
#[derive(Debug, Default)]
pub struct Elsewhere {
    pub candidates: Vec<Kept>,
    pub relays: Vec<Relay>,
    /// Nodes that asked other replicas lately.
    pub demand: usize,
}

#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// All or none. A row of a newer session of the same node stays.
    async fn keep(&self, candidates: &[Kept]) -> Result<(), StoreError>;

    async fn candidate(&self, node: NodeId) -> Result<Option<Kept>, StoreError>;

    /// By their ids, behind `after`; of one state or any.
    async fn candidates_after(
        &self,
        after: Option<NodeId>,
        state: Option<State>,
        limit: i64,
    ) -> Result<Vec<Kept>, StoreError>;

    /// Candidates and demand of replicas but this one, and all relays, as far as they are there at `now`.
    async fn elsewhere(&self, replica: &str, now: Timestamp) -> Result<Elsewhere, StoreError>;

    async fn keep_relay(&self, relay: &Relay) -> Result<(), StoreError>;

    async fn keep_demand(&self, replica: &str, nodes: usize, until: Timestamp) -> Result<(), StoreError>;

    /// Drops who was not there since `before`; says how many candidates that were.
    async fn forget(&self, before: Timestamp) -> Result<u64, StoreError>;
}
