//! Enrollment links: made by an operator, redeemed by one key, or by as many as the link says; once by each.

use std::time::Duration;

use muster_types::{Timestamp, Token};
use rand::CryptoRng;

use super::request::KeyHash;

mod terms;

pub use terms::{
    Binding, DEFAULT_LIFETIME, MAX_LIFETIME, MAX_USES, Protocol, Terms, TermsError, challenge_terms,
    node_terms,
};

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
    pub revoke_time: Option<Timestamp>,
    pub use_count: u32,
    pub last_use: Option<LastUse>,
    pub contest: Option<Contest>,
}

/// The newest use of a link, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastUse {
    pub time: Timestamp,
    /// Resource name of whom it enrolled.
    pub enrolled: String,
}

/// A used link was presented by yet another key: somebody else has it too, and was perhaps the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contest {
    pub count: u32,
    pub time: Timestamp,
    /// Address and host name of who came too late.
    pub source: String,
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
    #[error("the link is for another device: its {0} is not the one the link names")]
    Bound(&'static str),
    #[error("this is {0}")]
    Protocol(&'static str),
}

/// How a link answers a key that presents its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redemption<'a> {
    First,
    /// The same key again: its answer was lost.
    Repeated(&'a Use),
}

/// What whoever presents a token says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Presenter<'a> {
    pub key: KeyHash,
    pub host_name: &'a str,
    pub hardware_serial: &'a str,
    pub protocol: Protocol,
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
            revoke_time: None,
            use_count: 0,
            last_use: None,
            contest: None,
        };
        (link, token)
    }

    /// `links/{id}`
    pub fn resource_name(&self) -> String {
        format!("links/{}", self.id)
    }

    fn is_used_up(&self) -> bool {
        self.use_count >= self.terms.use_limit
    }

    pub fn state(&self, now: Timestamp) -> LinkState {
        if self.revoke_time.is_some() {
            LinkState::Revoked
        } else if self.is_used_up() {
            LinkState::Used
        } else if now >= self.expire_time {
            LinkState::Expired
        } else {
            LinkState::Open
        }
    }

    /// Whether whoever presents the token and proves its key is enrolled. `usage` is that key's own, if there is one.
    ///
    /// # Errors
    /// The link is used up by other keys, expired, revoked, or for somebody else.
    pub fn redeem<'a>(
        &self,
        usage: Option<&'a Use>,
        who: Presenter<'_>,
        now: Timestamp,
    ) -> Result<Redemption<'a>, LinkRefusal> {
        if who.protocol != self.terms.protocol {
            return Err(LinkRefusal::Protocol(self.terms.protocol.about()));
        }
        match usage {
            _ if self.revoke_time.is_some() => Err(LinkRefusal::Revoked),
            Some(usage) if now.since(usage.time) <= REPEAT_WINDOW => Ok(Redemption::Repeated(usage)),
            Some(_) => Err(LinkRefusal::Used),
            None if self.is_used_up() => Err(LinkRefusal::Used),
            None if now >= self.expire_time => Err(LinkRefusal::Expired),
            None => self.terms.binding.check(who).map(|()| Redemption::First),
        }
    }

    /// A link that is not used up stops working; a used-up one stays as it is, so that whom it enrolled stays known.
    pub fn revoke(&mut self, now: Timestamp) {
        if self.revoke_time.is_none() && !self.is_used_up() {
            self.revoke_time = Some(now);
        }
    }

    /// Notes that `source` presented the link in vain, by a key that is none of those it enrolled.
    pub fn contested(&mut self, source: String, now: Timestamp) {
        let count = self.contest.as_ref().map_or(0, |contest| contest.count);
        self.contest = Some(Contest { count: count.saturating_add(1), time: now, source });
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

    fn link_of(terms: Terms) -> Link {
        Link::draw(terms, "operators/a".into(), NOW, &mut StdRng::seed_from_u64(1)).0
    }

    fn link() -> Link {
        link_of(node_terms())
    }

    fn used() -> (Link, Use) {
        let usage = Use { time: NOW, key: MINE, enrolled: "nodes/x".into(), certificate: vec![1] };
        (Link { use_count: 1, ..link() }, usage)
    }

    fn who(key: KeyHash) -> Presenter<'static> {
        Presenter { key, host_name: "till-7", hardware_serial: "S1", protocol: Protocol::Muster }
    }

    #[test]
    fn an_open_link_enrolls_until_it_expires() {
        assert_eq!(link().redeem(None, who(MINE), NOW), Ok(Redemption::First));
        assert_eq!(link().redeem(None, who(MINE), NOW + DEFAULT_LIFETIME), Err(LinkRefusal::Expired));
        assert_eq!(link().state(NOW + DEFAULT_LIFETIME), LinkState::Expired);
    }

    #[test]
    fn a_lost_answer_is_repeated_to_the_same_key_only_and_not_for_ever() {
        let (link, usage) = used();
        assert!(matches!(link.redeem(Some(&usage), who(MINE), NOW), Ok(Redemption::Repeated(_))));
        assert_eq!(link.redeem(None, who(HERS), NOW), Err(LinkRefusal::Used));
        let late = NOW + REPEAT_WINDOW + Duration::from_secs(1);
        assert_eq!(link.redeem(Some(&usage), who(MINE), late), Err(LinkRefusal::Used));
    }

    #[test]
    fn a_revoked_link_says_so_and_a_used_up_one_cannot_be_revoked() {
        let mut open = link();
        open.revoke(NOW);
        assert_eq!(open.redeem(None, who(MINE), NOW), Err(LinkRefusal::Revoked));
        let (mut spent, _) = used();
        spent.revoke(NOW);
        assert_eq!(spent, used().0);
    }

    #[test]
    fn a_link_for_images_works_as_often_as_it_says() {
        let mut image = link_of(Terms { use_limit: 3, ..node_terms() });
        image.use_count = 2;
        assert_eq!(image.redeem(None, who(HERS), NOW), Ok(Redemption::First));
        image.use_count = 3;
        assert_eq!(image.redeem(None, who(HERS), NOW), Err(LinkRefusal::Used));
        assert_eq!(image.state(NOW), LinkState::Used);
    }

    #[test]
    fn a_bound_link_is_for_its_host_serial_and_key_alone() {
        let bound = |binding| link_of(Terms { binding, ..node_terms() });
        let host = bound(Binding { host_name: "Till-7".into(), ..Binding::default() });
        assert_eq!(host.redeem(None, who(MINE), NOW), Ok(Redemption::First));
        let host = bound(Binding { host_name: "till-8".into(), ..Binding::default() });
        assert_eq!(host.redeem(None, who(MINE), NOW), Err(LinkRefusal::Bound("host name")));
        let serial = bound(Binding { hardware_serial: "S2".into(), ..Binding::default() });
        assert_eq!(serial.redeem(None, who(MINE), NOW), Err(LinkRefusal::Bound("serial number")));
        let key = bound(Binding { key: Some(HERS), ..Binding::default() });
        assert_eq!(key.redeem(None, who(MINE), NOW), Err(LinkRefusal::Bound("key")));
        assert_eq!(key.redeem(None, who(HERS), NOW), Ok(Redemption::First));
    }

    #[test]
    fn a_link_is_no_challenge_and_a_challenge_no_link() {
        let asked = Presenter { protocol: Protocol::Challenge, ..who(MINE) };
        assert!(matches!(link().redeem(None, asked, NOW), Err(LinkRefusal::Protocol(_))));
        let challenge = link_of(challenge_terms("CN=printer-3"));
        assert!(matches!(challenge.redeem(None, who(MINE), NOW), Err(LinkRefusal::Protocol(_))));
        assert_eq!(challenge.redeem(None, asked, NOW), Ok(Redemption::First));
    }
}
