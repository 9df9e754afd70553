//! The SQL, once for both databases: they understand the same text with `$1`, and sqlx wants the types apart.

/// Defines every statement as a function on a connection of `$database`.
macro_rules! statements {
    ($database:ty) => {
        use std::time::Duration;

        use muster_types::Timestamp;

        use crate::domain::audit::{Deed, Entry};
        use crate::domain::founding::StoredKey;
        use crate::domain::leaf::{Leaf, Serial};
        use crate::domain::request::KeyHash;
        use crate::domain::{Link, Principal};
        use crate::store::row::*;
        use crate::store::{
            Certificate, Change, Cursor, Horizon, Request, Revision, StoreError, Stored, Write,
        };

        type Connection = <$database as sqlx::Database>::Connection;

        /// Applies a change inside the caller's transaction, which is to be rolled back on an error.
        pub(super) async fn apply(on: &mut Connection, change: &Change) -> Result<Revision, StoreError> {
            let revision = append(on, change.deed.clone()).await?;
            for write in &change.writes {
                apply_one(on, write, revision).await?;
            }
            Ok(revision)
        }

        /// Appends to the audit log. The head is changed first: that puts concurrent changes in one order.
        async fn append(on: &mut Connection, deed: Deed) -> Result<Revision, StoreError> {
            const ADVANCE: &str =
                "UPDATE head SET sequence = sequence + 1 WHERE id = 1 RETURNING sequence, hash";
            const INSERT: &str = "INSERT INTO audit (sequence, time, action, actor, subject, detail, hash)
                VALUES ($1, $2, $3, $4, $5, $6, $7)";
            let (sequence, previous): (i64, Vec<u8>) = sqlx::query_as(ADVANCE).fetch_one(&mut *on).await?;
            let entry = Entry::chain(&fixed("an audit hash", &previous)?, sequence.unsigned_abs(), deed);
            sqlx::query(INSERT)
                .bind(sequence)
                .bind(entry.time.as_micros())
                .bind(&entry.action)
                .bind(&entry.actor)
                .bind(&entry.subject)
                .bind(&entry.detail)
                .bind(&entry.hash[..])
                .execute(&mut *on)
                .await?;
            sqlx::query("UPDATE head SET hash = $1 WHERE id = 1")
                .bind(&entry.hash[..])
                .execute(&mut *on)
                .await?;
            Ok(Revision(sequence))
        }

        async fn apply_one(on: &mut Connection, write: &Write, revision: Revision) -> Result<(), StoreError> {
            match write {
                Write::AddKey(key) => add_key(on, key).await,
                Write::AddLink(link) => add_link(on, link, revision).await,
                Write::ReplaceLink { link, expected } => replace_link(on, link, *expected, revision).await,
                Write::PutPrincipal { principal, expected: None } => {
                    add_principal(on, principal, revision).await
                }
                Write::PutPrincipal { principal, expected: Some(expected) } => {
                    replace_principal(on, principal, *expected, revision).await
                }
                Write::AddCertificate(leaf) => add_certificate(on, leaf, revision).await,
                Write::RevokeCertificates { principal, time } => {
                    revoke_certificates(on, principal, *time, revision).await
                }
                Write::AddRequest(request) => add_request(on, request).await,
            }
        }

        /// A statement that should have touched a row and found it taken or changed.
        fn one(rows: u64) -> Result<(), StoreError> {
            if rows == 1 { Ok(()) } else { Err(StoreError::Conflict) }
        }

        async fn add_key(on: &mut Connection, key: &StoredKey) -> Result<(), StoreError> {
            const SQL: &str = "INSERT INTO authority_keys (kind, generation, sealed, certificate, create_time)
                VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
            let done = sqlx::query(SQL)
                .bind(key.kind.as_str())
                .bind(i64::from(key.generation))
                .bind(&key.sealed)
                .bind(&key.certificate)
                .bind(key.create_time.as_micros())
                .execute(on)
                .await?;
            one(done.rows_affected())
        }

        async fn add_link(on: &mut Connection, link: &Link, revision: Revision) -> Result<(), StoreError> {
            const SQL: &str = "INSERT INTO links (id, token_hash, role, lifetime, labels, display_name, creator,
                    create_time, expire_time, revision)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING";
            let done = sqlx::query(SQL)
                .bind(&link.id)
                .bind(&link.token_hash[..])
                .bind(link.terms.role.as_str())
                .bind(micros(link.terms.lifetime))
                .bind(labels_column(&link.terms.labels))
                .bind(&link.terms.display_name)
                .bind(&link.creator)
                .bind(link.create_time.as_micros())
                .bind(link.expire_time.as_micros())
                .bind(revision.0)
                .execute(on)
                .await?;
            one(done.rows_affected())
        }

        async fn replace_link(
            on: &mut Connection,
            link: &Link,
            expected: Revision,
            revision: Revision,
        ) -> Result<(), StoreError> {
            const SQL: &str = "UPDATE links SET revoke_time = $3, use_time = $4, use_key = $5, use_principal = $6,
                    use_certificate = $7, revision = $8
                WHERE id = $1 AND revision = $2";
            let (revoke_time, use_time, use_key, use_principal, use_certificate) = fate_columns(&link.fate);
            let done = sqlx::query(SQL)
                .bind(&link.id)
                .bind(expected.0)
                .bind(revoke_time)
                .bind(use_time)
                .bind(use_key)
                .bind(use_principal)
                .bind(use_certificate)
                .bind(revision.0)
                .execute(on)
                .await?;
            one(done.rows_affected())
        }

        async fn add_principal(
            on: &mut Connection,
            principal: &Principal,
            revision: Revision,
        ) -> Result<(), StoreError> {
            const SQL: &str = "INSERT INTO principals (name, identity, key_hash, generation, host_name,
                    software_version, labels, node_keys, enroll_time, renew_time, revoke_time, revoke_reason, revision)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT DO NOTHING";
            one(put_principal(on, SQL, principal, revision, None).await?)
        }

        async fn replace_principal(
            on: &mut Connection,
            principal: &Principal,
            expected: Revision,
            revision: Revision,
        ) -> Result<(), StoreError> {
            const SQL: &str = "UPDATE principals SET identity = $2, key_hash = $3, generation = $4, host_name = $5,
                    software_version = $6, labels = $7, node_keys = $8, enroll_time = $9, renew_time = $10,
                    revoke_time = $11, revoke_reason = $12, revision = $13
                WHERE name = $1 AND revision = $14";
            one(put_principal(on, SQL, principal, revision, Some(expected)).await?)
        }

        async fn put_principal(
            on: &mut Connection,
            sql: &'static str,
            principal: &Principal,
            revision: Revision,
            expected: Option<Revision>,
        ) -> Result<u64, StoreError> {
            let revocation = principal.revocation.as_ref();
            let query = sqlx::query(sql)
                .bind(principal.resource_name())
                .bind(principal.identity.to_string())
                .bind(&principal.key.0[..])
                .bind(i64::from(principal.generation))
                .bind(&principal.host_name)
                .bind(&principal.software_version)
                .bind(labels_column(&principal.labels))
                .bind(principal.node_keys.as_ref().map(node_keys_column))
                .bind(principal.enroll_time.as_micros())
                .bind(principal.renew_time.as_micros())
                .bind(revocation.map(|revocation| revocation.time.as_micros()))
                .bind(revocation.map(|revocation| revocation.reason.as_str()))
                .bind(revision.0);
            let query = match expected {
                Some(expected) => query.bind(expected.0),
                None => query,
            };
            Ok(query.execute(on).await?.rows_affected())
        }

        async fn add_certificate(
            on: &mut Connection,
            leaf: &Leaf,
            revision: Revision,
        ) -> Result<(), StoreError> {
            const SQL: &str = "INSERT INTO certificates (serial, key_hash, principal, not_after, revision)
                VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
            let done = sqlx::query(SQL)
                .bind(&leaf.serial.0)
                .bind(&leaf.key.0[..])
                .bind(leaf.identity.resource_name())
                .bind(leaf.not_after.as_micros())
                .bind(revision.0)
                .execute(on)
                .await?;
            one(done.rows_affected())
        }

        async fn revoke_certificates(
            on: &mut Connection,
            principal: &str,
            time: Timestamp,
            revision: Revision,
        ) -> Result<(), StoreError> {
            const SQL: &str = "UPDATE certificates SET revoke_time = $2, revision = $3
                WHERE principal = $1 AND revoke_time IS NULL";
            sqlx::query(SQL).bind(principal).bind(time.as_micros()).bind(revision.0).execute(on).await?;
            Ok(())
        }

        async fn add_request(on: &mut Connection, request: &Request) -> Result<(), StoreError> {
            const SQL: &str = "INSERT INTO requests (caller, id, link, time) VALUES ($1, $2, $3, $4)
                ON CONFLICT DO NOTHING";
            let done = sqlx::query(SQL)
                .bind(&request.caller)
                .bind(&request.id)
                .bind(&request.link)
                .bind(request.time.as_micros())
                .execute(on)
                .await?;
            one(done.rows_affected())
        }

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
            let row: Option<CertificateRow> =
                sqlx::query_as(SQL).bind(&key.0[..]).fetch_optional(on).await?;
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

        pub(super) async fn audit(
            on: &mut Connection,
            after: u64,
            limit: u32,
        ) -> Result<Vec<Entry>, StoreError> {
            let rows: Vec<EntryRow> =
                sqlx::query_as("SELECT * FROM audit WHERE sequence > $1 ORDER BY sequence LIMIT $2")
                    .bind(i64::try_from(after).unwrap_or(i64::MAX))
                    .bind(i64::from(limit))
                    .fetch_all(on)
                    .await?;
            rows.into_iter().map(Entry::try_from).collect()
        }

        pub(super) async fn lease(
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

        pub(super) async fn purge(
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
            let mut forgotten = 0;
            for (sql, before) in
                [(CERTIFICATES, horizon.certificates), (REQUESTS, horizon.requests), (LINKS, horizon.links)]
            {
                let query = sqlx::query(sql).bind(before.as_micros()).bind(i64::from(limit));
                forgotten += query.execute(&mut *on).await?.rows_affected();
            }
            Ok(forgotten)
        }
    };
}
pub(super) use statements;

use super::StoreError;

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(error.to_string()),
            other => Self::Unavailable(other.to_string()),
        }
    }
}
