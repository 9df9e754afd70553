//! Reads of nodes, cells and control streams; leases of replicas.

use muster_types::{NodeId, SubnetKey, Timestamp};
use sqlx::AssertSqlSafe;

use super::super::{BYTES_OF_JSON, NUMBERS_OF_JSON, TEXTS_OF_JSON, ThisStore};
use super::decode::{document, hex_list, node_id, number_list, stored};
use crate::domain::attachment::Attachment;
use crate::domain::cell::{Cell, CellId};
use crate::domain::node::Node;
use crate::domain::table::Stored;
use crate::store::{OrphanedStream, READ_ROWS, StoreError};

type Found<T> = Result<Vec<Stored<T>>, StoreError>;

impl ThisStore {
    async fn documents<T: serde::de::DeserializeOwned>(&self, sql: String, parameter: String) -> Found<T> {
        stored(
            sqlx::query_as(AssertSqlSafe(sql)).bind(parameter).fetch_all(&mut *self.reader().await?).await?,
        )
    }

    pub(super) async fn read_nodes_by_id(&self, ids: &[NodeId]) -> Found<Node> {
        let sql = format!("SELECT doc, revision FROM nodes WHERE id IN ({BYTES_OF_JSON})");
        self.documents(sql, hex_list(ids.iter().map(NodeId::as_bytes))).await
    }

    pub(super) async fn read_nodes_by_carrier(&self, carriers: &[NodeId]) -> Found<Node> {
        let sql = format!("SELECT doc, revision FROM nodes WHERE carrier IN ({BYTES_OF_JSON})");
        self.documents(sql, hex_list(carriers.iter().map(NodeId::as_bytes))).await
    }

    pub(super) async fn read_ids_by_host_name(
        &self,
        names: &[&str],
    ) -> Result<Vec<(String, NodeId)>, StoreError> {
        let sql = format!(
            "SELECT host_name, id FROM (SELECT host_name, id, ROW_NUMBER() OVER (PARTITION BY host_name ORDER BY id) \
             AS place FROM nodes WHERE host_name IN ({TEXTS_OF_JSON})) named WHERE place <= 2"
        );
        let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(AssertSqlSafe(sql))
            .bind(document(&names)?)
            .fetch_all(&mut *self.reader().await?)
            .await?;
        rows.into_iter().map(|(name, id)| Ok((name, node_id(&id)?))).collect()
    }

    pub(super) async fn read_nodes_after(&self, after: Option<NodeId>) -> Found<Node> {
        let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        let rows = sqlx::query_as("SELECT doc, revision FROM nodes WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after)
            .bind(READ_ROWS)
            .fetch_all(&mut *self.reader().await?)
            .await?;
        stored(rows)
    }

    pub(super) async fn read_cells(&self) -> Found<Cell> {
        stored(
            sqlx::query_as("SELECT doc, revision FROM cells ORDER BY id")
                .fetch_all(&mut *self.reader().await?)
                .await?,
        )
    }

    pub(super) async fn read_cells_by_id(&self, ids: &[CellId]) -> Found<Cell> {
        let sql = format!("SELECT doc, revision FROM cells WHERE id IN ({NUMBERS_OF_JSON})");
        self.documents(sql, number_list(ids.iter().map(|id| id.0.cast_signed()))).await
    }

    pub(super) async fn read_cells_by_lineage(&self, lineages: &[u64]) -> Found<Cell> {
        let sql = format!("SELECT doc, revision FROM cells WHERE lineage IN ({NUMBERS_OF_JSON})");
        self.documents(sql, number_list(lineages.iter().map(|it| it.cast_signed()))).await
    }

    pub(super) async fn read_cells_by_key(&self, keys: &[SubnetKey]) -> Found<Cell> {
        let sql = format!(
            "SELECT doc, revision FROM cells WHERE id IN \
             (SELECT cell FROM cell_keys WHERE subnet_key IN ({BYTES_OF_JSON})) LIMIT {READ_ROWS}"
        );
        self.documents(sql, hex_list(keys.iter().map(SubnetKey::as_bytes))).await
    }

    pub(super) async fn read_count_nodes(&self) -> Result<usize, StoreError> {
        let count: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM nodes").fetch_one(&mut *self.reader().await?).await?;
        Ok(usize::try_from(count).unwrap_or_default())
    }

    pub(super) async fn read_count_nodes_of(&self, cell: CellId) -> Result<usize, StoreError> {
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM nodes WHERE cell = $1 AND online = 1")
            .bind(cell.0.cast_signed())
            .fetch_one(&mut *self.reader().await?)
            .await?;
        Ok(usize::try_from(count).unwrap_or_default())
    }

    pub(super) async fn read_attachments(&self, nodes: &[NodeId]) -> Found<Attachment> {
        let sql = format!("SELECT doc, revision FROM attachments WHERE node IN ({BYTES_OF_JSON})");
        self.documents(sql, hex_list(nodes.iter().map(NodeId::as_bytes))).await
    }

    pub(super) async fn read_unsettled(&self) -> Result<Vec<NodeId>, StoreError> {
        let rows: Vec<Vec<u8>> =
            sqlx::query_scalar("SELECT node FROM attachments WHERE live = 0 AND settled = 0 LIMIT $1")
                .bind(READ_ROWS)
                .fetch_all(&mut *self.reader().await?)
                .await?;
        rows.iter().map(|bytes| node_id(bytes)).collect()
    }

    pub(super) async fn read_orphaned(&self, now: Timestamp) -> Result<Vec<OrphanedStream>, StoreError> {
        let rows: Vec<(Vec<u8>, String, i64)> = sqlx::query_as(
            "SELECT a.node, a.replica, COALESCE(r.renewed_at, 0) FROM attachments a \
             LEFT JOIN replicas r ON r.name = a.replica \
             WHERE a.live = 1 AND COALESCE(r.lease_until, 0) < $1 LIMIT $2",
        )
        .bind(now.as_micros())
        .bind(READ_ROWS)
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.into_iter()
            .map(|(node, replica, renewed)| {
                let renewed = Timestamp::from_micros(renewed);
                Ok(OrphanedStream { node: node_id(&node)?, replica, renewed })
            })
            .collect()
    }

    pub(super) async fn write_lease(
        &self,
        replica: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO replicas (name, renewed_at, lease_until) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE SET renewed_at = $2, lease_until = $3",
        )
        .bind(replica)
        .bind(now.as_micros())
        .bind(until.as_micros())
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    /// The replica serves nobody from now on; it stays known for the moment it was last renewed.
    pub(super) async fn write_lease_end(&self, replica: &str) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query("UPDATE replicas SET lease_until = 0 WHERE name = $1")
            .bind(replica)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }
}
