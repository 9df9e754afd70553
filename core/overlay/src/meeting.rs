//! Two nodes on their way to each other: each tells the other where it may be found, both probe at once, and who is met
//! by the shortest way is talked to directly. Until then, and whenever that ends, a relay carries what they say.
//!
//! `Input::Told`, `Input::Probed` -> [`Meeting`] -> `Intent::Tell`, `Intent::Probe`, `Intent::Use`. Probes open holes in
//! translators (RFC 5128, section 3.3); a public end needs none, so that the other one reaches it: connection reversal.

use std::collections::VecDeque;
use std::net::SocketAddr;

use muster_types::Instant;

mod asks;
mod targets;
pub mod timing;
mod whereabouts;

use asks::Asks;
use targets::Targets;
use timing::{CARRIED, RETRIES, ROUND, ROUNDS, SETTLE, TELL_AGAIN, TELLS};

pub use targets::Tried;
pub use whereabouts::{Candidate, Kind, Ports, Whereabouts};

/// Who wanted it. The caller also decides which way is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Caller,
    Called,
}

/// A sealed datagram between the two. Whoever gets one knows that the peer sent it: the shell has opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// "Do you hear me?"
    Ask(u32),
    /// "I heard this one."
    Answer(u32),
}

/// What can happen to a meeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The peer said where it is; `answer`: in answer to this node's own word.
    Told { peer: Whereabouts, answer: bool },
    /// An authentic probe, and where it came from.
    Probed { from: SocketAddr, probe: Probe },
    /// A relay carries the two, or does not any more.
    Relay(bool),
    /// The direct way carries nothing any more.
    DirectLost,
    /// This node is elsewhere now, or knows better where it is.
    Moved(Whereabouts),
}

/// What a meeting wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// Say this to the peer by whatever way works.
    Tell { own: Whereabouts, answer: bool },
    /// From the very socket that sessions use.
    Probe { to: SocketAddr, probe: Probe },
    /// What sessions with the peer are to go by; `None`: nothing works.
    Use(Option<Way>),
}

/// What carries the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Relay,
    Direct(SocketAddr),
}

/// The machine of one pair at one end.
///
/// One mutating call, then [`poll_intent`](Self::poll_intent) until there is none; [`handle_timeout`](Self::handle_timeout)
/// when [`poll_timeout`](Self::poll_timeout) has come.
#[derive(Debug)]
pub struct Meeting {
    side: Side,
    own: Whereabouts,
    relay: bool,
    direct: Option<Direct>,
    targets: Targets,
    search: Option<Search>,
    /// Searches in a row that found nothing which carried for long.
    failures: usize,
    retry: Option<Instant>,
    asks: Asks,
    intents: VecDeque<Intent>,
}

/// A way that probes have shown.
#[derive(Debug, Clone, Copy)]
struct Direct {
    at: SocketAddr,
    since: Instant,
}

#[derive(Debug)]
struct Search {
    /// Done so far.
    rounds: u32,
    next_round: Instant,
    told: bool,
    tells: u32,
    next_tell: Instant,
    settle: Option<Instant>,
}

impl Meeting {
    /// Begins at once: the caller tells the peer where it is.
    pub fn call(own: Whereabouts, now: Instant) -> Self {
        let mut meeting = Self::new(Side::Caller, own);
        meeting.begin(now, None);
        meeting
    }

    /// Waits for what the caller says.
    pub fn called(own: Whereabouts) -> Self {
        Self::new(Side::Called, own)
    }

    fn new(side: Side, own: Whereabouts) -> Self {
        Self {
            side,
            own,
            relay: false,
            direct: None,
            targets: Targets::default(),
            search: None,
            failures: 0,
            retry: None,
            asks: Asks::default(),
            intents: VecDeque::new(),
        }
    }

    /// What carries the two now.
    pub fn way(&self) -> Option<Way> {
        let relay = self.relay.then_some(Way::Relay);
        self.direct.map(|direct| Way::Direct(direct.at)).or(relay)
    }

    /// Whether a direct way is being sought.
    pub fn is_searching(&self) -> bool {
        self.search.is_some()
    }

    /// Where the peer was sought in the last search, for people.
    pub fn tried(&self) -> Vec<Tried> {
        self.targets.tried()
    }

    /// The next thing that the meeting wants.
    pub fn poll_intent(&mut self) -> Option<Intent> {
        self.intents.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        let Some(search) = &self.search else { return self.retry };
        let round = self.has_rounds(search).then_some(search.next_round);
        let tell = (!search.told).then_some(search.next_tell);
        [round, tell, search.settle].into_iter().flatten().min()
    }

