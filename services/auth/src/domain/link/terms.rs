//! What a link grants, to whom, how often; and who may make such a link.

use std::time::Duration;

use muster_types::Role;

use super::{LinkRefusal, Presenter};
use crate::domain::label::{LabelError, Labels, check_labels, check_name, check_text};
use crate::domain::request::KeyHash;
use crate::domain::signer::SERVICES;

/// Life of a link if nobody says otherwise.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(24 * 3_600);

/// The longest life of a link.
pub const MAX_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Uses of one link: an image for a whole fleet, several times over.
pub const MAX_USES: u32 = 100_000;

/// Characters of a common name (RFC 5280, appendix A.1, ub-common-name).
const COMMON_NAME_CHARS: usize = 64;

/// What a link grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub role: Role,
    pub lifetime: Duration,
    pub labels: Labels,
    /// Of operators, CMDBs and services the name they get; of a challenge the common name of its subject; of nodes a word
    /// for people.
    pub display_name: String,
    pub use_limit: u32,
    pub binding: Binding,
    /// Each use waits for an operator's word.
    pub needs_approval: bool,
    pub protocol: Protocol,
}

/// Whom a link is for. What is empty is left open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Binding {
    /// Compared without regard to case, as DNS does.
    pub host_name: String,
    pub hardware_serial: String,
    pub key: Option<KeyHash>,
}

/// How a link is redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// By our own enrollment.
    #[default]
    Muster,
    /// As the password of SCEP or EST, by a device without our agent.
    Challenge,
}

impl Protocol {
    pub const ALL: [Self; 2] = [Self::Muster, Self::Challenge];

    /// Its name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Muster => "muster",
            Self::Challenge => "challenge",
        }
    }

    pub(super) fn about(self) -> &'static str {
        match self {
            Self::Muster => "an enrollment link, no challenge for SCEP or EST",
            Self::Challenge => "a challenge for SCEP or EST, no enrollment link",
        }
    }
}

/// Why a link cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    #[error("a link is for a node, an admin, an operator, an auditor, a CMDB or a service")]
    Role,
    #[error("{creator} may not make a link for a {role}")]
    NotAllowed { creator: Role, role: Role },
    #[error("a link lives at least a minute and at most 30 days")]
    Lifetime,
    #[error("a service link names one of {SERVICES:?} in display_name, which {0:?} is not")]
    Service(String),
    #[error("only a node has labels")]
    Labels,
    #[error(
        "a link works 1 to {MAX_USES} times, and more than once only for nodes without a bound serial or key"
    )]
    Uses,
    #[error("only a node's link is bound to a host or waits for approval")]
    Bound,
    #[error(
        "a challenge is for a node and names its common name in display_name, 1 to {COMMON_NAME_CHARS} characters"
    )]
    Challenge,
    #[error(transparent)]
    Label(#[from] LabelError),
}

impl Binding {
    fn is_open(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn check(&self, who: Presenter<'_>) -> Result<(), LinkRefusal> {
        if !self.host_name.is_empty() && !self.host_name.eq_ignore_ascii_case(who.host_name) {
            return Err(LinkRefusal::Bound("host name"));
        }
        if !self.hardware_serial.is_empty() && self.hardware_serial != who.hardware_serial {
            return Err(LinkRefusal::Bound("serial number"));
        }
        if self.key.is_some_and(|key| key != who.key) {
            return Err(LinkRefusal::Bound("key"));
        }
        Ok(())
    }
}

impl Terms {
    /// Of `role`, once, for a day, for whoever has it.
    pub fn of(role: Role, display_name: &str) -> Self {
        Self {
            role,
            lifetime: DEFAULT_LIFETIME,
            labels: Labels::new(),
            display_name: display_name.to_owned(),
            use_limit: 1,
            binding: Binding::default(),
            needs_approval: false,
            protocol: Protocol::Muster,
        }
    }

    /// Checks what `creator` asks for.
    ///
    /// # Errors
    /// The creator's role may not make such a link, or something in it is not well formed.
    pub fn check(&self, creator: Role) -> Result<(), TermsError> {
        const SHORTEST: Duration = Duration::from_secs(60);
        // Operators and CMDBs bring devices in, never people or programs that command or watch them.
        let allowed = match self.role {
            Role::Node => Role::COMMANDERS.contains(&creator) || creator == Role::Service,
            Role::Admin | Role::Operator | Role::Auditor | Role::Cmdb | Role::Service => {
                matches!(creator, Role::Admin | Role::Service)
            }
            Role::Signer => return Err(TermsError::Role),
        };
        if !allowed {
            return Err(TermsError::NotAllowed { creator, role: self.role });
        }
        if self.lifetime < SHORTEST || self.lifetime > MAX_LIFETIME {
            return Err(TermsError::Lifetime);
        }
        self.check_uses()?;
        self.check_names()
    }

