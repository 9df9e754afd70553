//! Enrollment links: made by an operator, redeemed by one key, once.

use std::time::Duration;

use muster_types::{Role, Timestamp, Token};
use rand::CryptoRng;

use super::label::{LabelError, Labels, check_labels, check_name, check_text};
use super::request::KeyHash;
use super::signer::SERVICES;

/// Life of a link if nobody says otherwise.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(24 * 3_600);

/// The longest life of a link.
pub const MAX_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3_600);

/// How long after its use the answer is repeated to the key that got it: a device that lost it tries again within
/// minutes, or after the weekend.
pub const REPEAT_WINDOW: Duration = Duration::from_secs(4 * 24 * 3_600);

/// Random bytes of a link's id, which is public.
const ID_BYTES: usize = 8;

/// A link as auth keeps it: all but its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// 16 hexadecimal digits.
    pub id: String,
    pub token_hash: [u8; 32],
    pub terms: Terms,
    /// Resource name of who made it.
    pub creator: String,
    pub create_time: Timestamp,
    pub expire_time: Timestamp,
    pub fate: Fate,
}

/// What a link grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub role: Role,
    pub lifetime: Duration,
    pub labels: Labels,
    /// Of operators, CMDBs and services the name they get; of nodes a word for people.
    pub display_name: String,
}

/// What has become of a link. Expiry is not recorded: it follows from the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Unused,
    Used(Use),
    Revoked(Timestamp),
}

/// Who used a link, and the answer's certificate, in case the answer was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    pub time: Timestamp,
    pub key: KeyHash,
    /// Resource name of whom it enrolled.
    pub enrolled: String,
    /// DER
    pub certificate: Vec<u8>,
}

/// What a link is good for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    Open,
    Used,
    Expired,
    Revoked,
}

/// Why a link does not enroll.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkRefusal {
    #[error("the link was used already")]
    Used,
    #[error("the link has expired")]
    Expired,
    #[error("the link was revoked")]
    Revoked,
}

/// Why a link cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    #[error("a link is for a node, an operator, a CMDB or a service")]
    Role,
    #[error("{creator} may not make a link for a {role}")]
    NotAllowed { creator: Role, role: Role },
    #[error("a link lives at least a minute and at most 30 days")]
    Lifetime,
    #[error("a service link names one of {SERVICES:?} in display_name, which {0:?} is not")]
    Service(String),
    #[error("only a node has labels")]
    Labels,
    #[error(transparent)]
    Label(#[from] LabelError),
}

/// How a link answers a key that presents its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redemption<'a> {
    First,
    /// The same key again: its answer was lost.
    Repeated(&'a Use),
}

impl Terms {
    /// Checks what `creator` asks for.
    ///
    /// # Errors
    /// The creator's role may not make such a link, or something in it is not well formed.
    pub fn check(&self, creator: Role) -> Result<(), TermsError> {
        const SHORTEST: Duration = Duration::from_secs(60);
        // A CMDB brings devices in, never people or programs that command them.
        let allowed = match self.role {
            Role::Node => matches!(creator, Role::Operator | Role::Cmdb | Role::Service),
            Role::Operator | Role::Cmdb | Role::Service => matches!(creator, Role::Operator | Role::Service),
            Role::Signer => return Err(TermsError::Role),
        };
        if !allowed {
            return Err(TermsError::NotAllowed { creator, role: self.role });
        }
        if self.lifetime < SHORTEST || self.lifetime > MAX_LIFETIME {
            return Err(TermsError::Lifetime);
        }
        self.check_names()
    }

    fn check_names(&self) -> Result<(), TermsError> {
        check_labels(&self.labels)?;
        if self.role != Role::Node && !self.labels.is_empty() {
            return Err(TermsError::Labels);
        }
        match self.role {
            Role::Service if !SERVICES.contains(&self.display_name.as_str()) => {
                Err(TermsError::Service(self.display_name.chars().take(40).collect()))
            }
            Role::Operator | Role::Cmdb if !self.display_name.is_empty() => {
                Ok(check_name(&self.display_name)?)
            }
            _ => Ok(check_text("display_name", &self.display_name)?),
        }
    }
}

impl Link {
    /// A new link, and its token, which is not kept.
    pub fn draw(terms: Terms, creator: String, now: Timestamp, rng: &mut impl CryptoRng) -> (Self, Token) {
        let mut id = [0; ID_BYTES];
        rng.fill_bytes(&mut id);
        let mut token = [0; 16];
        rng.fill_bytes(&mut token);
        let token = Token::from_bytes(token);
        let link = Self {
            id: data_encoding::HEXLOWER.encode(&id),
            token_hash: token.hash(),
            expire_time: now + terms.lifetime,
            terms,
            creator,
            create_time: now,
            fate: Fate::Unused,
        };
        (link, token)
    }