    pub fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Told { peer, answer } => self.on_told(&peer, answer, now),
            Input::Probed { from, probe: Probe::Ask(number) } => self.on_ask(from, number, now),
            Input::Probed { from, probe: Probe::Answer(number) } => self.on_answer(from, number, now),
            Input::Relay(open) => self.on_relay(open),
            Input::DirectLost => self.on_lost(now),
            Input::Moved(own) => {
                self.own = own;
                self.failures = 0;
                self.begin(now, None);
            }
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.search.is_none() {
            if self.retry.is_some_and(|retry| retry <= now) {
                self.begin(now, None);
            }
            return;
        }
        self.tell_again(now);
        if self.search.as_ref().and_then(|search| search.settle).is_some_and(|settle| settle <= now) {
            return self.settle(now);
        }
        self.next_round(now);
    }

    /// A search anew; in answer to the peer's word if there is one.
    fn begin(&mut self, now: Instant, peer: Option<&Whereabouts>) {
        self.retry = None;
        self.targets.clear();
        let told = peer.is_some();
        let (next_round, next_tell) = (now, now + TELL_AGAIN);
        self.search = Some(Search { rounds: 0, next_round, told, tells: 1, next_tell, settle: None });
        self.intents.push_back(Intent::Tell { own: self.own.clone(), answer: told });
        if let Some(peer) = peer {
            self.targets.told(peer);
            self.next_round(now);
        }
    }

    fn on_told(&mut self, peer: &Whereabouts, answer: bool, now: Instant) {
        if !answer {
            self.asks.forget();
        }
        match &mut self.search {
            Some(search) => {
                search.told = true;
                let first = self.targets.is_empty();
                self.targets.told(peer);
                if first && !self.targets.is_empty() {
                    (search.rounds, search.next_round) = (0, now);
                }
                // Both called at once, or an answer was lost: the peer waits for a word.
                if !answer {
                    self.intents.push_back(Intent::Tell { own: self.own.clone(), answer: true });
                }
                self.next_round(now);
            }
            None if !answer => self.begin(now, Some(peer)),
            // Of a search that is over.
            None => {}
        }
    }

    /// It came from where it came from: that is where it is answered, and probed, whatever was told.
    fn on_ask(&mut self, from: SocketAddr, number: u32, now: Instant) {
        if !self.asks.admit(from, number, now) {
            return;
        }
        self.intents.push_back(Intent::Probe { to: from, probe: Probe::Answer(number) });
        if self.search.is_some() && self.targets.met(from) {
            self.probe(from, now);
        }
    }

    fn on_answer(&mut self, from: SocketAddr, number: u32, now: Instant) {
        if self.targets.answered(from, number, now)
            && let Some(search) = &mut self.search
        {
            search.settle.get_or_insert(now + SETTLE);
        }
    }

    fn on_relay(&mut self, open: bool) {
        let before = self.way();
        self.relay = open;
        if self.way() != before {
            self.intents.push_back(Intent::Use(self.way()));
        }
    }

    /// One that carried is sought again at once. One that did not is none although probes pass, and searches for it would
    /// find it each time: they become ever rarer.
    fn on_lost(&mut self, now: Instant) {
        let Some(direct) = self.direct.take() else { return };
        self.intents.push_back(Intent::Use(self.way()));
        // Another one is being sought already.
        if self.search.is_some() {
            return;
        }
        if now.since(direct.since) < CARRIED {
            return self.fail(now);
        }
        self.failures = 0;
        self.begin(now, None);
    }

    fn tell_again(&mut self, now: Instant) {
        let Some(search) = &mut self.search else { return };
        if search.told || search.next_tell > now {
            return;
        }
        if search.tells < TELLS {
            search.tells += 1;
            search.next_tell = now + TELL_AGAIN;
            self.intents.push_back(Intent::Tell { own: self.own.clone(), answer: false });
        } else {
            self.fail(now);
        }
    }

    /// A peer that named nobody to probe may yet be met, within the same time.
    fn has_rounds(&self, search: &Search) -> bool {
        search.told || !self.targets.is_empty()
    }

    fn next_round(&mut self, now: Instant) {
        if self.search.as_ref().is_none_or(|search| search.next_round > now || !self.has_rounds(search)) {
            return;
        }
        let Some(search) = self.search.as_mut().filter(|search| search.rounds < ROUNDS) else {
            return self.fail(now);
        };
        let round = search.rounds;
        search.rounds += 1;
        search.next_round = now + ROUND;
        for at in self.targets.of_round(round) {
            self.probe(at, now);
        }
    }

    fn probe(&mut self, to: SocketAddr, now: Instant) {
        let number = self.targets.ask(to, now);
        self.intents.push_back(Intent::Probe { to, probe: Probe::Ask(number) });
    }

    /// Takes the best of those that answered.
    fn settle(&mut self, now: Instant) {
        self.search = None;
        let standing = self.direct;
        self.direct = self.targets.best().map(|at| {
            let since = standing.filter(|known| known.at == at).map_or(now, |known| known.since);
            Direct { at, since }
        });
        self.intents.push_back(Intent::Use(self.way()));
    }

    /// Found nothing; the caller tries again one day.
    fn fail(&mut self, now: Instant) {
        self.search = None;
        let pause = RETRIES[self.failures.min(RETRIES.len() - 1)];
        self.failures += 1;
        self.retry = (self.side == Side::Caller).then(|| now + pause);
    }
}

#[cfg(test)]
mod tests;
