//! Where the peer is sought: what it told, what was met, what is foreseen, and which of them answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use muster_types::Instant;

use muster_types::limits::ADDRESSES;

use super::timing::{ASKED, FORESEEN, GUESSING_ROUNDS, MET};
use super::whereabouts::{Kind, Whereabouts};

/// One address that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    pub at: SocketAddr,
    pub kind: Kind,
    pub probes: u32,
    /// Of the first answer.
    pub round_trip: Option<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct Targets {
    table: BTreeMap<SocketAddr, Tried>,
    asked: BTreeMap<u32, (SocketAddr, Instant)>,
    next: u32,
}

impl Targets {
    /// A new search: what was learnt before is forgotten, but for the numbers.
    pub(super) fn clear(&mut self) {
        self.table.clear();
        self.asked.clear();
    }

    pub(super) fn told(&mut self, peer: &Whereabouts) {
        for candidate in peer.candidates() {
            self.add(candidate.at, candidate.kind);
        }
        for at in peer.foreseen() {
            self.add(at, Kind::Foreseen);
        }
    }

    /// An authentic probe came from there. `true`: nobody has been asked there yet, and there is room for it.
    pub(super) fn met(&mut self, at: SocketAddr) -> bool {
        self.add(at, Kind::Met);
        self.table.get(&at).is_some_and(|tried| tried.probes == 0)
    }

    /// What is beyond its kind's share is left out: a search costs no more, however often the peer speaks.
    fn add(&mut self, at: SocketAddr, kind: Kind) {
        let full =
            self.table.values().filter(|tried| share(tried.kind) == share(kind)).count() >= share(kind).1;
        match self.table.get_mut(&at) {
            // A guess that was right stays a guess.
            Some(known) if known.kind == Kind::Foreseen && kind == Kind::Met => {}
            Some(known) if share(known.kind) == share(kind) || !full => known.kind = known.kind.min(kind),
            None if !full => {
                self.table.insert(at, Tried { at, kind, probes: 0, round_trip: None });
            }
            _ => {}
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Whom to probe in this round.
    pub(super) fn of_round(&self, round: u32) -> Vec<SocketAddr> {
        let due = self.table.values().filter(|tried| tried.kind != Kind::Foreseen || round < GUESSING_ROUNDS);
        due.map(|tried| tried.at).collect()
    }

    /// The number of a probe to `at`.
    pub(super) fn ask(&mut self, at: SocketAddr, now: Instant) -> u32 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        if self.asked.len() >= ASKED {
            self.asked.pop_first();
        }
        self.asked.insert(number, (at, now));
        if let Some(tried) = self.table.get_mut(&at) {
            tried.probes += 1;
        }
        number
    }

    /// Somebody at `from` says that it got probe `number`. `false`: it was not sent there, so a translator lies between
    /// or somebody repeats what is old.
    pub(super) fn answered(&mut self, from: SocketAddr, number: u32, now: Instant) -> bool {
        let Some((at, since)) = self.asked.get(&number).copied() else { return false };
        if at != from {
            return false;
        }
        self.asked.remove(&number);
        if let Some(tried) = self.table.get_mut(&at) {
            tried.round_trip.get_or_insert(now.since(since));
        }
        true
    }

    /// The one to talk to: the best kind, then the nearest.
    pub(super) fn best(&self) -> Option<SocketAddr> {
        let answered =
            self.table.values().filter_map(|tried| Some((tried.kind, tried.round_trip?, tried.at)));
        answered.min().map(|(.., at)| at)
    }

    pub(super) fn tried(&self) -> Vec<Tried> {
        self.table.values().copied().collect()
    }
}

/// With which kinds one shares room, and how much of it.
fn share(kind: Kind) -> (Kind, usize) {
    match kind {
        Kind::Host | Kind::Reflexive => (Kind::Host, ADDRESSES),
        Kind::Met => (Kind::Met, MET),
        Kind::Foreseen => (Kind::Foreseen, FORESEEN.into()),
    }
}
