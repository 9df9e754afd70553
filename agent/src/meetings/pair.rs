//! One peer that is being met, or was: its machine, its keys, its relay, and who wants to know how it goes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use muster_kit::backoff::Backoff;
use muster_net::{Path, Session, Side as SessionSide};
use muster_overlay::meeting::{Input, Kind, Meeting, Tried, Way};
use muster_types::{Instant, NodeId};
use muster_wire::call::RELAYS;
use muster_wire::meeting::ProbeKeys;
use muster_wire::sealing::KEY_BYTES;
use tokio::sync::mpsc;

/// A peer that was announced and never called is forgotten after this.
const UNBEGUN: Duration = Duration::from_secs(60);

/// How far a meeting is, for whoever asked for it.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// As `Path::as_str`, or "none".
    pub(crate) path: &'static str,
    pub(crate) remote: String,
    pub(crate) elapsed: Duration,
    pub(crate) round_trip: Option<Duration>,
    /// Nothing better is to be expected now.
    pub(crate) settled: bool,
    pub(crate) tried: Vec<Tried>,
    pub(crate) reason: String,
}

/// The key that calls to the peer are sealed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sealing {
    Sought,
    Known([u8; KEY_BYTES]),
    /// Nobody tells it: calls go open.
    Unknown,
}

pub(super) struct Pair {
    pub(super) number: u64,
    pub(super) began: tokio::time::Instant,
    /// `None` until this node knows where it is itself.
    pub(super) meeting: Option<Meeting>,
    pub(super) keys: Option<ProbeKeys>,
    pub(super) sealing: Sealing,
    /// Relays that the two may use, by name, at most [`RELAYS`].
    pub(super) relays: Vec<String>,
    /// Those at which this node is about to sit down, at most as many.
    pub(super) attending: BTreeSet<String>,
    /// A channel is being asked for.
    pub(super) asking: bool,
    /// Behind which the peer is.
    pub(super) behind: Option<(String, Path)>,
    pub(super) session: Option<Session>,
    /// An attempt of this node's is under way.
    pub(super) dialling: bool,
    /// The last failure, for people.
    pub(super) trouble: String,
    /// When the channel at the relay is asked for again: its ticket runs out, or the relay is gone.
    pub(super) reopen: Option<Instant>,
    /// How long it waits if that fails again.
    pub(super) backoff: Backoff,
    pub(super) watchers: Vec<mpsc::Sender<Progress>>,
    /// The other end wanted it.
    pub(super) called: bool,
    /// What the peer said before this node knew where it is itself.
    pub(super) unheard: Option<Input>,
}

impl Pair {
    pub(super) fn new(number: u64, called: bool) -> Self {
        Self {
            number,
            began: tokio::time::Instant::now(),
            meeting: None,
            keys: None,
            sealing: Sealing::Unknown,
            relays: Vec::new(),
            attending: BTreeSet::new(),
            asking: false,
            behind: None,
            session: None,
            dialling: false,
            trouble: String::new(),
            reopen: None,
            backoff: Backoff::new(),
            watchers: Vec::new(),
            called,
            unheard: None,
        }
    }

    /// Everything that goes into a call is known, or known to be missing.
    pub(super) fn can_call(&self) -> bool {
        self.sealing != Sealing::Sought && !(self.relays.is_empty() && self.trouble.is_empty())
    }

    pub(super) fn sealing_key(&self) -> Option<&[u8; KEY_BYTES]> {
        match &self.sealing {
            Sealing::Known(key) => Some(key),
            Sealing::Sought | Sealing::Unknown => None,
        }
    }

    /// From the beginning, as the one that wants it.
    pub(super) fn begin(&mut self) {
        (self.began, self.called, self.meeting) = (tokio::time::Instant::now(), false, None);
        self.trouble.clear();
    }

    /// The peer's newest word counts: what it named longest ago gives way.
    pub(super) fn add_relays(&mut self, named: &[String]) {
        for name in named {
            if !self.relays.contains(name) {
                self.relays.push(name.clone());
            }
        }
        self.relays.drain(..self.relays.len().saturating_sub(RELAYS));
    }

