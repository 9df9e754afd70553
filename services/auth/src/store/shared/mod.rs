//! The store, once for both databases: they understand the same SQL with `$1`, and sqlx wants the types apart. `super`
//! says which database it is, and how a change gets there.

mod change;
mod reading;
mod upkeep;

use std::time::Duration;

use async_trait::async_trait;
use muster_types::Timestamp;

use super::{Db, ThisStore};
use crate::domain::approval::Approval;
use crate::domain::audit::{Entry, Head};
use crate::domain::key::StoredKey;
use crate::domain::leaf::Serial;
use crate::domain::link::Use;
use crate::domain::request::KeyHash;
use crate::domain::revocation::Revoked;
use crate::domain::{Link, Principal};
use crate::store::{Certificate, Change, Cursor, Horizon, Request, Revision, Store, StoreError, Stored};

pub(super) use change::apply;
pub(super) use upkeep::{lease, purge};

type Connection = <Db as sqlx::Database>::Connection;

/// Runs a reading statement on a connection of its own.
macro_rules! read {
    ($store:ident, $statement:path $(, $argument:expr)*) => {{
        let mut on = $store.readers().acquire().await?;
        $statement(&mut on $(, $argument)*).await
    }};
}

#[async_trait]
impl Store for ThisStore {
    async fn commit(&self, change: Change) -> Result<Revision, StoreError> {
        self.change(change).await
    }

    async fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        read!(self, reading::keys)
    }

    async fn link(&self, id: &str) -> Result<Option<Stored<Link>>, StoreError> {
        read!(self, reading::link, id)
    }

    async fn link_by_token(&self, hash: &[u8; 32]) -> Result<Option<Stored<Link>>, StoreError> {
        read!(self, reading::link_by_token, hash)
    }

    async fn links(&self, after: Option<&Cursor>, limit: u32) -> Result<Vec<Stored<Link>>, StoreError> {
        read!(self, reading::links, after, limit)
    }

    async fn principal(&self, name: &str) -> Result<Option<Stored<Principal>>, StoreError> {
        read!(self, reading::principal, name)
    }

    async fn nodes(&self, after: Revision, limit: u32) -> Result<Vec<Stored<Principal>>, StoreError> {
        read!(self, reading::nodes, after, limit)
    }

    async fn certificate(&self, serial: &Serial) -> Result<Option<Certificate>, StoreError> {
        read!(self, reading::certificate, serial)
    }

    async fn certificate_by_key(&self, key: KeyHash) -> Result<Option<Certificate>, StoreError> {
        read!(self, reading::certificate_by_key, key)
    }

    async fn link_use(&self, link: &str, key: KeyHash) -> Result<Option<Use>, StoreError> {
        read!(self, reading::link_use, link, key)
    }

    async fn certificates_of(&self, principal: &str, limit: u32) -> Result<Vec<Certificate>, StoreError> {
        read!(self, reading::certificates_of, principal, limit)
    }

    async fn approval(&self, id: &str) -> Result<Option<Stored<Approval>>, StoreError> {
        read!(self, reading::approval, id)
    }

    async fn approval_of(&self, link: &str, key: KeyHash) -> Result<Option<Stored<Approval>>, StoreError> {
        read!(self, reading::approval_of, link, key)
    }

    async fn approval_by_key(&self, key: KeyHash) -> Result<Option<Stored<Approval>>, StoreError> {
        read!(self, reading::approval_by_key, key)
    }

    async fn approvals(&self, limit: u32) -> Result<Vec<Approval>, StoreError> {
        read!(self, reading::approvals, limit)
    }

    async fn waiting(&self, link: &str) -> Result<u32, StoreError> {
        read!(self, reading::waiting, link)
    }

    async fn revocation_number(&self) -> Result<u64, StoreError> {
        read!(self, reading::revocation_number)
    }

    async fn restored_number(&self) -> Result<Option<u64>, StoreError> {
        read!(self, reading::restored_number)
    }

    async fn newest_revision(&self) -> Result<u64, StoreError> {
        read!(self, reading::newest_revision)
    }

    async fn revocations(&self, after: u64, limit: u32) -> Result<Vec<Revoked>, StoreError> {
        read!(self, reading::revocations, after, limit)
    }

    async fn heads(&self) -> Result<Vec<Head>, StoreError> {
        read!(self, reading::heads)
    }

    fn chain(&self) -> &str {
        self.own_chain()
    }

    async fn request(&self, caller: &str, id: &str) -> Result<Option<Request>, StoreError> {
        read!(self, reading::request, caller, id)
    }

    async fn audit(&self, after: u64, limit: u32) -> Result<Vec<Entry>, StoreError> {
        read!(self, reading::audit, after, limit)
    }

    async fn lease(
        &self,
        name: &str,
        holder: &str,
        now: Timestamp,
        term: Duration,
    ) -> Result<bool, StoreError> {
        self.take_lease(name, holder, now, term).await
    }

    async fn purge(&self, horizon: Horizon, limit: u32) -> Result<u64, StoreError> {
        self.forget(horizon, limit).await
    }
}
