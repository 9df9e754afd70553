//! The SQL that changes something: one deed in the audit log, and the rows that it is about.

use muster_types::Timestamp;

use super::super::Db;
use super::Connection;
use crate::domain::approval::Approval;
use crate::domain::audit::{Deed, Entry, Head};
use crate::domain::device::DeviceLeaf;
use crate::domain::key::StoredKey;
use crate::domain::leaf::Leaf;
use crate::domain::link::Use;
use crate::domain::revocation::Reason;
use crate::domain::{Link, Principal};
use crate::store::row::*;
use crate::store::{Certificate, Change, Request, Revision, StoreError, Write};

type Query = sqlx::query::Query<'static, Db, <Db as sqlx::Database>::Arguments>;
type Written = Result<(), StoreError>;

/// Applies a change inside the caller's transaction, which is to be rolled back on an error.
pub(in super::super) async fn apply(
    on: &mut Connection,
    change: &Change,
    chain: &str,
) -> Result<Revision, StoreError> {
    let revision = append(on, change.deed.clone(), chain).await?;
    let mut rows = Rows { on, revision };
    for write in &change.writes {
        rows.apply(write).await?;
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
    let row: Option<HeadRow> =
        sqlx::query_as("SELECT * FROM heads WHERE chain = $1").bind(chain).fetch_optional(&mut *on).await?;
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

/// The rows that one change writes, all with its revision.
struct Rows<'a> {
    on: &'a mut Connection,
    revision: Revision,
}

impl Rows<'_> {
    async fn apply(&mut self, write: &Write) -> Written {
        match write {
            Write::AddKey(key) => self.add_key(key).await,
            Write::AddLink(link) => self.add_link(link).await,
            Write::ReplaceLink { link, expected } => self.replace_link(link, *expected).await,
            Write::PutPrincipal { principal, expected: None } => self.add_principal(principal).await,
            Write::PutPrincipal { principal, expected: Some(expected) } => {
                self.replace_principal(principal, *expected).await
            }
            Write::AddCertificate(leaf) => self.add_certificate(leaf).await,
            Write::UseLink { link, usage } => self.use_link(link, usage).await,
            Write::AddDeviceCertificate(leaf) => self.add_device_certificate(leaf).await,
            Write::Revoke { certificate, time, reason } => self.revoke(certificate, *time, *reason).await,
            Write::OpenPast { leap } => self.open_past(*leap).await,
            Write::AddForeignCertificate(certificate) => self.insert_certificate(certificate).await,
            Write::AddRequest(request) => self.add_request(request).await,
            Write::PutApproval { approval, expected: None } => self.add_approval(approval).await,
            Write::PutApproval { approval, expected: Some(expected) } => {
                self.replace_approval(approval, *expected).await
            }
        }
    }

    /// A statement that should touch one row: where it finds it taken or changed, somebody was faster.
    async fn once(&mut self, query: Query) -> Written {
        let done = query.execute(&mut *self.on).await?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Conflict) }
    }

    async fn add_key(&mut self, key: &StoredKey) -> Written {
        const SQL: &str = "INSERT INTO authority_keys (kind, generation, sealed, certificate, create_time)
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        self.once(
            sqlx::query(SQL)
                .bind(key.kind.as_str())
                .bind(i64::from(key.generation))
                .bind(&key.sealed)
                .bind(&key.certificate)
                .bind(key.create_time.as_micros()),
        )
        .await
    }

    async fn add_link(&mut self, link: &Link) -> Written {
        const SQL: &str = "INSERT INTO links (id, token_hash, role, lifetime, labels, display_name, creator,
            create_time, expire_time, use_limit, bound_host, bound_serial, bound_key, needs_approval,
            protocol, revision)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
        ON CONFLICT DO NOTHING";
        self.once(
            sqlx::query(SQL)
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
                .bind(self.revision.0),
        )
        .await
    }

    /// What may change of a link otherwise than by its use.
    async fn replace_link(&mut self, link: &Link, expected: Revision) -> Written {
        const SQL: &str = "UPDATE links SET revoke_time = $3, contest_count = $4, contest_time = $5,
            contest_source = $6, revision = $7
        WHERE id = $1 AND revision = $2";
        let contest = link.contest.as_ref();
        self.once(
            sqlx::query(SQL)
                .bind(&link.id)
                .bind(expected.0)
                .bind(link.revoke_time.map(|time| time.as_micros()))
                .bind(i64::from(contest.map_or(0, |contest| contest.count)))
                .bind(contest.map(|contest| contest.time.as_micros()))
                .bind(contest.map_or("", |contest| contest.source.as_str()))
                .bind(self.revision.0),
        )
        .await
    }

    async fn use_link(&mut self, link: &str, usage: &Use) -> Written {
        const COUNT: &str = "UPDATE links SET use_count = use_count + 1, use_time = $2, use_principal = $3,
            revision = $4
        WHERE id = $1 AND revoke_time IS NULL AND use_count < use_limit";
        const INSERT: &str = "INSERT INTO link_uses (link, key_hash, time, principal, certificate)
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        self.once(
            sqlx::query(COUNT)
                .bind(link)
                .bind(usage.time.as_micros())
                .bind(&usage.enrolled)
                .bind(self.revision.0),
        )
        .await?;
        self.once(
            sqlx::query(INSERT)
                .bind(link)
                .bind(&usage.key.0[..])
                .bind(usage.time.as_micros())
                .bind(&usage.enrolled)
                .bind(&usage.certificate),
        )
        .await
    }

    async fn add_principal(&mut self, principal: &Principal) -> Written {
        const SQL: &str = "INSERT INTO principals (name, identity, key_hash, generation, host_name,
            software_version, labels, node_keys, enroll_time, renew_time, revoke_time, revoke_reason,
            revision, revoke_code)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT DO NOTHING";
        self.put_principal(SQL, principal, None).await
    }

    async fn replace_principal(&mut self, principal: &Principal, expected: Revision) -> Written {
        const SQL: &str =
            "UPDATE principals SET identity = $2, key_hash = $3, generation = $4, host_name = $5,
            software_version = $6, labels = $7, node_keys = $8, enroll_time = $9, renew_time = $10,
            revoke_time = $11, revoke_reason = $12, revision = $13, revoke_code = $14
        WHERE name = $1 AND revision = $15";
        self.put_principal(SQL, principal, Some(expected)).await
    }

    async fn put_principal(
        &mut self,
        sql: &'static str,
        principal: &Principal,
        expected: Option<Revision>,
    ) -> Written {
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
            .bind(self.revision.0)
            .bind(revocation.map_or(0, |revocation| revocation.reason.code()));
        let query = match expected {
            Some(expected) => query.bind(expected.0),
            None => query,
        };
        self.once(query).await
    }

    async fn add_certificate(&mut self, leaf: &Leaf) -> Written {
        let certificate = Certificate {
            serial: leaf.serial.clone(),
            key: leaf.key,
            principal: leaf.identity.resource_name(),
            issuer: leaf.issuer.clone(),
            not_after: leaf.not_after,
            revoke_time: None,
            der: None,
        };
        self.insert_certificate(&certificate).await
    }

    async fn add_device_certificate(&mut self, leaf: &DeviceLeaf) -> Written {
        let certificate = Certificate {
            serial: leaf.serial.clone(),
            key: leaf.key,
            principal: leaf.principal.clone(),
            issuer: leaf.issuer.clone(),
            not_after: leaf.not_after,
            revoke_time: None,
            der: Some(leaf.der.clone()),
        };
        self.insert_certificate(&certificate).await
    }

    async fn insert_certificate(&mut self, certificate: &Certificate) -> Written {
        const SQL: &str = "INSERT INTO certificates
            (serial, key_hash, principal, issuer, not_after, der, revision)
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
        self.once(
            sqlx::query(SQL)
                .bind(&certificate.serial.0)
                .bind(&certificate.key.0[..])
                .bind(&certificate.principal)
                .bind(&certificate.issuer)
                .bind(certificate.not_after.as_micros())
                .bind(certificate.der.as_deref())
                .bind(self.revision.0),
        )
        .await
    }

    async fn revoke(&mut self, certificate: &Certificate, time: Timestamp, reason: Reason) -> Written {
        const MARK: &str = "UPDATE certificates SET revoke_time = $2, revision = $3 WHERE serial = $1";
        const LIST: &str = "INSERT INTO revocations
            (serial, number, key_hash, principal, issuer, revoke_time, expire_time, reason)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (serial) DO UPDATE SET number = excluded.number, reason = excluded.reason";
        let number = advance(self.on, "revocation").await?;
        let revoke_time = (reason != Reason::Removed).then(|| time.as_micros());
        self.once(sqlx::query(MARK).bind(&certificate.serial.0).bind(revoke_time).bind(self.revision.0))
            .await?;
        self.once(
            sqlx::query(LIST)
                .bind(&certificate.serial.0)
                .bind(number)
                .bind(&certificate.key.0[..])
                .bind(&certificate.principal)
                .bind(&certificate.issuer)
                .bind(time.as_micros())
                .bind(certificate.not_after.as_micros())
                .bind(reason.code()),
        )
        .await
    }

    async fn open_past(&mut self, leap: u64) -> Written {
        const NOTE: &str = "INSERT INTO counters (name, value)
            SELECT 'restored', value FROM counters WHERE name = 'revocation'
        ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        const ADVANCE: &str = "UPDATE counters SET value = value + $1 WHERE name = 'revocation'";
        self.once(sqlx::query(NOTE)).await?;
        self.once(sqlx::query(ADVANCE).bind(i64::try_from(leap).unwrap_or(i64::MAX))).await
    }

    async fn add_approval(&mut self, approval: &Approval) -> Written {
        const SQL: &str = "INSERT INTO enrollment_requests (id, link, key_hash, host_name, hardware_serial,
            source, create_time, state, decider, decide_time, revision)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING";
        let (state, decider, decide_time) = verdict_columns(&approval.verdict);
        self.once(
            sqlx::query(SQL)
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
                .bind(self.revision.0),
        )
        .await
    }

    async fn replace_approval(&mut self, approval: &Approval, expected: Revision) -> Written {
        const SQL: &str = "UPDATE enrollment_requests SET state = $3, decider = $4, decide_time = $5,
            revision = $6
        WHERE id = $1 AND revision = $2";
        let (state, decider, decide_time) = verdict_columns(&approval.verdict);
        self.once(
            sqlx::query(SQL)
                .bind(&approval.id)
                .bind(expected.0)
                .bind(state)
                .bind(decider)
                .bind(decide_time)
                .bind(self.revision.0),
        )
        .await
    }

    async fn add_request(&mut self, request: &Request) -> Written {
        const SQL: &str = "INSERT INTO requests (caller, id, link, time) VALUES ($1, $2, $3, $4)
        ON CONFLICT DO NOTHING";
        self.once(
            sqlx::query(SQL)
                .bind(&request.caller)
                .bind(&request.id)
                .bind(&request.link)
                .bind(request.time.as_micros()),
        )
        .await
    }
}
