//! What a node asks of strangers before it spends an elliptic curve's time on them: a mac that shows they know whom
//! they talk to, and under load a cookie that shows they own their address.

use std::net::SocketAddr;
use std::time::Duration;

use muster_types::Instant;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use super::frame::{MAC_BYTES, NONCE_BYTES, SEALED_COOKIE_BYTES};
use super::peer::NoiseKey;

/// Openings a second that are answered without a cookie. Each costs about 0.3 ms, so this is 6 % of a core.
const OPENINGS: u32 = 200;

/// How long a secret makes cookies; they are taken for as long again (WireGuard's 120 s).
const SECRET_LIFETIME: Duration = Duration::from_secs(120);

pub(super) type Mac = [u8; MAC_BYTES];

/// The key that everybody who knows a node can make mac1 with.
pub(super) fn mac1_key(of: &NoiseKey) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, digest(&SHA256, &[&b"muster mac1"[..], of].concat()).as_ref())
}

pub(super) fn mac(key: &hmac::Key, covered: &[u8]) -> Mac {
    let mut mac = [0; MAC_BYTES];
    mac.copy_from_slice(&hmac::sign(key, covered).as_ref()[..MAC_BYTES]);
    mac
}

/// Compares in constant time.
pub(super) fn mac_fits(key: &hmac::Key, covered: &[u8], actual: &[u8]) -> bool {
    // The tag is cut, so it is compared by a mac of both.
    let own = mac(key, covered);
    let again = hmac::sign(key, &own);
    hmac::verify(key, actual, again.as_ref()).is_ok()
}

/// mac2: the opening's bytes under the cookie that its receiver gave.
pub(super) fn mac2(cookie: &Mac, covered: &[u8]) -> Mac {
    mac(&hmac::Key::new(hmac::HMAC_SHA256, cookie), covered)
}

/// Seals cookies of the node with this key; who asked is bound by its mac1.
pub(super) struct CookieSeal(LessSafeKey);

impl CookieSeal {
    pub(super) fn new(of: &NoiseKey) -> Option<Self> {
        let key = digest(&SHA256, &[&b"muster cookie"[..], of].concat());
        UnboundKey::new(&CHACHA20_POLY1305, key.as_ref()).ok().map(|key| Self(LessSafeKey::new(key)))
    }

    fn seal(&self, nonce: [u8; NONCE_BYTES], cookie: &Mac, mac1: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = cookie.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.seal_in_place_append_tag(nonce, Aad::from(mac1), &mut sealed).ok()?;
        Some(sealed)
    }

    pub(super) fn open(&self, nonce: [u8; NONCE_BYTES], sealed: &[u8], mac1: &[u8]) -> Option<Mac> {
        let mut sealed: [u8; SEALED_COOKIE_BYTES] = sealed.try_into().ok()?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let cookie = self.0.open_in_place(nonce, Aad::from(mac1), &mut sealed).ok()?;
        (&*cookie).try_into().ok()
    }
}

/// The receiving side's memory: two secrets and a count.
pub(super) struct Challenger {
    mac1: hmac::Key,
    seal: Option<CookieSeal>,
    secret: hmac::Key,
    before: hmac::Key,
    drawn: Instant,
    second: u64,
    openings: u32,
    random: SystemRandom,
}

impl Challenger {
    pub(super) fn new(own: &NoiseKey, now: Instant) -> Self {
        let random = SystemRandom::new();
        let (secret, before) = (fresh(&random), fresh(&random));
        let (mac1, seal) = (mac1_key(own), CookieSeal::new(own));
        Self { mac1, seal, secret, before, drawn: now, second: 0, openings: 0, random }
    }

    /// Whether the sender of these bytes knows whom it writes to.
    pub(super) fn knows_us(&self, covered: &[u8], mac1: &[u8]) -> bool {
        mac_fits(&self.mac1, covered, mac1)
    }

    /// Counts an opening; `true`: so many came within this second that strangers prove their address first.
    pub(super) fn is_busy(&mut self, now: Instant) -> bool {
        let second = now.elapsed().as_secs();
        if second != self.second {
            (self.second, self.openings) = (second, 0);
        }
        self.openings = self.openings.saturating_add(1);
        self.openings > OPENINGS
    }

    /// Whether mac2 was made with the cookie for this source.
    pub(super) fn owns_address(
        &mut self,
        from: SocketAddr,
        covered: &[u8],
        mac2: &[u8],
        now: Instant,
    ) -> bool {
        self.turn(now);
        [&self.secret, &self.before].into_iter().any(|secret| {
            let cookie = hmac::Key::new(hmac::HMAC_SHA256, &cookie_for(secret, from));
            mac_fits(&cookie, covered, mac2)
        })
    }

