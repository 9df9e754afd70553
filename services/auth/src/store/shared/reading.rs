//! The SQL that only reads.

use super::Connection;
use crate::domain::approval::Approval;
use crate::domain::audit::{Entry, Head};
use crate::domain::key::StoredKey;
use crate::domain::leaf::Serial;
use crate::domain::link::Use;
use crate::domain::request::KeyHash;
use crate::domain::revocation::Revoked;
use crate::domain::{Link, Principal};
use crate::store::row::*;
use crate::store::{Certificate, Cursor, Request, Revision, StoreError, Stored};

pub(super) async fn keys(on: &mut Connection) -> Result<Vec<StoredKey>, StoreError> {
    let rows: Vec<KeyRow> =
        sqlx::query_as("SELECT * FROM authority_keys ORDER BY kind, generation").fetch_all(on).await?;
    rows.into_iter().map(StoredKey::try_from).collect()
}

pub(super) async fn link(on: &mut Connection, id: &str) -> Result<Option<Stored<Link>>, StoreError> {
    let row: Option<LinkRow> =
        sqlx::query_as("SELECT * FROM links WHERE id = $1").bind(id).fetch_optional(on).await?;
    row.map(Stored::try_from).transpose()
}

pub(super) async fn link_by_token(
    on: &mut Connection,
    hash: &[u8; 32],
) -> Result<Option<Stored<Link>>, StoreError> {
    let row: Option<LinkRow> = sqlx::query_as("SELECT * FROM links WHERE token_hash = $1")
        .bind(&hash[..])
        .fetch_optional(on)
        .await?;
    row.map(Stored::try_from).transpose()
}

pub(super) async fn links(
    on: &mut Connection,
    after: Option<&Cursor>,
    limit: u32,
) -> Result<Vec<Stored<Link>>, StoreError> {
    const SQL: &str = "SELECT * FROM links WHERE (create_time, id) < ($1, $2)
        ORDER BY create_time DESC, id DESC LIMIT $3";
    let (time, id) =
        after.map_or((i64::MAX, ""), |cursor| (cursor.create_time.as_micros(), cursor.id.as_str()));
    let rows: Vec<LinkRow> =
        sqlx::query_as(SQL).bind(time).bind(id).bind(i64::from(limit)).fetch_all(on).await?;
    rows.into_iter().map(Stored::try_from).collect()
}

pub(super) async fn link_use(
    on: &mut Connection,
    link: &str,
    key: KeyHash,
) -> Result<Option<Use>, StoreError> {
    const SQL: &str = "SELECT key_hash, time, principal, certificate FROM link_uses
        WHERE link = $1 AND key_hash = $2";
    let row: Option<UseRow> = sqlx::query_as(SQL).bind(link).bind(&key.0[..]).fetch_optional(on).await?;
    row.map(Use::try_from).transpose()
}

pub(super) async fn certificates_of(
    on: &mut Connection,
    principal: &str,
    limit: u32,
) -> Result<Vec<Certificate>, StoreError> {
    const SQL: &str = "SELECT * FROM certificates WHERE principal = $1 ORDER BY not_after DESC LIMIT $2";
    let rows: Vec<CertificateRow> =
        sqlx::query_as(SQL).bind(principal).bind(i64::from(limit)).fetch_all(on).await?;
    rows.into_iter().map(Certificate::try_from).collect()
}

pub(super) async fn approval(on: &mut Connection, id: &str) -> Result<Option<Stored<Approval>>, StoreError> {
    let row: Option<ApprovalRow> =
        sqlx::query_as("SELECT * FROM enrollment_requests WHERE id = $1").bind(id).fetch_optional(on).await?;
    row.map(Stored::try_from).transpose()
}

pub(super) async fn approval_of(
    on: &mut Connection,
    link: &str,
    key: KeyHash,
) -> Result<Option<Stored<Approval>>, StoreError> {
    const SQL: &str = "SELECT * FROM enrollment_requests WHERE link = $1 AND key_hash = $2";
    let row: Option<ApprovalRow> = sqlx::query_as(SQL).bind(link).bind(&key.0[..]).fetch_optional(on).await?;
    row.map(Stored::try_from).transpose()
}

pub(super) async fn approval_by_key(
    on: &mut Connection,
    key: KeyHash,
) -> Result<Option<Stored<Approval>>, StoreError> {
    const SQL: &str = "SELECT * FROM enrollment_requests WHERE key_hash = $1
        ORDER BY create_time DESC LIMIT 1";
    let row: Option<ApprovalRow> = sqlx::query_as(SQL).bind(&key.0[..]).fetch_optional(on).await?;
    row.map(Stored::try_from).transpose()
}

pub(super) async fn approvals(on: &mut Connection, limit: u32) -> Result<Vec<Approval>, StoreError> {
    const SQL: &str = "SELECT * FROM enrollment_requests
        ORDER BY CASE WHEN state = $1 THEN 0 ELSE 1 END, create_time DESC, id LIMIT $2";
    let rows: Vec<ApprovalRow> =
        sqlx::query_as(SQL).bind(PENDING).bind(i64::from(limit)).fetch_all(on).await?;
    rows.into_iter().map(|row| Ok(Stored::try_from(row)?.record)).collect()
}

