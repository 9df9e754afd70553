//! Queries that both databases understand, compiled once for each.

use async_trait::async_trait;
use muster_types::{NodeId, Timestamp};
use serde::de::DeserializeOwned;

use super::ThisStore;
use crate::domain::record::{Kept, State};
use crate::domain::relays::Relay;
use crate::store::{ELSEWHERE, Elsewhere, Store, StoreError};

const KEEP: &str = "INSERT INTO gsn_candidates (node, state, replica, since, alive_until, doc) \
     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (node) DO UPDATE SET state = excluded.state, \
     replica = excluded.replica, since = excluded.since, alive_until = excluded.alive_until, doc = excluded.doc \
     WHERE gsn_candidates.since <= excluded.since";

const AFTER: &str = "SELECT doc FROM gsn_candidates WHERE node > $1 AND ($2 = '' OR state = $2) \
     ORDER BY node LIMIT $3";

const ALIVE: &str = "SELECT doc FROM gsn_candidates WHERE alive_until > $1 AND replica <> $2 \
     ORDER BY node LIMIT $3";

const KEEP_RELAY: &str = "INSERT INTO gsn_relays (name, alive_until, doc) VALUES ($1, $2, $3) \
     ON CONFLICT (name) DO UPDATE SET alive_until = excluded.alive_until, doc = excluded.doc";

const KEEP_DEMAND: &str = "INSERT INTO gsn_replicas (replica, alive_until, demand) VALUES ($1, $2, $3) \
     ON CONFLICT (replica) DO UPDATE SET alive_until = excluded.alive_until, demand = excluded.demand";

/// SQLite sums integers to integers, PostgreSQL to numerics.
const DEMAND: &str = "SELECT CAST(COALESCE(SUM(demand), 0) AS BIGINT) FROM gsn_replicas \
     WHERE alive_until > $1 AND replica <> $2";

fn rows<T: DeserializeOwned>(documents: Vec<String>) -> Result<Vec<T>, StoreError> {
    documents.iter().map(|document| Ok(serde_json::from_str(document)?)).collect()
}

#[async_trait]
impl Store for ThisStore {
    async fn keep(&self, candidates: &[Kept]) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        for kept in candidates {
            sqlx::query(KEEP)
                .bind(kept.node.as_bytes())
                .bind(kept.state.as_str())
                .bind(&kept.replica)
                .bind(kept.since.as_micros())
                .bind(kept.alive_until.as_micros())
                .bind(serde_json::to_string(kept)?)
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn candidate(&self, node: NodeId) -> Result<Option<Kept>, StoreError> {
        let found: Option<String> = sqlx::query_scalar("SELECT doc FROM gsn_candidates WHERE node = $1")
            .bind(node.as_bytes())
            .fetch_optional(&self.pool)
            .await?;
        found.map(|document| Ok(serde_json::from_str(&document)?)).transpose()
    }

    async fn candidates_after(
        &self,
        after: Option<NodeId>,
        state: Option<State>,
        limit: i64,
    ) -> Result<Vec<Kept>, StoreError> {
        let documents = sqlx::query_scalar(AFTER)
            .bind(after.map_or_else(Vec::new, |node| node.as_bytes().to_vec()))
            .bind(state.map_or("", State::as_str))
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows(documents)
    }

    async fn elsewhere(&self, replica: &str, now: Timestamp) -> Result<Elsewhere, StoreError> {
        let candidates = sqlx::query_scalar(ALIVE)
            .bind(now.as_micros())
            .bind(replica)
            .bind(ELSEWHERE)
            .fetch_all(&self.pool)
            .await?;
        let relays = sqlx::query_scalar("SELECT doc FROM gsn_relays WHERE alive_until > $1 ORDER BY name")
            .bind(now.as_micros())
            .fetch_all(&self.pool)
            .await?;
        let demand: i64 =
            sqlx::query_scalar(DEMAND).bind(now.as_micros()).bind(replica).fetch_one(&self.pool).await?;
        let demand = usize::try_from(demand).unwrap_or(0);
        Ok(Elsewhere { candidates: rows(candidates)?, relays: rows(relays)?, demand })
    }

    async fn keep_relay(&self, relay: &Relay) -> Result<(), StoreError> {
        sqlx::query(KEEP_RELAY)
            .bind(&relay.name)
            .bind(relay.until.as_micros())
            .bind(serde_json::to_string(relay)?)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn keep_demand(&self, replica: &str, nodes: usize, until: Timestamp) -> Result<(), StoreError> {
        sqlx::query(KEEP_DEMAND)
            .bind(replica)
            .bind(until.as_micros())
            .bind(i64::try_from(nodes).unwrap_or(i64::MAX))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn forget(&self, before: Timestamp) -> Result<u64, StoreError> {
        for sql in [
            "DELETE FROM gsn_relays WHERE alive_until < $1",
            "DELETE FROM gsn_replicas WHERE alive_until < $1",
        ] {
            sqlx::query(sql).bind(before.as_micros()).execute(&self.pool).await?;
        }
        let dropped = sqlx::query("DELETE FROM gsn_candidates WHERE alive_until < $1")
            .bind(before.as_micros())
            .execute(&self.pool)
            .await?;
        Ok(dropped.rows_affected())
    }
}
