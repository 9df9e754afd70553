//! Who a certificate speaks for: one role, one name, written as a URI and, where TLS wants a host name, as DNS.

use std::fmt;
use std::str::FromStr;

use crate::{NetworkId, NodeId};

/// What a certificate may be used for. It has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    Node,
    /// Decides who commands: makes links for people and programs, replaces the authority.
    Admin,
    Operator,
    /// Sees everything, the audit log too, and changes nothing.
    Auditor,
    Cmdb,
    Service,
    /// Signs tasks, tickets and receipts; never a TLS peer.
    Signer,
}

impl Role {
    pub const ALL: [Self; 7] =
        [Self::Node, Self::Admin, Self::Operator, Self::Auditor, Self::Cmdb, Self::Service, Self::Signer];

    /// Who decides who commands.
    pub const ADMINS: &[Self] = &[Self::Admin];

    /// Who lets devices in and takes them out by hand.
    pub const OPERATORS: &[Self] = &[Self::Admin, Self::Operator];

    /// Who commands the fleet: people, and the programs that act for them.
    pub const COMMANDERS: &[Self] = &[Self::Admin, Self::Operator, Self::Cmdb];

    /// Who sees the fleet.
    pub const READERS: &[Self] = &[Self::Admin, Self::Operator, Self::Auditor, Self::Cmdb];

    /// Who reads what everybody did.
    pub const AUDITORS: &[Self] = &[Self::Admin, Self::Auditor];

    /// Who can be at the other end of TLS.
    pub const PEERS: &[Self] =
        &[Self::Node, Self::Admin, Self::Operator, Self::Auditor, Self::Cmdb, Self::Service];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Cmdb => "cmdb",
            Self::Service => "service",
            Self::Signer => "signer",
        }
    }

    /// The collection of its resource names, as in `nodes/{node}`.
    pub fn collection(self) -> &'static str {
        match self {
            Self::Node => "nodes",
            Self::Admin => "admins",
            Self::Operator => "operators",
            Self::Auditor => "auditors",
            Self::Cmdb => "cmdbs",
            Self::Service => "services",
            Self::Signer => "signers",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is not the identity of anybody in a Muster network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{uri:?} is no Muster identity: {reason}")]
pub struct IdentityError {
    uri: String,
    reason: &'static str,
}

/// The subject of a certificate: `spiffe://{network id}.muster/{role}/{name}` in its URI subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    pub network: NetworkId,
    pub role: Role,
    /// A node's id in hexadecimal, a service's name, an operator's chosen one.
    pub name: String,
}

impl Identity {
    pub fn node(network: NetworkId, node: NodeId) -> Self {
        Self { network, role: Role::Node, name: node.to_string() }
    }

    /// The node's id, if a node it is.
    pub fn node_id(&self) -> Option<NodeId> {
        (self.role == Role::Node).then(|| self.name.parse().ok()).flatten()
    }

    /// `nodes/{node}`, `operators/{operator}`, ...
    pub fn resource_name(&self) -> String {
        format!("{}/{}", self.role.collection(), self.name)
    }

    /// The name that TLS verifies: of nodes `{id}.node.muster`, of services `{name}.muster`; the others are never servers.
    pub fn server_name(&self) -> Option<String> {
        match self.role {
            Role::Node => Some(format!("{}.node.muster", self.name)),
            Role::Service => Some(format!("{}.muster", self.name)),
            Role::Admin | Role::Operator | Role::Auditor | Role::Cmdb | Role::Signer => None,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}.muster/{}/{}", self.network, self.role, self.name)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let fail = |reason| IdentityError { uri: uri.to_owned(), reason };
        let rest = uri.strip_prefix("spiffe://").ok_or_else(|| fail("it does not begin with spiffe://"))?;
        let mut parts = rest.split('/');
        let network = parts
            .next()
            .and_then(|domain| domain.strip_suffix(".muster"))
            .and_then(|id| id.parse().ok())
            .ok_or_else(|| fail("its trust domain is not a network id"))?;
        let role = parts.next().ok_or_else(|| fail("it has no role"))?;
        let role =
            Role::ALL.into_iter().find(|r| r.as_str() == role).ok_or_else(|| fail("its role is unknown"))?;
        let name = parts.next().filter(|name| !name.is_empty()).ok_or_else(|| fail("it has no name"))?;
        if parts.next().is_some() {
            return Err(fail("its name has more than one part"));
        }
        let identity = Self { network, role, name: name.to_owned() };
        if role == Role::Node && identity.node_id().is_none() {
            return Err(fail("its name is not a node id"));
        }
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_back_from_its_uri() {
        let identity = Identity::node(NetworkId([7; 16]), NodeId([9; 20]));
        assert_eq!(identity.to_string().parse(), Ok(identity));
    }

    #[test]
    fn a_uri_with_more_or_less_than_an_identity_is_refused() {
        let network = NetworkId([7; 16]);
        for uri in [
            "https://example.org".to_owned(),
            format!("spiffe://{network}.muster/node/abc"),
            format!("spiffe://{network}.muster/king/arthur"),
            format!("spiffe://{network}.muster/operator/"),
            format!("spiffe://{network}.muster/operator/a/b"),
            "spiffe://elsewhere/operator/a".to_owned(),
        ] {
            assert!(uri.parse::<Identity>().is_err(), "{uri}");
        }
    }
}
