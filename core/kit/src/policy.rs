//! Who may call what: a table from method to roles. What is not in the table is refused.

use std::collections::HashMap;
use std::sync::Arc;

use muster_types::Role;
use tonic::Code;

use crate::listen::PeerInfo;
use crate::status::{Fault, fault};

/// Whom one method is open to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    /// Also who shows no certificate: enrollment, and nothing else.
    Anybody,
    /// Whose certificate has one of these roles.
    Roles(&'static [Role]),
}

/// Who may learn the contracts from a running service.
const REFLECTED: &[Role] = &[Role::Admin, Role::Operator, Role::Auditor, Role::Cmdb, Role::Service];

/// Whether a certificate is still welcome at a method, by the one who has the list of revoked ones.
type Welcome = Arc<dyn Fn(&str, &PeerInfo) -> bool + Send + Sync>;

/// The table of one service. Clones share it.
#[derive(Clone, Default)]
pub struct Policy {
    methods: HashMap<&'static str, Callers>,
    welcome: Option<Welcome>,
}

impl Policy {
    /// Refuses everybody everything but health and reflection, which every certificate may ask for.
    pub fn new() -> Self {
        Self::default()
            .roles("/grpc.health.v1.Health/Check", Role::PEERS)
            .roles("/grpc.health.v1.Health/List", Role::PEERS)
            .roles("/grpc.health.v1.Health/Watch", Role::PEERS)
            .roles("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", REFLECTED)
    }

    /// Opens one method, by its full path as in `/muster.fleet.v1.FleetService/GetNode`.
    pub fn allow(mut self, method: &'static str, callers: Callers) -> Self {
        self.methods.insert(method, callers);
        self
    }

    /// Opens one method to roles.
    pub fn roles(self, method: &'static str, roles: &'static [Role]) -> Self {
        self.allow(method, Callers::Roles(roles))
    }

    /// Asks `welcome` before every call with a certificate: revoked ones are refused on connections that still live.
    pub fn welcoming(mut self, welcome: impl Fn(&str, &PeerInfo) -> bool + Send + Sync + 'static) -> Self {
        self.welcome = Some(Arc::new(welcome));
        self
    }

    /// Whether the table names this method; labels of metrics are taken from it.
    pub fn knows(&self, method: &str) -> Option<&'static str> {
        self.methods.get_key_value(method).map(|(name, _)| *name)
    }

    /// `Ok` if this peer may call this method.
    pub fn check(&self, method: &str, peer: Option<&PeerInfo>) -> Result<(), Fault> {
        let callers = self.methods.get(method);
        if callers == Some(&Callers::Anybody) {
            return Ok(());
        }
        let Some((peer, identity)) = peer.and_then(|peer| Some((peer, peer.identity.as_ref()?))) else {
            return Err(unauthenticated("CERTIFICATE_REQUIRED", "this call needs a client certificate"));
        };
        if self.welcome.as_ref().is_some_and(|welcome| !welcome(method, peer)) {
            return Err(revoked());
        }
        match callers {
            Some(Callers::Roles(roles)) if roles.contains(&identity.role) => Ok(()),
            _ => Err(fault(
                Code::PermissionDenied,
                "ROLE_NOT_ALLOWED",
                format!("{} may not call {method}", identity.resource_name()),
            )
            .with("role", identity.role)
            .with("method", method)),
        }
    }
}

/// The reason that a revoked caller hears.
pub const REVOKED: &str = "CERTIFICATE_REVOKED";

/// What a revoked caller hears, whatever it asks for or was listening to.
pub fn revoked() -> Fault {
    unauthenticated(REVOKED, "this certificate has been revoked")
}

fn unauthenticated(reason: &'static str, message: &str) -> Fault {
    fault(Code::Unauthenticated, reason, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_types::{Identity, NetworkId};

    const GET_NODE: &str = "/muster.fleet.v1.FleetService/GetNode";
    const ENROLL: &str = "/muster.auth.v1.EnrollmentService/Enroll";

    fn policy() -> Policy {
        Policy::new().roles(GET_NODE, &[Role::Operator, Role::Cmdb]).allow(ENROLL, Callers::Anybody)
    }

    fn peer(role: Option<Role>) -> PeerInfo {
        let identity = role.map(|role| Identity { network: NetworkId::default(), role, name: "x".into() });
        PeerInfo { identity, serial: vec![1], remote_addr: "127.0.0.1:1".parse().unwrap() }
    }

    fn refusal(method: &str, role: Option<Role>) -> Option<(Code, &'static str)> {
        policy().check(method, Some(&peer(role))).err().map(|fault| (fault.code, fault.reason))
    }

    #[test]
    fn what_the_table_does_not_name_is_refused_to_everybody() {
        for role in Role::ALL {
            let denied = Some((Code::PermissionDenied, "ROLE_NOT_ALLOWED"));
            assert_eq!(refusal("/muster.fleet.v1.FleetService/DeleteNode", Some(role)), denied);
        }
    }

    #[test]
    fn a_role_gets_what_is_its_own_and_no_more() {
        assert_eq!(refusal(GET_NODE, Some(Role::Operator)), None);
        assert_eq!(refusal(GET_NODE, Some(Role::Node)), Some((Code::PermissionDenied, "ROLE_NOT_ALLOWED")));
        assert_eq!(refusal(GET_NODE, None), Some((Code::Unauthenticated, "CERTIFICATE_REQUIRED")));
        assert_eq!(refusal(ENROLL, None), None);
        assert!(policy().check(GET_NODE, None).is_err());
    }

    #[test]
    fn a_revoked_certificate_is_refused_even_its_own() {
        let policy = policy().welcoming(|_, peer| peer.serial != [1]);
        let refused = policy.check(GET_NODE, Some(&peer(Some(Role::Operator)))).unwrap_err();
        assert_eq!(refused.reason, "CERTIFICATE_REVOKED");
    }
}
