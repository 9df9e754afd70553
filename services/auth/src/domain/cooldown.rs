//! The pause that a source must make after presenting tokens that nobody issued.
//!
//! 128-bit tokens are not guessed; the pause keeps those who try from costing us a look into the store each time.
//! Only unknown tokens count: a whole office behind one address may hold a used or expired link in good faith.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use muster_types::{Instant, Prefix};

/// Unknown tokens that a source may present before it must pause.
pub const FREE_FAILURES: u32 = 5;

/// The first pause; it doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Sources remembered; the one that failed longest ago makes room.
const SOURCES: usize = 10_000;

/// An IPv6 host owns a /64.
const IPV6_SOURCE_BITS: u8 = 64;

/// Who failed when, and how often.
#[derive(Debug, Default)]
pub struct Cooldown {
    sources: HashMap<Prefix, Failures>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    fn pause(self) -> Duration {
        match self.count.checked_sub(FREE_FAILURES) {
            None => Duration::ZERO,
            Some(beyond) => (FIRST_PAUSE * 2u32.saturating_pow(beyond.min(16))).min(LONGEST_PAUSE),
        }
    }
}

impl Cooldown {
    /// How long `source` has to wait yet; `None` if it need not.
    pub fn wait(&self, source: IpAddr, now: Instant) -> Option<Duration> {
        let failures = self.sources.get(&key(source))?;
        failures.pause().checked_sub(now.since(failures.last)).filter(|left| !left.is_zero())
    }

    /// `source` presented a token that nobody issued.
    pub fn on_failure(&mut self, source: IpAddr, now: Instant) {
        let key = key(source);
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&key) {
            self.forget_oldest();
        }
        let failures = self.sources.entry(key).or_insert(Failures { count: 0, last: now });
        if now.since(failures.last) > LONGEST_PAUSE {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
    }

    fn forget_oldest(&mut self) {
        let oldest = self.sources.iter().min_by_key(|(_, failures)| failures.last).map(|(key, _)| *key);
        if let Some(oldest) = oldest {
            self.sources.remove(&oldest);
        }
    }
}

fn key(source: IpAddr) -> Prefix {
    match source.to_canonical() {
        ip @ IpAddr::V4(_) => Prefix::of(ip, 32),
        ip @ IpAddr::V6(_) => Prefix::of(ip, IPV6_SOURCE_BITS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Instant {
        Instant::from_elapsed(Duration::from_secs(seconds))
    }

    #[test]
    fn the_sixth_unknown_token_waits_and_each_further_one_waits_longer() {
        let mut cooldown = Cooldown::default();
        let source = "192.0.2.1".parse().unwrap();
        for _ in 0..4 {
            cooldown.on_failure(source, at(0));
            assert_eq!(cooldown.wait(source, at(0)), None);
        }
        cooldown.on_failure(source, at(0));
        assert_eq!(cooldown.wait(source, at(0)), Some(FIRST_PAUSE));
        cooldown.on_failure(source, at(2));
        assert_eq!(cooldown.wait(source, at(3)), Some(Duration::from_secs(3)));
        assert_eq!(cooldown.wait(source, at(6)), None);
        assert_eq!(cooldown.wait("192.0.2.2".parse().unwrap(), at(0)), None);
    }

    #[test]
    fn addresses_of_one_ipv6_host_are_one_source() {
        let mut cooldown = Cooldown::default();
        for host in 1..=5u16 {
            cooldown.on_failure(format!("2001:db8::{host:x}").parse().unwrap(), at(0));
        }
        assert!(cooldown.wait("2001:db8::99".parse().unwrap(), at(0)).is_some());
        assert!(cooldown.wait("2001:db8:0:1::99".parse().unwrap(), at(0)).is_none());
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest() {
        let mut cooldown = Cooldown::default();
        for n in 0..=u32::try_from(SOURCES).unwrap() {
            cooldown.on_failure(IpAddr::from(n.to_be_bytes()), at(u64::from(n)));
        }
        assert_eq!(cooldown.sources.len(), SOURCES);
        assert!(!cooldown.sources.contains_key(&key(IpAddr::from([0, 0, 0, 0]))));
    }
}
