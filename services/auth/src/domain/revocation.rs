//! Revocation: why a certificate counts no longer, and the numbered list of those that do not.

use std::time::Duration;

use muster_types::{NodeId, Role, Timestamp};

use super::leaf::Serial;
use super::request::KeyHash;

/// How far a verifier's clock may be behind ours: an entry stays so long after its certificate's end.
pub const EXPIRY_TOLERANCE: Duration = Duration::from_secs(24 * 3_600);

/// Characters of a comment on a revocation.
pub const COMMENT_CHARS: usize = 255;

/// Why, by the numbers of RFC 5280, section 5.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reason {
    #[default]
    Unspecified = 0,
    KeyCompromise = 1,
    AffiliationChanged = 3,
    Superseded = 4,
    CessationOfOperation = 5,
    /// On hold: the device is lost, and admitted for the master's signed lock or erase alone.
    Lost = 6,
    /// It was lost and is found.
    Removed = 8,
    PrivilegeWithdrawn = 9,
}

impl Reason {
    pub const ALL: [Self; 8] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::Lost,
        Self::Removed,
        Self::PrivilegeWithdrawn,
    ];

    pub fn code(self) -> i64 {
        self as i64
    }

    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// A certificate in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Of the list that had it first.
    pub number: u64,
    pub serial: Serial,
    pub key: KeyHash,
    /// Resource name of its holder.
    pub principal: String,
    /// Which authority signed it, as in `issuing/1`.
    pub issuer: String,
    pub revoke_time: Timestamp,
    /// When the certificate ends.
    pub expire_time: Timestamp,
    pub reason: Reason,
}

impl Revoked {
    /// If its holder is a node.
    pub fn node(&self) -> Option<NodeId> {
        let id = data_encoding::HEXLOWER.decode(self.principal.strip_prefix("nodes/")?.as_bytes()).ok()?;
        NodeId::try_from(&id[..]).ok()
    }
}

/// Whose certificates an operator means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Resource name.
    Name(String),
    Serial(Serial),
    Key(KeyHash),
}

/// Why a revocation is not made or taken back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    #[error("nothing was issued to {0}")]
    Unknown(String),
    #[error("{0} is not lost: only a lost device can be found again")]
    NotLost(String),
    #[error("a comment has at most {COMMENT_CHARS} printable characters")]
    Comment,
    #[error("{actor} may take out devices and itself, not {holder}: an admin may")]
    NotAllowed { actor: String, holder: String },
    #[error("this master lost nothing: it was never restored")]
    NotRestored,
    #[error("a list of the lost past is not believed: {0}")]
    Unbelieved(String),
    #[error("removal from the list is no reason: reinstate the lost device")]
    Reason,
}

/// Resource names of devices, with our agent and without.
const DEVICES: [&str; 2] = ["nodes/", "devices/"];

/// Admins take out everybody, operators and CMDBs devices; and each itself, when it fears for its key.
///
/// # Errors
/// `actor` may not.
pub fn may_revoke(actor: &str, holder: &str) -> Result<(), RevocationError> {
    let decides = [Role::Admin, Role::Service]
        .iter()
        .any(|role| actor.strip_prefix(role.collection()).is_some_and(|rest| rest.starts_with('/')));
    if decides || actor == holder || DEVICES.iter().any(|kind| holder.starts_with(kind)) {
        return Ok(());
    }
    Err(RevocationError::NotAllowed { actor: actor.to_owned(), holder: holder.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_takes_out_devices_and_itself_and_an_admin_everybody() {
        for holder in ["nodes/a", "devices/printer", "operators/ada", "admins/eve", "services/topology"] {
            assert_eq!(may_revoke("admins/eve", holder), Ok(()));
            let devices = holder.starts_with("nodes/") || holder.starts_with("devices/");
            assert_eq!(may_revoke("cmdbs/ledger", holder).is_ok(), devices);
            assert_eq!(may_revoke("operators/ada", holder).is_ok(), devices || holder == "operators/ada");
        }
    }

    #[test]
    fn a_reason_is_its_number_in_x509() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(reason));
        }
        assert_eq!(Reason::Lost.code(), 6);
        assert_eq!(Reason::from_code(2), None);
    }

    #[test]
    fn a_nodes_entry_names_the_node_and_an_operators_does_not() {
        let of = |principal: &str| Revoked {
            number: 1,
            serial: Serial(vec![1]),
            key: KeyHash([0; 32]),
            principal: principal.to_owned(),
            issuer: "issuing/1".to_owned(),
            revoke_time: Timestamp::from_micros(0),
            expire_time: Timestamp::from_micros(0),
            reason: Reason::Lost,
        };
        assert_eq!(of(&format!("nodes/{}", "ab".repeat(20))).node(), Some(NodeId([0xab; 20])));
        assert_eq!(of("operators/ada").node(), None);
    }
}