    fn check_uses(&self) -> Result<(), TermsError> {
        let many = self.use_limit > 1;
        let one_device = !self.binding.hardware_serial.is_empty() || self.binding.key.is_some();
        if self.use_limit == 0 || self.use_limit > MAX_USES || many && (self.role != Role::Node || one_device)
        {
            return Err(TermsError::Uses);
        }
        if self.role != Role::Node && (self.needs_approval || !self.binding.is_open()) {
            return Err(TermsError::Bound);
        }
        if self.protocol == Protocol::Challenge {
            let chars = self.display_name.chars().count();
            if self.role != Role::Node || many || chars == 0 || chars > COMMON_NAME_CHARS {
                return Err(TermsError::Challenge);
            }
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), TermsError> {
        check_labels(&self.labels)?;
        check_text("binding.host_name", &self.binding.host_name)?;
        check_text("binding.hardware_serial", &self.binding.hardware_serial)?;
        if self.role != Role::Node && !self.labels.is_empty() {
            return Err(TermsError::Labels);
        }
        match self.role {
            Role::Service if !SERVICES.contains(&self.display_name.as_str()) => {
                Err(TermsError::Service(self.display_name.chars().take(40).collect()))
            }
            Role::Admin | Role::Operator | Role::Auditor | Role::Cmdb if !self.display_name.is_empty() => {
                Ok(check_name(&self.display_name)?)
            }
            _ => Ok(check_text("display_name", &self.display_name)?),
        }
    }
}

/// A link for one device.
pub fn node_terms() -> Terms {
    Terms::of(Role::Node, "")
}

/// A challenge for one device with this common name.
pub fn challenge_terms(common_name: &str) -> Terms {
    Terms { protocol: Protocol::Challenge, ..Terms::of(Role::Node, common_name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_admin_makes_links_for_people_and_programs_and_an_auditor_makes_none() {
        for creator in [Role::Operator, Role::Cmdb] {
            assert_eq!(Terms::of(Role::Node, "").check(creator), Ok(()));
            for role in [Role::Admin, Role::Operator, Role::Auditor, Role::Cmdb, Role::Service] {
                let refused = Terms::of(role, "topology").check(creator);
                assert_eq!(refused, Err(TermsError::NotAllowed { creator, role }));
                assert_eq!(Terms::of(role, "topology").check(Role::Admin), Ok(()));
            }
        }
        assert_eq!(Terms::of(Role::Signer, "").check(Role::Admin), Err(TermsError::Role));
        for creator in [Role::Node, Role::Auditor] {
            assert!(Terms::of(Role::Node, "").check(creator).is_err());
        }
    }

    #[test]
    fn names_and_lifetimes_out_of_bounds_are_refused() {
        assert!(Terms::of(Role::Operator, "Alice Ä").check(Role::Admin).is_err());
        assert!(Terms::of(Role::Auditor, "../etc").check(Role::Admin).is_err());
        assert!(Terms::of(Role::Service, "mail").check(Role::Admin).is_err());
        let long = Terms { lifetime: MAX_LIFETIME * 2, ..node_terms() };
        assert_eq!(long.check(Role::Operator), Err(TermsError::Lifetime));
        let labels = Labels::from([("Site".to_owned(), "x".to_owned())]);
        assert!(Terms { labels, ..node_terms() }.check(Role::Operator).is_err());
    }

    #[test]
    fn only_nodes_share_a_link_and_only_one_that_is_no_single_devices() {
        let many = |role| Terms { use_limit: 2, ..Terms::of(role, "ada") };
        assert_eq!(many(Role::Node).check(Role::Operator), Ok(()));
        assert_eq!(many(Role::Operator).check(Role::Admin), Err(TermsError::Uses));
        let binding = Binding { hardware_serial: "S1".into(), ..Binding::default() };
        assert_eq!(Terms { binding, ..many(Role::Node) }.check(Role::Operator), Err(TermsError::Uses));
        assert_eq!(Terms { use_limit: 0, ..node_terms() }.check(Role::Operator), Err(TermsError::Uses));
        assert_eq!(challenge_terms("").check(Role::Operator), Err(TermsError::Challenge));
        assert_eq!(challenge_terms("printer-3").check(Role::Cmdb), Ok(()));
    }
}
