//! The shared store of several replicas: PostgreSQL, in a schema of its own beside other services'.

use async_trait::async_trait;
use muster_wire::datagram::PeerAddress;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Pool, Postgres};

use super::{CONTACTS, ContactRow, IdentityRow, Store, StoreError};
use crate::domain::identity::Identity;

/// Connections of one replica: it reads at its start and writes now and then.
const CONNECTIONS: u32 = 2;

const SCHEMA: &str = "muster_dht";

#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: Pool<Postgres>,
}

impl PostgresStore {
    /// Connects and brings the schema up to date.
    ///
    /// # Errors
    /// The database cannot be reached, or its schema is from a later version.
    pub async fn connect(options: PgConnectOptions) -> Result<Self, StoreError> {
        let mut first = options.connect().await?;
        // Replicas that start together make it one after the other: IF NOT EXISTS alone races.
        sqlx::query("SELECT pg_advisory_lock(hashtext('muster_dht'))").execute(&mut first).await?;
        sqlx::query("CREATE SCHEMA IF NOT EXISTS muster_dht").execute(&mut first).await?;
        first.close().await?;
        let options = options.options([("search_path", SCHEMA)]);
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect_with(options).await?;
        sqlx::migrate!("src/store/migrations/postgres").run(&pool).await?;
        Ok(Self { pool })
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn identities(&self) -> Result<Vec<Identity>, StoreError> {
        let rows: Vec<IdentityRow> = sqlx::query_as(super::IDENTITIES).fetch_all(&self.pool).await?;
        rows.into_iter().map(super::identity).collect()
    }

    async fn keep_identity(&self, identity: &Identity) -> Result<(), StoreError> {
        sqlx::query(super::KEEP_IDENTITY)
            .bind(i64::from(identity.slot))
            .bind(&identity.noise_secret[..])
            .bind(&identity.signing_key)
            .bind(i64::from(identity.port))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn contacts(&self) -> Result<Vec<PeerAddress>, StoreError> {
        let rows: Vec<ContactRow> = sqlx::query_as(super::ALL_CONTACTS).fetch_all(&self.pool).await?;
        Ok(rows.into_iter().filter_map(super::contact).collect())
    }

    async fn keep_contacts(&self, contacts: &[PeerAddress]) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query(super::DROP_CONTACTS).execute(&mut *transaction).await?;
        for contact in contacts.iter().take(CONTACTS) {
            sqlx::query(super::KEEP_CONTACT)
                .bind(contact.node.as_bytes())
                .bind(&contact.key[..])
                .bind(contact.at.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }
}
