//! The SQL of what happens beside the changes: leases, and what is forgotten.

use std::time::Duration;

use muster_types::Timestamp;

use super::Connection;
use crate::store::{Horizon, StoreError};

pub(in super::super) async fn lease(
    on: &mut Connection,
    name: &str,
    holder: &str,
    now: Timestamp,
    term: Duration,
) -> Result<bool, StoreError> {
    const SQL: &str = "INSERT INTO leases (name, holder, expire_time) VALUES ($1, $2, $3)
        ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expire_time = excluded.expire_time
        WHERE leases.holder = excluded.holder OR leases.expire_time <= $4";
    let done = sqlx::query(SQL)
        .bind(name)
        .bind(holder)
        .bind((now + term).as_micros())
        .bind(now.as_micros())
        .execute(on)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(in super::super) async fn purge(
    on: &mut Connection,
    horizon: Horizon,
    limit: u32,
) -> Result<u64, StoreError> {
    const CERTIFICATES: &str = "DELETE FROM certificates WHERE serial IN
        (SELECT serial FROM certificates WHERE not_after < $1 ORDER BY not_after LIMIT $2)";
    const REQUESTS: &str = "DELETE FROM requests WHERE (caller, id) IN
        (SELECT caller, id FROM requests WHERE time < $1 ORDER BY time LIMIT $2)";
    const LINKS: &str = "DELETE FROM links WHERE id IN
        (SELECT id FROM links WHERE expire_time < $1 ORDER BY expire_time LIMIT $2)";
    const USES: &str = "DELETE FROM link_uses WHERE (link, key_hash) IN
        (SELECT link, key_hash FROM link_uses WHERE time < $1 ORDER BY time LIMIT $2)";
    const APPROVALS: &str = "DELETE FROM enrollment_requests WHERE id IN
        (SELECT id FROM enrollment_requests WHERE create_time < $1 ORDER BY create_time LIMIT $2)";
    const REVOCATIONS: &str = "DELETE FROM revocations WHERE serial IN
        (SELECT serial FROM revocations WHERE expire_time < $1 ORDER BY expire_time LIMIT $2)";
    let mut forgotten = 0;
    for (sql, before) in [
        (CERTIFICATES, horizon.certificates),
        (REQUESTS, horizon.requests),
        (LINKS, horizon.links),
        (USES, horizon.links),
        (APPROVALS, horizon.links),
        (REVOCATIONS, horizon.revocations),
    ] {
        let query = sqlx::query(sql).bind(before.as_micros()).bind(i64::from(limit));
        forgotten += query.execute(&mut *on).await?.rows_affected();
    }
    Ok(forgotten)
}
