//! Rows as both databases give them, to the domain's records and back.

use std::str::FromStr;
use std::time::Duration;

use muster_types::{Identity, Role, Timestamp};

use super::{Certificate, Request, Revision, StoreError, Stored};
use crate::domain::audit::Entry;
use crate::domain::founding::{KeyKind, StoredKey};
use crate::domain::leaf::Serial;
use crate::domain::link::{Fate, Terms, Use};
use crate::domain::principal::Revocation;
use crate::domain::request::{KeyHash, NODE_KEY_BYTES, NodeKeys};
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
    use_key: Option<Vec<u8>>,
    use_principal: Option<String>,
    use_certificate: Option<Vec<u8>>,
    revision: i64,
}

impl TryFrom<LinkRow> for Stored<Link> {
    type Error = StoreError;

    fn try_from(row: LinkRow) -> Result<Self, StoreError> {
        let fate = match (row.revoke_time, row.use_time, row.use_key, row.use_principal, row.use_certificate)
        {
            (None, Some(time), Some(key), Some(enrolled), Some(certificate)) => Fate::Used(Use {
                time: Timestamp::from_micros(time),
                key: KeyHash(fixed("a key's hash", &key)?),
                enrolled,
                certificate,
            }),
            (Some(time), ..) => Fate::Revoked(Timestamp::from_micros(time)),
            _ => Fate::Unused,
        };
        let role = Role::ALL.into_iter().find(|role| role.as_str() == row.role);
        let terms = Terms {
            role: role.ok_or_else(|| corrupt("a role", &row.role))?,
            lifetime: Duration::from_micros(row.lifetime.unsigned_abs()),
            labels: labels(&row.labels)?,
            display_name: row.display_name,
        };
        let record = Link {
            id: row.id,
            token_hash: fixed("a token's hash", &row.token_hash)?,
            terms,
            creator: row.creator,
            create_time: Timestamp::from_micros(row.create_time),
            expire_time: Timestamp::from_micros(row.expire_time),
            fate,
        };
        Ok(Self { record, revision: Revision(row.revision) })
    }
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
}

impl TryFrom<PrincipalRow> for Stored<Principal> {
    type Error = StoreError;

    fn try_from(row: PrincipalRow) -> Result<Self, StoreError> {
        let revocation = row.revoke_time.map(|time| Revocation {
            time: Timestamp::from_micros(time),
            reason: row.revoke_reason.unwrap_or_default(),
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
    not_after: i64,
    revoke_time: Option<i64>,
}

impl TryFrom<CertificateRow> for Certificate {
    type Error = StoreError;

    fn try_from(row: CertificateRow) -> Result<Self, StoreError> {
        Ok(Self {
            serial: Serial(row.serial),
            key: KeyHash(fixed("a key's hash", &row.key_hash)?),
            principal: row.principal,
            not_after: Timestamp::from_micros(row.not_after),
            revoke_time: row.revoke_time.map(Timestamp::from_micros),
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

/// A link's fate as columns: revoke_time, use_time, use_key, use_principal, use_certificate.
pub(super) type FateColumns<'a> =
    (Option<i64>, Option<i64>, Option<&'a [u8]>, Option<&'a str>, Option<&'a [u8]>);

pub(super) fn fate_columns(fate: &Fate) -> FateColumns<'_> {
    match fate {
        Fate::Unused => (None, None, None, None, None),
        Fate::Revoked(time) => (Some(time.as_micros()), None, None, None, None),
        Fate::Used(usage) => (
            None,
            Some(usage.time.as_micros()),
            Some(&usage.key.0),
            Some(&usage.enrolled),
            Some(&usage.certificate),
        ),
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