pub(super) async fn waiting(on: &mut Connection, link: &str) -> Result<u32, StoreError> {
    const SQL: &str = "SELECT COUNT(*) FROM enrollment_requests WHERE link = $1 AND state = $2";
    let count: i64 = sqlx::query_scalar(SQL).bind(link).bind(PENDING).fetch_one(on).await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

pub(super) async fn revocation_number(on: &mut Connection) -> Result<u64, StoreError> {
    counter(on, "revocation").await
}

pub(super) async fn restored_number(on: &mut Connection) -> Result<Option<u64>, StoreError> {
    const SQL: &str = "SELECT value FROM counters WHERE name = 'restored'";
    let value: Option<i64> = sqlx::query_scalar(SQL).fetch_optional(on).await?;
    Ok(value.map(i64::unsigned_abs))
}

pub(super) async fn newest_revision(on: &mut Connection) -> Result<u64, StoreError> {
    counter(on, "revision").await
}

async fn counter(on: &mut Connection, name: &str) -> Result<u64, StoreError> {
    const SQL: &str = "SELECT value FROM counters WHERE name = $1";
    let value: i64 = sqlx::query_scalar(SQL).bind(name).fetch_one(on).await?;
    Ok(value.unsigned_abs())
}

pub(super) async fn revocations(
    on: &mut Connection,
    after: u64,
    limit: u32,
) -> Result<Vec<Revoked>, StoreError> {
    const SQL: &str = "SELECT * FROM revocations WHERE number > $1 ORDER BY number LIMIT $2";
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let rows: Vec<RevokedRow> = sqlx::query_as(SQL).bind(after).bind(i64::from(limit)).fetch_all(on).await?;
    rows.into_iter().map(Revoked::try_from).collect()
}

pub(super) async fn heads(on: &mut Connection) -> Result<Vec<Head>, StoreError> {
    let rows: Vec<HeadRow> = sqlx::query_as("SELECT * FROM heads ORDER BY chain").fetch_all(on).await?;
    rows.into_iter().map(Head::try_from).collect()
}

pub(super) async fn principal(
    on: &mut Connection,
    name: &str,
) -> Result<Option<Stored<Principal>>, StoreError> {
    let row: Option<PrincipalRow> =
        sqlx::query_as("SELECT * FROM principals WHERE name = $1").bind(name).fetch_optional(on).await?;
    row.map(Stored::try_from).transpose()
}

pub(super) async fn nodes(
    on: &mut Connection,
    after: Revision,
    limit: u32,
) -> Result<Vec<Stored<Principal>>, StoreError> {
    const SQL: &str = "SELECT * FROM principals WHERE revision > $1 AND node_keys IS NOT NULL
        ORDER BY revision LIMIT $2";
    let rows: Vec<PrincipalRow> =
        sqlx::query_as(SQL).bind(after.0).bind(i64::from(limit)).fetch_all(on).await?;
    rows.into_iter().map(Stored::try_from).collect()
}

pub(super) async fn certificate(
    on: &mut Connection,
    serial: &Serial,
) -> Result<Option<Certificate>, StoreError> {
    let row: Option<CertificateRow> = sqlx::query_as("SELECT * FROM certificates WHERE serial = $1")
        .bind(&serial.0)
        .fetch_optional(on)
        .await?;
    row.map(Certificate::try_from).transpose()
}

pub(super) async fn certificate_by_key(
    on: &mut Connection,
    key: KeyHash,
) -> Result<Option<Certificate>, StoreError> {
    const SQL: &str = "SELECT * FROM certificates WHERE key_hash = $1
        ORDER BY CASE WHEN revoke_time IS NULL THEN 1 ELSE 0 END, not_after DESC LIMIT 1";
    let row: Option<CertificateRow> = sqlx::query_as(SQL).bind(&key.0[..]).fetch_optional(on).await?;
    row.map(Certificate::try_from).transpose()
}

pub(super) async fn request(
    on: &mut Connection,
    caller: &str,
    id: &str,
) -> Result<Option<Request>, StoreError> {
    let row: Option<RequestRow> = sqlx::query_as("SELECT * FROM requests WHERE caller = $1 AND id = $2")
        .bind(caller)
        .bind(id)
        .fetch_optional(on)
        .await?;
    Ok(row.map(Request::from))
}

pub(super) async fn audit(on: &mut Connection, after: u64, limit: u32) -> Result<Vec<Entry>, StoreError> {
    let rows: Vec<EntryRow> =
        sqlx::query_as("SELECT * FROM audit WHERE revision > $1 ORDER BY revision LIMIT $2")
            .bind(i64::try_from(after).unwrap_or(i64::MAX))
            .bind(i64::from(limit))
            .fetch_all(on)
            .await?;
    rows.into_iter().map(Entry::try_from).collect()
}
