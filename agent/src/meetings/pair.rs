//! One peer that is being met, or was: its machine, its keys, its relay, and who wants to know how it goes.

use std::net::SocketAddr;
use std::time::Duration;

use muster_net::{Path, Session, Side as SessionSide};
use muster_overlay::meeting::{Input, Kind, Meeting, Tried, Way};
use muster_types::NodeId;
use muster_wire::meeting::ProbeKeys;
use muster_wire::sealing::KEY_BYTES;
use tokio::sync::mpsc;
use tokio::time::Instant;

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
    pub(super) began: Instant,
    /// `None` until this node knows where it is itself.
    pub(super) meeting: Option<Meeting>,
    pub(super) keys: Option<ProbeKeys>,
    pub(super) sealing: Sealing,
    /// Relays that the two may use, by name.
    pub(super) relays: Vec<String>,
    /// Behind which the peer is.
    pub(super) behind: Option<(String, Path)>,
    pub(super) session: Option<Session>,
    /// An attempt of this node's is under way.
    pub(super) dialling: bool,
    /// The last failure, for people.
    pub(super) trouble: String,
    /// When the channel at the relay is asked for again: its ticket runs out, or the relay is gone.
    pub(super) reopen: Option<Instant>,
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
            began: Instant::now(),
            meeting: None,
            keys: None,
            sealing: Sealing::Unknown,
            relays: Vec::new(),
            behind: None,
            session: None,
            dialling: false,
            trouble: String::new(),
            reopen: None,
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
