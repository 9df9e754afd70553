//! To whom this endpoint wrote lately, by IP address: what comes from there proves nothing about who else may write here,
//! since translators and firewalls let in whom one has written to.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// For how long it is remembered: longer than translators do, as they are asked to (RFC 4787, REQ-5: two minutes at least).
const MEMORY: Duration = Duration::from_secs(600);

/// Addresses that are told apart. Who writes to more has written to everybody, as far as proof is concerned.
const ADDRESSES: usize = 4_096;

#[derive(Debug)]
struct Ledger {
    last: HashMap<IpAddr, Instant>,
    /// When there was no room for one: from then on everybody counts as written to.
    overflow: Option<Instant>,
}

/// The memory; clones of its `Arc` are the same.
#[derive(Debug)]
pub(crate) struct Sent(Mutex<Ledger>);

impl Default for Sent {
    fn default() -> Self {
        Self(Mutex::new(Ledger { last: HashMap::new(), overflow: None }))
    }
}

impl Sent {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, to: IpAddr) {
        self.note_at(to, Instant::now());
    }

    /// How long ago something last went to that address. `None`: not within ten minutes.
    pub(crate) fn ago(&self, to: IpAddr) -> Option<Duration> {
        self.ago_at(to, Instant::now())
    }

    fn note_at(&self, to: IpAddr, now: Instant) {
        let mut ledger = self.lock();
        if let Some(last) = ledger.last.get_mut(&to) {
            *last = now;
            return;
        }
        if ledger.last.len() >= ADDRESSES {
            ledger.last.retain(|_, last| now.duration_since(*last) < MEMORY);
        }
        if ledger.last.len() < ADDRESSES {
            ledger.last.insert(to, now);
        } else {
            ledger.overflow = Some(now);
        }
    }

    fn ago_at(&self, to: IpAddr, now: Instant) -> Option<Duration> {
        let ledger = self.lock();
        let last = ledger.last.get(&to).max(ledger.overflow.as_ref())?;
        Some(now.duration_since(*last)).filter(|ago| *ago < MEMORY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn whom_one_wrote_to_is_remembered_for_ten_minutes() {
        let (sent, now, later) = (Sent::default(), Instant::now(), Duration::from_secs(5));
        assert_eq!(sent.ago_at(ip(1), now), None);
        sent.note_at(ip(1), now);
        assert_eq!(sent.ago_at(ip(1), now + later), Some(later));
        assert_eq!(sent.ago_at(ip(2), now + later), None);
        assert_eq!(sent.ago_at(ip(1), now + MEMORY), None);
    }

    #[test]
    fn who_writes_to_more_than_it_can_remember_is_quiet_to_nobody() {
        let (sent, now) = (Sent::default(), Instant::now());
        for number in 0..=u32::try_from(ADDRESSES).unwrap() {
            sent.note_at(ip(number), now);
        }
        assert!(sent.ago_at(ip(u32::MAX), now).is_some());
        sent.note_at(ip(7), now + MEMORY);
        assert_eq!(sent.ago_at(ip(u32::MAX), now + MEMORY), None);
    }
}
