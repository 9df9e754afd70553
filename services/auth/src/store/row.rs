//! Rows as both databases give them, to the domain's records and back.

use std::str::FromStr;
use std::time::Duration;

use muster_types::{Identity, Role, Timestamp};

use super::{Certificate, Request, Revision, StoreError, Stored};
use crate::domain::approval::{Approval, Verdict};
use crate::domain::audit::{Entry, Head};
use crate::domain::key::{KeyKind, StoredKey};
use crate::domain::leaf::Serial;
use crate::domain::link::{Binding, Contest, LastUse, Protocol, Terms, Use};
use crate::domain::principal::Revocation;
use crate::domain::request::{KeyHash, NODE_KEY_BYTES, NodeKeys};
use crate::domain::revocation::{Reason, Revoked};
use crate::domain::{Link, Principal};

#[derive(sqlx::FromRow)]
pub(super) struct KeyRow {
    kind: String,
    generation: i64,
    sealed: Vec<u8>,
    certificate: Vec<u8>,
    create_time: i64,
}

impl TryFrom<KeyRow> for StoredKey {
    type Error = StoreError;

    fn try_from(row: KeyRow) -> Result<Self, StoreError> {
        let kind = KeyKind::ALL.into_iter().find(|kind| kind.as_str() == row.kind);
        Ok(Self {
            kind: kind.ok_or_else(|| corrupt("the kind of a key", &row.kind))?,
            generation: count(row.generation)?,
            sealed: row.sealed,
            certificate: row.certificate,
            create_time: Timestamp::from_micros(row.create_time),
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct LinkRow {
    id: String,
    token_hash: Vec<u8>,
    role: String,
    lifetime: i64,
    labels: String,
    display_name: String,
    creator: String,
    create_time: i64,
    expire_time: i64,
    revoke_time: Option<i64>,
    use_time: Option<i64>,
    use_principal: Option<String>,
    revision: i64,
    use_limit: i64,
    use_count: i64,
    bound_host: String,
    bound_serial: String,
    bound_key: Option<Vec<u8>>,
    needs_approval: i64,
    protocol: String,
    contest_count: i64,
    contest_time: Option<i64>,
    contest_source: String,
}

impl TryFrom<LinkRow> for Stored<Link> {
    type Error = StoreError;

    fn try_from(row: LinkRow) -> Result<Self, StoreError> {
        let revision = Revision(row.revision);
        let contest = row.contest_time.map(Timestamp::from_micros);
        let contest = match contest {
            Some(time) => {
                Some(Contest { count: count(row.contest_count)?, time, source: row.contest_source.clone() })
            }
            None => None,
        };
        let last_use = row.use_time.zip(row.use_principal.clone());
        let record = Link {
            id: row.id.clone(),
            token_hash: fixed("a token's hash", &row.token_hash)?,
            creator: row.creator.clone(),
            create_time: Timestamp::from_micros(row.create_time),
            expire_time: Timestamp::from_micros(row.expire_time),
            revoke_time: row.revoke_time.map(Timestamp::from_micros),
            use_count: count(row.use_count)?,
            last_use: last_use
                .map(|(time, enrolled)| LastUse { time: Timestamp::from_micros(time), enrolled }),
            contest,
            terms: row.terms()?,
        };
        Ok(Self { record, revision })
    }
}

impl LinkRow {
    fn terms(self) -> Result<Terms, StoreError> {
        let role = Role::ALL.into_iter().find(|role| role.as_str() == self.role);
        let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.as_str() == self.protocol);
        Ok(Terms {
            role: role.ok_or_else(|| corrupt("a role", &self.role))?,
            lifetime: Duration::from_micros(self.lifetime.unsigned_abs()),
            labels: labels(&self.labels)?,
            display_name: self.display_name,
            use_limit: count(self.use_limit)?,
            binding: Binding {
                host_name: self.bound_host,
                hardware_serial: self.bound_serial,
                key: self.bound_key.as_deref().map(key_hash).transpose()?,
            },
            needs_approval: self.needs_approval != 0,
            protocol: protocol.ok_or_else(|| corrupt("a link's protocol", &self.protocol))?,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct UseRow {
    key_hash: Vec<u8>,
    time: i64,
    principal: String,
    certificate: Vec<u8>,
}

impl TryFrom<UseRow> for Use {
    type Error = StoreError;

    fn try_from(row: UseRow) -> Result<Self, StoreError> {
        Ok(Self {
            time: Timestamp::from_micros(row.time),
            key: key_hash(&row.key_hash)?,
            enrolled: row.principal,
            certificate: row.certificate,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct ApprovalRow {
    id: String,
    link: String,
    key_hash: Vec<u8>,
    host_name: String,
    hardware_serial: String,
    source: String,
    create_time: i64,
    state: String,
    decider: String,
    decide_time: Option<i64>,
    revision: i64,
}

impl TryFrom<ApprovalRow> for Stored<Approval> {
    type Error = StoreError;

    fn try_from(row: ApprovalRow) -> Result<Self, StoreError> {
        let time = Timestamp::from_micros(row.decide_time.unwrap_or_default());
        let verdict = match row.state.as_str() {
            PENDING => Verdict::Pending,
            APPROVED => Verdict::Approved(row.decider, time),
            DENIED => Verdict::Denied(row.decider, time),
            other => return Err(corrupt("an enrollment request's state", other)),
        };
        let record = Approval {
            id: row.id,
            link: row.link,
            key: key_hash(&row.key_hash)?,
            host_name: row.host_name,
            hardware_serial: row.hardware_serial,
            source: row.source,
            create_time: Timestamp::from_micros(row.create_time),
            verdict,
        };
        Ok(Self { record, revision: Revision(row.revision) })
    }
}

/// States of an enrollment request. In the order of the alphabet backwards the waiting ones come first.
pub(super) const PENDING: &str = "pending";
const APPROVED: &str = "approved";
const DENIED: &str = "denied";

/// A verdict as columns: state, decider, decide_time.
pub(super) fn verdict_columns(verdict: &Verdict) -> (&'static str, &str, Option<i64>) {
    match verdict {
        Verdict::Pending => (PENDING, "", None),
        Verdict::Approved(by, time) => (APPROVED, by, Some(time.as_micros())),
        Verdict::Denied(by, time) => (DENIED, by, Some(time.as_micros())),
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct RevokedRow {
    serial: Vec<u8>,
    number: i64,
    key_hash: Vec<u8>,
    principal: String,
    issuer: String,
    revoke_time: i64,
    expire_time: i64,
    reason: i64,
}

impl TryFrom<RevokedRow> for Revoked {
    type Error = StoreError;

    fn try_from(row: RevokedRow) -> Result<Self, StoreError> {
        Ok(Self {
            number: row.number.unsigned_abs(),
            serial: Serial(row.serial),
            key: key_hash(&row.key_hash)?,
            principal: row.principal,
            issuer: row.issuer,
            revoke_time: Timestamp::from_micros(row.revoke_time),
            expire_time: Timestamp::from_micros(row.expire_time),
            reason: reason(row.reason)?,
        })
    }
}

fn reason(code: i64) -> Result<Reason, StoreError> {
    Reason::from_code(code).ok_or_else(|| corrupt("a reason", code))
}

fn key_hash(bytes: &[u8]) -> Result<KeyHash, StoreError> {
    Ok(KeyHash(fixed("a key's hash", bytes)?))
}

#[derive(sqlx::FromRow)]
pub(super) struct PrincipalRow {
    identity: String,
    key_hash: Vec<u8>,
    generation: i64,
    host_name: String,
    software_version: String,
    labels: String,
    node_keys: Option<Vec<u8>>,
    enroll_time: i64,
    renew_time: i64,
    revoke_time: Option<i64>,
    revoke_reason: Option<String>,
    revision: i64,
    revoke_code: i64,
}

impl TryFrom<PrincipalRow> for Stored<Principal> {
    type Error = StoreError;

    fn try_from(row: PrincipalRow) -> Result<Self, StoreError> {
        let reason = reason(row.revoke_code)?;
        let revocation = row.revoke_time.map(|time| Revocation {
            time: Timestamp::from_micros(time),
            reason,
            comment: row.revoke_reason.unwrap_or_default(),
        });
        let record = Principal {
            identity: Identity::from_str(&row.identity).map_err(|error| corrupt("an identity", error))?,
            key: KeyHash(fixed("a key's hash", &row.key_hash)?),
            generation: count(row.generation)?,
            host_name: row.host_name,
            software_version: row.software_version,
            labels: labels(&row.labels)?,
            node_keys: row.node_keys.as_deref().map(node_keys).transpose()?,
            enroll_time: Timestamp::from_micros(row.enroll_time),
            renew_time: Timestamp::from_micros(row.renew_time),
            revocation,
        };
        Ok(Self { record, revision: Revision(row.revision) })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct CertificateRow {
    serial: Vec<u8>,
    key_hash: Vec<u8>,
    principal: String,
    issuer: String,
    not_after: i64,
    revoke_time: Option<i64>,
    der: Option<Vec<u8>>,
}

impl TryFrom<CertificateRow> for Certificate {
    type Error = StoreError;

    fn try_from(row: CertificateRow) -> Result<Self, StoreError> {
        Ok(Self {
            serial: Serial(row.serial),
            key: KeyHash(fixed("a key's hash", &row.key_hash)?),
            principal: row.principal,
            issuer: row.issuer,
            not_after: Timestamp::from_micros(row.not_after),
            revoke_time: row.revoke_time.map(Timestamp::from_micros),
            der: row.der,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct RequestRow {
    caller: String,
    id: String,
    link: String,
    time: i64,
}

impl From<RequestRow> for Request {
    fn from(row: RequestRow) -> Self {
        let RequestRow { caller, id, link, time } = row;
        Self { caller, id, link, time: Timestamp::from_micros(time) }
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct EntryRow {
    revision: i64,
    chain: String,
    sequence: i64,
    time: i64,
    action: String,
    actor: String,
    subject: String,
    detail: String,
    hash: Vec<u8>,
}

impl TryFrom<EntryRow> for Entry {
    type Error = StoreError;

    fn try_from(row: EntryRow) -> Result<Self, StoreError> {
        Ok(Self {
            revision: row.revision.unsigned_abs(),
            chain: row.chain,
            sequence: row.sequence.unsigned_abs(),
            time: Timestamp::from_micros(row.time),
            action: row.action,
            actor: row.actor,
            subject: row.subject,
            detail: row.detail,
            hash: fixed("an audit hash", &row.hash)?,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct HeadRow {
    chain: String,
    sequence: i64,
    hash: Vec<u8>,
}

impl TryFrom<HeadRow> for Head {
    type Error = StoreError;

    fn try_from(row: HeadRow) -> Result<Self, StoreError> {
        let hash = fixed("an audit hash", &row.hash)?;
        Ok(Self { chain: row.chain, sequence: row.sequence.unsigned_abs(), hash })
    }
}

/// The three keys, one behind the other.
pub(super) fn node_keys_column(keys: &NodeKeys) -> Vec<u8> {
    [keys.noise, keys.sealing, keys.signing].concat()
}

fn node_keys(bytes: &[u8]) -> Result<NodeKeys, StoreError> {
    let all: [u8; 3 * NODE_KEY_BYTES] = fixed("a node's keys", bytes)?;
    let part = |n: usize| fixed("a node's key", &all[n * NODE_KEY_BYTES..(n + 1) * NODE_KEY_BYTES]);
    Ok(NodeKeys { noise: part(0)?, sealing: part(1)?, signing: part(2)? })
}

pub(super) fn labels_column(labels: &crate::domain::label::Labels) -> String {
    serde_json::to_value(labels).unwrap_or_default().to_string()
}

fn labels(json: &str) -> Result<crate::domain::label::Labels, StoreError> {
    serde_json::from_str(json).map_err(|error| corrupt("labels", error))
}

pub(super) fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn fixed<const N: usize>(what: &str, bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| corrupt(what, format_args!("{} bytes", bytes.len())))
}

fn count(number: i64) -> Result<u32, StoreError> {
    u32::try_from(number).map_err(|error| corrupt("a count", error))
}

fn corrupt(what: &str, why: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("{what}: {why}"))
}
