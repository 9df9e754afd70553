//! Sessions and handshakes under way, by the index that datagrams name and by the peer's key. Bounded: when it is full,
//! the eighth that was not used for longest goes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use muster_types::Instant;
use snow::HandshakeState;

use super::peer::{NoiseKey, Peer};
use super::session::Session;

/// How long a handshake may wait for its reply before the next request begins another.
const HANDSHAKE: Duration = Duration::from_secs(1);

/// Handshakes that wait for replies.
const HANDSHAKES: usize = 1_024;

/// What is known of a peer beyond its sessions.
#[derive(Default)]
struct Link {
    current: Option<u32>,
    underway: Option<Underway>,
    /// Of its newest opening.
    stamp: u64,
}

/// An own opening without reply.
pub(super) struct Underway {
    pub(super) index: u32,
    pub(super) state: HandshakeState,
    pub(super) datagram: Vec<u8>,
    pub(super) at: SocketAddr,
    pub(super) began: Instant,
}

pub(super) struct Table {
    limit: usize,
    sessions: HashMap<u32, Session>,
    links: HashMap<NoiseKey, Link>,
    underway: HashMap<u32, NoiseKey>,
}

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, sessions: HashMap::new(), links: HashMap::new(), underway: HashMap::new() }
    }

    pub(super) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn has(&self, index: u32) -> bool {
        self.sessions.contains_key(&index) || self.underway.contains_key(&index)
    }

    pub(super) fn session(&mut self, index: u32) -> Option<&mut Session> {
        self.sessions.get_mut(&index)
    }

    /// The session by which new requests to this peer go.
    pub(super) fn fresh(&self, peer: &NoiseKey, now: Instant) -> Option<u32> {
        let index = self.links.get(peer)?.current?;
        self.sessions.get(&index).filter(|session| session.is_fresh(now)).map(|_| index)
    }

    pub(super) fn insert(&mut self, index: u32, session: Session) {
        if self.sessions.len() >= self.limit {
            self.drop_oldest();
        }
        self.links.entry(session.peer.key).or_default().current = Some(index);
        self.sessions.insert(index, session);
    }

    fn drop_oldest(&mut self) {
        let mut used: Vec<_> = self.sessions.iter().map(|(index, session)| (session.used, *index)).collect();
        used.sort_unstable();
        for (_, index) in used.into_iter().take((self.limit / 8).max(1)) {
            self.remove(index);
        }
    }

    pub(super) fn remove(&mut self, index: u32) {
        let Some(session) = self.sessions.remove(&index) else { return };
        let key = session.peer.key;
        if let Some(link) = self.links.get_mut(&key) {
            link.current = link.current.filter(|current| *current != index);
            self.tidy(&key);
        }
    }

    /// Whether an opening with this stamp is newer than all before it; takes it if so.
    pub(super) fn take_stamp(&mut self, peer: &NoiseKey, stamp: u64) -> bool {
        let link = self.links.entry(*peer).or_default();
        let newer = stamp > link.stamp;
        link.stamp = link.stamp.max(stamp);
        newer
    }

    /// Whether a handshake with this peer may still be answered.
    pub(super) fn is_underway(&self, peer: &NoiseKey, now: Instant) -> bool {
        let underway = self.links.get(peer).and_then(|link| link.underway.as_ref());
        underway.is_some_and(|underway| now.since(underway.began) < HANDSHAKE)
    }

    pub(super) fn begin(&mut self, peer: NoiseKey, underway: Underway, now: Instant) {
        if self.underway.len() >= HANDSHAKES {
            self.drop_handshakes(now);
        }
        let index = underway.index;
        if let Some(before) = self.links.entry(peer).or_default().underway.replace(underway) {
            self.underway.remove(&before.index);
        }
        self.underway.insert(index, peer);
    }

    pub(super) fn underway(&self, index: u32) -> Option<(NoiseKey, &Underway)> {
        let key = self.underway.get(&index)?;
        Some((*key, self.links.get(key)?.underway.as_ref()?))
    }

    /// Takes a handshake out, for its reply.
    pub(super) fn take_underway(&mut self, index: u32) -> Option<Underway> {
        let key = self.underway.remove(&index)?;
        self.links.get_mut(&key)?.underway.take()
    }

    /// Puts it back: the reply was not its.
    pub(super) fn put_back(&mut self, peer: NoiseKey, underway: Underway) {
        self.underway.insert(underway.index, peer);
        self.links.entry(peer).or_default().underway = Some(underway);
    }

    fn drop_handshakes(&mut self, now: Instant) {
        let links = &mut self.links;
        self.underway.retain(|_, key| {
            let Some(link) = links.get_mut(key) else { return false };
            let young = link.underway.as_ref().is_some_and(|u| now.since(u.began) < HANDSHAKE);
            if !young {
                link.underway = None;
            }
            young
        });
    }

    /// Ends what is over, and forgets peers of whom nothing is left.
    pub(super) fn expire(&mut self, now: Instant) {
        self.drop_handshakes(now);
        self.remove_where(|session| session.is_over(now));
        let sessions = &self.sessions;
        self.links.retain(|_, link| {
            link.underway.is_some() || link.current.is_some_and(|index| sessions.contains_key(&index))
        });
    }

    pub(super) fn forget(&mut self, whom: impl Fn(&Peer) -> bool) {
        self.remove_where(|session| whom(&session.peer));
    }

    fn remove_where(&mut self, over: impl Fn(&Session) -> bool) {
        let indexes: Vec<_> =
            self.sessions.iter().filter(|(_, session)| over(session)).map(|(index, _)| *index).collect();
        for index in indexes {
            self.remove(index);
        }
    }

    fn tidy(&mut self, key: &NoiseKey) {
        let empty = |link: &Link| link.current.is_none() && link.underway.is_none();
        if self.links.get(key).is_some_and(empty) {
            self.links.remove(key);
        }
    }
}