    /// `links/{id}`
    pub fn resource_name(&self) -> String {
        format!("links/{}", self.id)
    }

    pub fn state(&self, now: Timestamp) -> LinkState {
        match self.fate {
            Fate::Used(_) => LinkState::Used,
            Fate::Revoked(_) => LinkState::Revoked,
            Fate::Unused if now >= self.expire_time => LinkState::Expired,
            Fate::Unused => LinkState::Open,
        }
    }

    /// Whether whoever presents the token and proves `key` is enrolled.
    ///
    /// # Errors
    /// The link is used by another key, expired or revoked.
    pub fn redeem(&self, key: KeyHash, now: Timestamp) -> Result<Redemption<'_>, LinkRefusal> {
        match &self.fate {
            Fate::Revoked(_) => Err(LinkRefusal::Revoked),
            Fate::Used(usage) if usage.key == key && now.since(usage.time) <= REPEAT_WINDOW => {
                Ok(Redemption::Repeated(usage))
            }
            Fate::Used(_) => Err(LinkRefusal::Used),
            Fate::Unused if now >= self.expire_time => Err(LinkRefusal::Expired),
            Fate::Unused => Ok(Redemption::First),
        }
    }

    /// An unused link stops working; a used one stays used, so that whom it enrolled stays known.
    pub fn revoke(&mut self, now: Timestamp) {
        if self.fate == Fate::Unused {
            self.fate = Fate::Revoked(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_795_000_000_000_000);
    const MINE: KeyHash = KeyHash([1; 32]);
    const HERS: KeyHash = KeyHash([2; 32]);

    fn terms(role: Role, display_name: &str) -> Terms {
        let display_name = display_name.to_owned();
        Terms { role, lifetime: DEFAULT_LIFETIME, labels: Labels::new(), display_name }
    }

    fn link() -> Link {
        Link::draw(terms(Role::Node, ""), "operators/a".into(), NOW, &mut StdRng::seed_from_u64(1)).0
    }

    fn used() -> Link {
        let usage = Use { time: NOW, key: MINE, enrolled: "nodes/x".into(), certificate: vec![1] };
        Link { fate: Fate::Used(usage), ..link() }
    }

    #[test]
    fn an_open_link_enrolls_until_it_expires() {
        assert_eq!(link().redeem(MINE, NOW), Ok(Redemption::First));
        assert_eq!(link().redeem(MINE, NOW + DEFAULT_LIFETIME), Err(LinkRefusal::Expired));
        assert_eq!(link().state(NOW + DEFAULT_LIFETIME), LinkState::Expired);
    }

    #[test]
    fn a_lost_answer_is_repeated_to_the_same_key_only_and_not_for_ever() {
        assert!(matches!(used().redeem(MINE, NOW), Ok(Redemption::Repeated(_))));
        assert_eq!(used().redeem(HERS, NOW), Err(LinkRefusal::Used));
        let late = NOW + REPEAT_WINDOW + Duration::from_secs(1);
        assert_eq!(used().redeem(MINE, late), Err(LinkRefusal::Used));
    }

    #[test]
    fn a_revoked_link_says_so_and_a_used_one_cannot_be_revoked() {
        let mut open = link();
        open.revoke(NOW);
        assert_eq!(open.redeem(MINE, NOW), Err(LinkRefusal::Revoked));
        let mut spent = used();
        spent.revoke(NOW);
        assert_eq!(spent, used());
    }

    #[test]
    fn a_cmdb_makes_links_for_nodes_and_nothing_above_itself() {
        assert_eq!(terms(Role::Node, "").check(Role::Cmdb), Ok(()));
        for role in [Role::Operator, Role::Cmdb, Role::Service] {
            let refused = terms(role, "topology").check(Role::Cmdb);
            assert_eq!(refused, Err(TermsError::NotAllowed { creator: Role::Cmdb, role }));
            assert_eq!(terms(role, "topology").check(Role::Operator), Ok(()));
        }
        assert_eq!(terms(Role::Signer, "").check(Role::Operator), Err(TermsError::Role));
        assert!(terms(Role::Node, "").check(Role::Node).is_err());
    }

    #[test]
    fn names_and_lifetimes_out_of_bounds_are_refused() {
        assert!(terms(Role::Operator, "Alice Ä").check(Role::Operator).is_err());
        assert!(terms(Role::Operator, "../etc").check(Role::Operator).is_err());
        assert!(terms(Role::Service, "mail").check(Role::Operator).is_err());
        let long = Terms { lifetime: MAX_LIFETIME * 2, ..terms(Role::Node, "") };
        assert_eq!(long.check(Role::Operator), Err(TermsError::Lifetime));
        let labels = Labels::from([("Site".to_owned(), "x".to_owned())]);
        assert!(Terms { labels, ..terms(Role::Node, "") }.check(Role::Operator).is_err());
    }
}
