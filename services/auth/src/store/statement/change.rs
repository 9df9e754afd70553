//! The SQL that changes something.

/// Defines every changing statement as a function on a connection of `$database`.
macro_rules! changes {
    ($database:ty) => {
        use std::time::Duration;

        use muster_types::Timestamp;

        use crate::domain::approval::Approval;
        use crate::domain::audit::{Deed, Entry, Head};
        use crate::domain::device::DeviceLeaf;
        use crate::domain::key::StoredKey;
        use crate::domain::leaf::{Leaf, Serial};
        use crate::domain::link::Use;
        use crate::domain::request::KeyHash;
        use crate::domain::revocation::{Reason, Revoked};
        use crate::domain::{Link, Principal};
        use crate::store::row::*;
        use crate::store::{
            Certificate, Change, Cursor, Horizon, Request, Revision, StoreError, Stored, Write,
        };

        type Connection = <$database as sqlx::Database>::Connection;

        /// Applies a change inside the caller's transaction, which is to be rolled back on an error.
        pub(super) async fn apply(
            on: &mut Connection,
            change: &Change,
            chain: &str,
        ) -> Result<Revision, StoreError> {
            let revision = append(on, change.deed.clone(), chain).await?;
            for write in &change.writes {
                apply_one(on, write, revision).await?;
            }
            Ok(revision)
        }

        /// Advances a counter; who does holds it until the end of the transaction.
        async fn advance(on: &mut Connection, counter: &str) -> Result<i64, StoreError> {
            const SQL: &str = "UPDATE counters SET value = value + 1 WHERE name = $1 RETURNING value";
            Ok(sqlx::query_scalar(SQL).bind(counter).fetch_one(on).await?)
        }

        /// Appends to the audit log. The revision is advanced first: that puts concurrent changes in one order.
        async fn append(on: &mut Connection, deed: Deed, chain: &str) -> Result<Revision, StoreError> {
            const INSERT: &str = "INSERT INTO audit
                    (revision, chain, sequence, time, action, actor, subject, detail, hash)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
            const MOVE: &str = "INSERT INTO heads (chain, sequence, hash) VALUES ($1, $2, $3)
                ON CONFLICT (chain) DO UPDATE SET sequence = excluded.sequence, hash = excluded.hash";
            let revision = advance(on, "revision").await?;
            let row: Option<HeadRow> = sqlx::query_as("SELECT * FROM heads WHERE chain = $1")
                .bind(chain)
                .fetch_optional(&mut *on)
                .await?;
            let head = row.map(Head::try_from).transpose()?.unwrap_or_else(|| Head::genesis(chain));
            let entry = Entry::behind(&head, revision.unsigned_abs(), deed);
            let sequence = i64::try_from(entry.sequence).unwrap_or(i64::MAX);
            sqlx::query(INSERT)
                .bind(revision)
                .bind(&entry.chain)
                .bind(sequence)
                .bind(entry.time.as_micros())
                .bind(&entry.action)
                .bind(&entry.actor)
                .bind(&entry.subject)
                .bind(&entry.detail)
                .bind(&entry.hash[..])
                .execute(&mut *on)
                .await?;
            sqlx::query(MOVE).bind(chain).bind(sequence).bind(&entry.hash[..]).execute(&mut *on).await?;
            Ok(Revision(revision))
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
                Write::UseLink { link, usage } => use_link(on, link, usage, revision).await,
                Write::AddDeviceCertificate(leaf) => add_device_certificate(on, leaf, revision).await,
                Write::Revoke { certificate, time, reason } => {
                    revoke(on, certificate, *time, *reason, revision).await
                }
                Write::AddRequest(request) => add_request(on, request).await,
                Write::PutApproval { approval, expected: None } => add_approval(on, approval, revision).await,
                Write::PutApproval { approval, expected: Some(expected) } => {
                    replace_approval(on, approval, *expected, revision).await
                }
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
                    create_time, expire_time, use_limit, bound_host, bound_serial, bound_key, needs_approval,
                    protocol, revision)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
                ON CONFLICT DO NOTHING";
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
                .bind(i64::from(link.terms.use_limit))
                .bind(&link.terms.binding.host_name)
                .bind(&link.terms.binding.hardware_serial)
                .bind(link.terms.binding.key.map(|key| key.0.to_vec()))
                .bind(i64::from(link.terms.needs_approval))
                .bind(link.terms.protocol.as_str())
                .bind(revision.0)
                .execute(on)
                .await?;
            one(done.rows_affected())
        }

        /// What may change of a link otherwise than by its use.
        async fn replace_link(
            on: &mut Connection,
            link: &Link,
            expected: Revision,
            revision: Revision,
        ) -> Result<(), StoreError> {
            const SQL: &str = "UPDATE links SET revoke_time = $3, contest_count = $4, contest_time = $5,
                    contest_source = $6, revision = $7
                WHERE id = $1 AND revision = $2";
            let contest = link.contest.as_ref();
            let done = sqlx::query(SQL)
                .bind(&link.id)
                .bind(expected.0)
                .bind(link.revoke_time.map(|time| time.as_micros()))
                .bind(i64::from(contest.map_or(0, |contest| contest.count)))
                .bind(contest.map(|contest| contest.time.as_micros()))
                .bind(contest.map_or("", |contest| contest.source.as_str()))
                .bind(revision.0)
                .execute(on)
                .await?;
            one(done.rows_affected())
        }

        async fn use_link(
            on: &mut Connection,
            link: &str,
            usage: &Use,
            revision: Revision,
        ) -> Result<(), StoreError> {
            const COUNT: &str = "UPDATE links SET use_count = use_count + 1, use_time = $2, use_principal = $3,
                    revision = $4
                WHERE id = $1 AND revoke_time IS NULL AND use_count < use_limit";
            const INSERT: &str = "INSERT INTO link_uses (link, key_hash, time, principal, certificate)
                VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
            let done = sqlx::query(COUNT)
                .bind(link)
                .bind(usage.time.as_micros())
                .bind(&usage.enrolled)
                .bind(revision.0)
                .execute(&mut *on)
                .await?;
            one(done.rows_affected())?;
            let done = sqlx::query(INSERT)
                .bind(link)
                .bind(&usage.key.0[..])
                .bind(usage.time.as_micros())
                .bind(&usage.enrolled)
                .bind(&usage.certificate)
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
                    software_version, labels, node_keys, enroll_time, renew_time, revoke_time, revoke_reason,
                    revision, revoke_code)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT DO NOTHING";
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
                    revoke_time = $11, revoke_reason = $12, revision = $13, revoke_code = $14
                WHERE name = $1 AND revision = $15";
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
                .bind(revocation.map(|revocation| revocation.comment.as_str()))
                .bind(revision.0)
                .bind(revocation.map_or(0, |revocation| revocation.reason.code()));
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
            let certificate = Certificate {
                serial: leaf.serial.clone(),
                key: leaf.key,
                principal: leaf.identity.resource_name(),
                issuer: leaf.issuer.clone(),
                not_after: leaf.not_after,
                revoke_time: None,
                der: None,
            };
            insert_certificate(on, &certificate, revision).await
        }

        async fn add_device_certificate(
            on: &mut Connection,
            leaf: &DeviceLeaf,
            revision: Revision,
        ) -> Result<(), StoreError> {
            let certificate = Certificate {
                serial: leaf.serial.clone(),
                key: leaf.key,
                principal: leaf.principal.clone(),
                issuer: leaf.issuer.clone(),
                not_after: leaf.not_after,
                revoke_time: None,
                der: Some(leaf.der.clone()),
            };
            insert_certificate(on, &certificate, revision).await
        }

        async fn insert_certificate(
            on: &mut Connection,
            certificate: &Certificate,
            revision: Revision,
        ) -> Result<(), StoreError> {
            const SQL: &str = "INSERT INTO certificates
                    (serial, key_hash, principal, issuer, not_after, der, revision)
                VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
            let done = sqlx::query(SQL)
                .bind(&certificate.serial.0)
                .bind(&certificate.key.0[..])
                .bind(&certificate.principal)
                .bind(&certificate.issuer)
                .bind(certificate.not_after.as_micros())
                .bind(certificate.der.as_deref())
                .bind(revision.0)
                .execute(on)
                .await?;
            one(done.rows_affected())
        }

        async fn revoke(
            on: &mut Connection,
            certificate: &Certificate,
            time: Timestamp,
            reason: Reason,
            revision: Revision,
        ) -> Result<(), StoreError> {
            const MARK: &str = "UPDATE certificates SET revoke_time = $2, revision = $3 WHERE serial = $1";
            const LIST: &str = "INSERT INTO revocations
                    (serial, number, key_hash, principal, issuer, revoke_time, expire_time, reason)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                ON CONFLICT (serial) DO UPDATE SET number = excluded.number, reason = excluded.reason";
            let number = advance(on, "revocation").await?;
            let revoke_time = (reason != Reason::Removed).then(|| time.as_micros());
            let done = sqlx::query(MARK)
                .bind(&certificate.serial.0)
                .bind(revoke_time)
                .bind(revision.0)
                .execute(&mut *on)
                .await?;
            one(done.rows_affected())?;
            let done = sqlx::query(LIST)
                .bind(&certificate.serial.0)
                .bind(number)
                .bind(&certificate.key.0[..])
                .bind(&certificate.principal)
                .bind(&certificate.issuer)
                .bind(time.as_micros())
                .bind(certificate.not_after.as_micros())
                .bind(reason.code())
                .execute(on)
                .await?;
            one(done.rows_affected())
        }

        async fn add_approval(
            on: &mut Connection,
            approval: &Approval,
            revision: Revision,
        ) -> Result<(), StoreError> {
            const SQL: &str = "INSERT INTO enrollment_requests (id, link, key_hash, host_name, hardware_serial,
                    source, create_time, state, decider, decide_time, revision)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING";
            let (state, decider, decide_time) = verdict_columns(&approval.verdict);
            let done = sqlx::query(SQL)
                .bind(&approval.id)
                .bind(&approval.link)
                .bind(&approval.key.0[..])
                .bind(&approval.host_name)
                .bind(&approval.hardware_serial)
                .bind(&approval.source)
                .bind(approval.create_time.as_micros())
                .bind(state)
                .bind(decider)
                .bind(decide_time)
                .bind(revision.0)
                .execute(on)
                .await?;
            one(done.rows_affected())
        }

        async fn replace_approval(
            on: &mut Connection,
            approval: &Approval,
            expected: Revision,
            revision: Revision,
        ) -> Result<(), StoreError> {
            const SQL: &str = "UPDATE enrollment_requests SET state = $3, decider = $4, decide_time = $5,
                    revision = $6
                WHERE id = $1 AND revision = $2";
            let (state, decider, decide_time) = verdict_columns(&approval.verdict);
            let done = sqlx::query(SQL)
                .bind(&approval.id)
                .bind(expected.0)
                .bind(state)
                .bind(decider)
                .bind(decide_time)
                .bind(revision.0)
                .execute(on)
                .await?;
            one(done.rows_affected())
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
    };
}
pub(in crate::store) use changes;