    /// The way failed; the next try waits longer than this one did.
    pub(super) fn try_later(&mut self, now: Instant) {
        self.reopen = Some(now + self.backoff.next_delay(&mut rand::rng()));
    }

    /// When its timer is to be kept.
    pub(super) fn due(&self) -> Option<Instant> {
        let machine = self.meeting.as_ref().and_then(Meeting::poll_timeout);
        machine.into_iter().chain(self.reopen).min()
    }

    /// Only who dialled a relayed session gives it further paths.
    pub(super) fn movable(&self) -> Option<&Session> {
        let session = self.session.as_ref()?;
        (session.is_relayed() && session.side() == SessionSide::Dialled).then_some(session)
    }

    /// The direct address that the machine wants used.
    pub(super) fn wanted(&self) -> Option<SocketAddr> {
        match self.meeting.as_ref()?.way()? {
            Way::Direct(at) => Some(at),
            Way::Relay => None,
        }
    }

    fn is_searching(&self) -> bool {
        self.meeting.as_ref().is_none_or(Meeting::is_searching)
    }

    /// What to tell those who wait.
    pub(super) fn progress(&self) -> Progress {
        let path = self.session.as_ref().map(Session::path);
        let direct = path.is_some_and(|path| !matches!(path, Path::Relay(_)));
        let remote = match (path.and_then(|path| path.remote()), &self.behind) {
            (Some(remote), _) => remote.to_string(),
            (None, Some((relay, _))) if path.is_some() => relay.clone(),
            _ => String::new(),
        };
        let moving = self.dialling || (path.is_some() && !direct && self.wanted().is_some());
        let settled = direct || (!self.is_searching() && !moving);
        let tried = self.meeting.as_ref().map(Meeting::tried).unwrap_or_default();
        // Guesses that found nobody say nothing.
        let tried = tried.into_iter().filter(|it| it.kind != Kind::Foreseen || it.round_trip.is_some());
        Progress {
            path: path.map_or("none", |path| path.as_str()),
            remote,
            elapsed: self.began.elapsed(),
            round_trip: self.session.as_ref().and_then(Session::rtt),
            settled,
            tried: tried.collect(),
            reason: if path.is_some() && direct { String::new() } else { self.trouble.clone() },
        }
    }

    /// Tells everybody who waits; who has heard the end waits no longer.
    pub(super) fn report(&mut self) {
        let progress = self.progress();
        self.watchers.retain(|watcher| watcher.try_send(progress.clone()).is_ok() && !progress.settled);
    }

    /// Somebody wants it again after it came to nothing.
    pub(super) fn is_idle_but_watched(&self) -> bool {
        self.session.is_none() && !self.dialling && self.meeting.as_ref().is_some_and(|it| !it.is_searching())
    }

    /// Nobody needs it any more.
    pub(super) fn is_idle(&self) -> bool {
        let begun = self.meeting.is_some() || self.began.elapsed() < UNBEGUN;
        let searching = self.is_searching() && begun;
        self.session.is_none() && self.watchers.is_empty() && !self.dialling && !searching
    }
}

/// What a closed session leaves behind.
pub(super) fn closed(pair: &mut Pair, peer: NodeId, reason: &str) {
    tracing::debug!(peer = %peer.short(), reason, "a session of a meeting ended");
    pair.session = None;
    pair.trouble = reason.to_owned();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_names_ever_more_relays_is_known_by_its_latest() {
        let mut pair = Pair::new(7, true);
        for number in 0..100 {
            pair.add_relays(&[format!("relay-{number}"), "relay-99".to_owned()]);
        }
        assert_eq!(pair.relays.len(), RELAYS);
        assert!(pair.relays.contains(&"relay-98".to_owned()), "{:?}", pair.relays);
    }

    #[test]
    fn a_relay_that_refuses_is_asked_ever_more_seldom_until_it_carries() {
        let (mut pair, mut now, mut tries) = (Pair::new(7, false), Instant::ZERO, 0);
        while now < Instant::ZERO + Duration::from_secs(3_600) {
            pair.try_later(now);
            now = pair.reopen.unwrap();
            tries += 1;
        }
        assert!((100..500).contains(&tries), "{tries} tries in an hour");
    }
}
