//! The embedded store: one SQLite file, WAL with `synchronous=FULL`, one connection.

use std::path::Path;
use std::str::FromStr;

use async_trait::async_trait;
use muster_wire::datagram::PeerAddress;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Pool, Sqlite};

use super::{CONTACTS, ContactRow, IdentityRow, Store, StoreError};
use crate::domain::identity::Identity;

#[derive(Debug, Clone)]
pub struct SqliteStore {
    pool: Pool<Sqlite>,
}

impl SqliteStore {
    /// Opens the file, which is made if it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// The file cannot be opened, or its schema is from a later version.
    pub async fn open(file: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::from_str("sqlite:")?
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        sqlx::migrate!("src/store/migrations/sqlite").run(&pool).await?;
        Ok(Self { pool })
    }
}

#[async_trait]
impl Store for SqliteStore {
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