    /// A cookie for this source, sealed.
    pub(super) fn cookie(
        &mut self,
        from: SocketAddr,
        mac1: &[u8],
        now: Instant,
    ) -> Option<([u8; NONCE_BYTES], Vec<u8>)> {
        self.turn(now);
        let mut nonce = [0; NONCE_BYTES];
        self.random.fill(&mut nonce).ok()?;
        let sealed = self.seal.as_ref()?.seal(nonce, &cookie_for(&self.secret, from), mac1)?;
        Some((nonce, sealed))
    }

    /// What only who receives at this address can return.
    pub(super) fn token(&mut self, from: SocketAddr, index: u32, now: Instant) -> u64 {
        self.turn(now);
        token_for(&self.secret, from, index)
    }

    pub(super) fn accepts_token(&mut self, token: u64, from: SocketAddr, index: u32, now: Instant) -> bool {
        self.turn(now);
        [&self.secret, &self.before].into_iter().any(|secret| token_for(secret, from, index) == token)
    }

    fn turn(&mut self, now: Instant) {
        if now.since(self.drawn) >= SECRET_LIFETIME {
            self.before = std::mem::replace(&mut self.secret, fresh(&self.random));
            self.drawn = now;
        }
    }
}

fn fresh(random: &SystemRandom) -> hmac::Key {
    let mut bytes = [0; 32];
    // Without randomness no handshake succeeds either; then no cookie is worth anything.
    let _ = random.fill(&mut bytes);
    hmac::Key::new(hmac::HMAC_SHA256, &bytes)
}

fn cookie_for(secret: &hmac::Key, from: SocketAddr) -> Mac {
    mac(secret, from.to_string().as_bytes())
}

fn token_for(secret: &hmac::Key, from: SocketAddr, index: u32) -> u64 {
    let mac = mac(secret, format!("{from} {index}").as_bytes());
    u64::from_be_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], mac[6], mac[7]])
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: NoiseKey = [7; 32];

    fn source(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn a_cookie_serves_its_own_source_and_not_for_ever() {
        let mut challenger = Challenger::new(&KEY, Instant::ZERO);
        let (nonce, sealed) = challenger.cookie(source(1), b"mac1", Instant::ZERO).unwrap();
        let cookie = CookieSeal::new(&KEY).unwrap().open(nonce, &sealed, b"mac1").unwrap();
        let mac2 = mac2(&cookie, b"opening");
        let at = |seconds| Instant::from_elapsed(Duration::from_secs(seconds));
        assert!(challenger.owns_address(source(1), b"opening", &mac2, at(1)));
        assert!(!challenger.owns_address(source(2), b"opening", &mac2, at(1)));
        assert!(!challenger.owns_address(source(1), b"another", &mac2, at(1)));
        assert!(challenger.owns_address(source(1), b"opening", &mac2, at(121)));
        assert!(!challenger.owns_address(source(1), b"opening", &mac2, at(242)));
    }

    #[test]
    fn a_cookie_is_read_only_by_who_asked_for_it() {
        let mut challenger = Challenger::new(&KEY, Instant::ZERO);
        let (nonce, sealed) = challenger.cookie(source(1), b"mac1", Instant::ZERO).unwrap();
        let seal = CookieSeal::new(&KEY).unwrap();
        assert!(seal.open(nonce, &sealed, b"other mac1").is_none());
        assert!(CookieSeal::new(&[8; 32]).unwrap().open(nonce, &sealed, b"mac1").is_none());
    }

    #[test]
    fn a_crowd_within_one_second_makes_busy_and_the_next_second_does_not() {
        let mut challenger = Challenger::new(&KEY, Instant::ZERO);
        let busy = (0..=OPENINGS).filter(|_| challenger.is_busy(Instant::ZERO)).count();
        assert_eq!(busy, 1);
        assert!(!challenger.is_busy(Instant::from_elapsed(Duration::from_secs(1))));
    }

    #[test]
    fn a_mac_fits_its_bytes_and_its_key_alone() {
        let key = mac1_key(&KEY);
        let right = mac(&key, b"covered");
        assert!(mac_fits(&key, b"covered", &right));
        assert!(!mac_fits(&key, b"uncovered", &right));
        assert!(!mac_fits(&mac1_key(&[8; 32]), b"covered", &right));
        assert!(!mac_fits(&key, b"covered", &[]));
    }
}
