//! The store that replicas share. PostgreSQL is the only truth; no replica keeps anything that another needs.
//!
//! Each change is one transaction that begins by locking the head of the audit log, so that changes have one order.

use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use muster_kit::crash;
use muster_types::Timestamp;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection as _};

use super::{Certificate, Change, Cursor, Horizon, Request, Revision, Store, StoreError, Stored};
use crate::domain::approval::Approval;
use crate::domain::audit::{Entry, Head};
use crate::domain::key::StoredKey;
use crate::domain::leaf::Serial;
use crate::domain::link::Use;
use crate::domain::request::KeyHash;
use crate::domain::revocation::Revoked;
use crate::domain::{Link, Principal};

mod statements {
    super::super::statement::changes!(sqlx::Postgres);
    super::super::statement::readings!(sqlx::Postgres);
}

/// Our tables' schema, so that several services may share a database.
const SCHEMA: &str = "muster_auth";

/// Connections of one replica.
const CONNECTIONS: u32 = 8;

/// How long a caller waits for one of them.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(5);

/// Auth's store in a PostgreSQL database.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: PgPool,
    /// The audit chain of this replica.
    chain: String,
}

impl PostgresStore {
    /// Connects to `url` (`postgres://...`) as the replica that writes the audit chain `chain`, and makes our schema and tables if they are not there.
    ///
    /// # Errors
    /// The database cannot be reached or its tables are none of ours.
    pub async fn open(url: &str, chain: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url).map_err(open_error)?.application_name("muster-auth");
        let mut first = options.connect().await.map_err(open_error)?;
        // Replicas that start together make it one after the other: IF NOT EXISTS alone races.
        sqlx::query("SELECT pg_advisory_lock(hashtext('muster_auth'))")
            .execute(&mut first)
            .await
            .map_err(open_error)?;
        sqlx::query("CREATE SCHEMA IF NOT EXISTS muster_auth")
            .execute(&mut first)
            .await
            .map_err(open_error)?;
        first.close().await.map_err(open_error)?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE_LIMIT)
            .connect_with(options.options([("search_path", SCHEMA)]))
            .await
            .map_err(open_error)?;
        sqlx::migrate!("migrations/postgres").run(&pool).await.map_err(open_error)?;
        Ok(Self { pool, chain: chain.to_owned() })
    }
}

/// An error while opening; it never repeats the URL, which may hold a password.
fn open_error(error: impl std::fmt::Display) -> StoreError {
    StoreError::Open(error.to_string())
}

/// Runs a statement on a connection of its own.
macro_rules! run {
    ($store:ident, $statement:ident $(, $argument:expr)*) => {{
        let mut on = $store.pool.acquire().await?;
        statements::$statement(&mut on $(, $argument)*).await
    }};
}

#[async_trait]
impl Store for PostgresStore {
    async fn commit(&self, change: Change) -> Result<Revision, StoreError> {
        // Dropped without commit, on an error or when the caller goes away, it is rolled back.
        let mut transaction = self.pool.begin().await?;
        let revision = statements::apply(&mut transaction, &change, &self.chain).await?;
        crash::point("auth.store.before-commit");
        transaction.commit().await?;
        crash::point("auth.store.after-commit");
        Ok(revision)
    }

    async fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        run!(self, keys)
    }

    async fn link(&self, id: &str) -> Result<Option<Stored<Link>>, StoreError> {
        run!(self, link, id)
    }

    async fn link_by_token(&self, hash: &[u8; 32]) -> Result<Option<Stored<Link>>, StoreError> {
        run!(self, link_by_token, hash)
    }

    async fn links(&self, after: Option<&Cursor>, limit: u32) -> Result<Vec<Stored<Link>>, StoreError> {
        run!(self, links, after, limit)
    }

    async fn principal(&self, name: &str) -> Result<Option<Stored<Principal>>, StoreError> {
        run!(self, principal, name)
    }

    async fn nodes(&self, after: Revision, limit: u32) -> Result<Vec<Stored<Principal>>, StoreError> {
        run!(self, nodes, after, limit)
    }

    async fn certificate(&self, serial: &Serial) -> Result<Option<Certificate>, StoreError> {
        run!(self, certificate, serial)
    }

    async fn certificate_by_key(&self, key: KeyHash) -> Result<Option<Certificate>, StoreError> {
        run!(self, certificate_by_key, key)
    }

    async fn link_use(&self, link: &str, key: KeyHash) -> Result<Option<Use>, StoreError> {
        run!(self, link_use, link, key)
    }

    async fn certificates_of(&self, principal: &str, limit: u32) -> Result<Vec<Certificate>, StoreError> {
        run!(self, certificates_of, principal, limit)
    }

    async fn approval(&self, id: &str) -> Result<Option<Stored<Approval>>, StoreError> {
        run!(self, approval, id)
    }

    async fn approval_of(&self, link: &str, key: KeyHash) -> Result<Option<Stored<Approval>>, StoreError> {
        run!(self, approval_of, link, key)
    }

    async fn approval_by_key(&self, key: KeyHash) -> Result<Option<Stored<Approval>>, StoreError> {
        run!(self, approval_by_key, key)
    }

    async fn approvals(&self, limit: u32) -> Result<Vec<Approval>, StoreError> {
        run!(self, approvals, limit)
    }

    async fn waiting(&self, link: &str) -> Result<u32, StoreError> {
        run!(self, waiting, link)
    }

    async fn revocation_number(&self) -> Result<u64, StoreError> {
        run!(self, revocation_number)
    }

    async fn newest_revision(&self) -> Result<u64, StoreError> {
        run!(self, newest_revision)
    }

    async fn revocations(&self, after: u64, limit: u32) -> Result<Vec<Revoked>, StoreError> {
        run!(self, revocations, after, limit)
    }

    async fn heads(&self) -> Result<Vec<Head>, StoreError> {
        run!(self, heads)
    }

    fn chain(&self) -> &str {
        &self.chain
    }

    async fn request(&self, caller: &str, id: &str) -> Result<Option<Request>, StoreError> {
        run!(self, request, caller, id)
    }

    async fn audit(&self, after: u64, limit: u32) -> Result<Vec<Entry>, StoreError> {
        run!(self, audit, after, limit)
    }

    async fn lease(
        &self,
        name: &str,
        holder: &str,
        now: Timestamp,
        term: Duration,
    ) -> Result<bool, StoreError> {
        run!(self, lease, name, holder, now, term)
    }

    async fn purge(&self, horizon: Horizon, limit: u32) -> Result<u64, StoreError> {
        run!(self, purge, horizon, limit)
    }
}
