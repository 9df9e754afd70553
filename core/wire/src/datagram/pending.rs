//! Own requests that wait for their answers: bounded, and told by number.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use muster_types::Instant;

use super::peer::{NoiseKey, PeerAddress};

/// Whoever asked has given up long before.
const LIFETIME: Duration = Duration::from_secs(10);

pub(super) struct Waiting {
    pub(super) to: PeerAddress,
    pub(super) body: Bytes,
    /// By which session it went; `None`: with a handshake, or not yet.
    pub(super) session: Option<u32>,
    since: Instant,
}

#[derive(Default)]
pub(super) struct Pending {
    waiting: HashMap<u32, Waiting>,
    next: u32,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn add(&mut self, to: PeerAddress, body: Bytes, now: Instant) -> u32 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.waiting.insert(number, Waiting { to, body, session: None, since: now });
        number
    }

    pub(super) fn waiting(&mut self, number: u32) -> Option<&mut Waiting> {
        self.waiting.get_mut(&number)
    }

    /// The request that this peer was asked, and nobody else.
    pub(super) fn of_peer(&mut self, number: u32, peer: &NoiseKey) -> Option<&mut Waiting> {
        self.waiting.get_mut(&number).filter(|waiting| waiting.to.key == *peer)
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<Waiting> {
        self.waiting.remove(&number)
    }

    /// What could not go out before there was a session with this peer, oldest first.
    pub(super) fn unsent(&self, peer: &NoiseKey) -> Vec<u32> {
        let unsent = self.waiting.iter().filter(|(_, w)| w.to.key == *peer && w.session.is_none());
        let mut numbers: Vec<_> = unsent.map(|(number, waiting)| (waiting.since, *number)).collect();
        numbers.sort_unstable();
        numbers.into_iter().map(|(_, number)| number).collect()
    }

    /// The sessions that requests wait on.
    pub(super) fn sessions(&self) -> BTreeSet<u32> {
        self.waiting.values().filter_map(|waiting| waiting.session).collect()
    }

    /// Requests that went by this session.
    pub(super) fn by_session(&self, index: u32) -> Vec<u32> {
        let sent = self.waiting.iter().filter(|(_, waiting)| waiting.session == Some(index));
        sent.map(|(number, _)| *number).collect()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.waiting.retain(|_, waiting| now.since(waiting.since) < LIFETIME);
    }
}
