//! The keys that speak for the master: one for each purpose, and who may have what signed by them.

use std::fmt;
use std::time::Duration;

use muster_proto::payload_type::{
    AUDIT_HEADS, NODE_TICKET, PRESENCE_RECEIPT, RELAY_TICKET, REVOCATION_LIST, TASK, TASK_CANCELLATION,
    UPTIME_TICKET,
};
use muster_types::Timestamp;
use ring::signature::EcdsaKeyPair;

/// Services that a network has; each may hold a certificate of role service.
pub const SERVICES: [&str; 5] = ["topology", "auth", "dht-bootstrap", "gsn-registry", "relay"];

/// What a signer signs. One key each, so that a later key of narrower custody concerns one purpose alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    Tasks,
    Tickets,
    Receipts,
}

impl Purpose {
    pub const ALL: [Self; 3] = [Self::Tasks, Self::Tickets, Self::Receipts];

    /// The name in the signer's certificate.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tasks => "tasks",
            Self::Tickets => "tickets",
            Self::Receipts => "receipts",
        }
    }
}

/// Every payload type that a signer signs: its purpose, and the one service that may ask for it.
const SIGNABLE: [(&str, Purpose, &str); 9] = [
    (TASK, Purpose::Tasks, "topology"),
    (TASK_CANCELLATION, Purpose::Tasks, "topology"),
    (UPTIME_TICKET, Purpose::Tickets, "topology"),
    (PRESENCE_RECEIPT, Purpose::Receipts, "topology"),
    (NODE_TICKET, Purpose::Tickets, "auth"),
    (REVOCATION_LIST, Purpose::Tickets, "auth"),
    (AUDIT_HEADS, Purpose::Receipts, "auth"),
    (RELAY_TICKET, Purpose::Tickets, "gsn-registry"),
    // Of its own bootstrap nodes alone: see `may_hold`.
    (NODE_TICKET, Purpose::Tickets, "dht-bootstrap"),
];

/// Whether `service` may have this very payload signed: dht-bootstrap makes tickets, but of no enrolled node.
pub fn may_hold(service: &str, payload_type: &str, payload: &[u8]) -> bool {
    let restricted = service == "dht-bootstrap" && payload_type == NODE_TICKET;
    !restricted || muster_wire::ticket::is_bootstrap_ticket(payload)
}

/// The caller may not have this signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("service {service} may not have a payload of type {payload_type:?} signed")]
pub struct SigningRefusal {
    pub service: String,
    pub payload_type: String,
}

/// The signer that signs `payload_type` for `service`, and the type's own constant.
///
/// # Errors
/// The type is none that auth signs, or another service's.
pub fn purpose_for(service: &str, payload_type: &str) -> Result<(Purpose, &'static str), SigningRefusal> {
    SIGNABLE
        .iter()
        .find(|(signable, _, asker)| *signable == payload_type && *asker == service)
        .map(|(signable, purpose, _)| (*purpose, *signable))
        .ok_or_else(|| SigningRefusal {
            service: service.to_owned(),
            payload_type: payload_type.chars().take(80).collect(),
        })
}

/// A signer's key with the certificate that makes others believe it.
pub struct Signer {
    pub purpose: Purpose,
    pub key: EcdsaKeyPair,
    /// DER SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
    /// DER
    pub certificate: Vec<u8>,
}

/// How long what a replaced key signed still counts: orders live 30 days, tickets 14.
pub const RETIREMENT: Duration = Duration::from_secs(45 * 24 * 3_600);

/// Replaced keys of one purpose that still count at most.
pub const RETIRED: usize = 4;

/// A key that another one has replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retired {
    /// DER
    pub certificate: Vec<u8>,
    /// What it signed counts until then.
    pub until: Timestamp,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.purpose.as_str())
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::payload_type::{ATTACH, CLAIM, TASK_REPORT};

    use super::*;

    #[test]
    fn topology_has_tasks_signed_and_nobody_else_does() {
        assert_eq!(purpose_for("topology", TASK), Ok((Purpose::Tasks, TASK)));
        for service in ["auth", "relay", "dht-bootstrap", "gsn-registry", ""] {
            assert!(purpose_for(service, TASK).is_err(), "{service}");
        }
    }

    #[test]
    fn nobody_has_a_nodes_ticket_or_what_nodes_sign_themselves_signed() {
        for payload_type in [NODE_TICKET, REVOCATION_LIST, CLAIM, ATTACH, TASK_REPORT, "text/plain"] {
            assert!(purpose_for("topology", payload_type).is_err(), "{payload_type}");
        }
    }
}
