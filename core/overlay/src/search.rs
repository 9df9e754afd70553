//! Looking for an LSN: the local network first, then memory, then topology (specification, section 4: Join).
//! Claims flow in from all three; candidates flow out, best first, each once.

use muster_types::NodeId;
use rand::Rng;

use crate::claim::{Claim, Tenure};
use crate::intent::Intent;
use crate::line::Line;
use crate::message::LsnQuery;
use crate::standing::Uptime;
use crate::timer::Timer;
use crate::timing::{DEFERENCE, DEFERENCES, MASTER_PATIENCE, QUERIES, QUERY_INTERVAL, RECALL_PATIENCE};
use crate::turn::Turn;

/// Candidates waiting for their turn. More claims than this for one subnet are rubbish or an attack; the best stay.
const CANDIDATES: usize = 16;
/// Tenures that did not take us in. When it is full the oldest may be tried again.
const TRIED: usize = 32;

/// What the search has come to.
#[derive(Debug)]
pub(crate) enum Quest {
    Wait,
    Candidate(Box<Claim>),
    Nobody,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Lan {
        asked: u32,
    },
    Memory,
    Topology {
        again: bool,
    },
    /// Those who come first in the line of succession may claim.
    Line,
    /// A better node looks too, and may go first.
    Deferring {
        times: u32,
    },
}

impl Default for Source {
    fn default() -> Self {
        Self::Lan { asked: 0 }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Search {
    source: Source,
    nonce: u32,
    candidates: Vec<Claim>,
    tried: Vec<Tenure>,
    better_searcher: bool,
    line: Line,
}

impl Search {
    pub(crate) fn new(turn: &mut Turn<'_>) -> Self {
        Self { nonce: turn.rng.random(), ..Self::default() }
    }

    /// Of a node that has lost its LSN.
    pub(crate) fn after(line: Line, turn: &mut Turn<'_>) -> Self {
        Self { line, ..Self::new(turn) }
    }

    /// Whom to call together as LSN.
    pub(crate) fn take_line(&mut self) -> Line {
        std::mem::take(&mut self.line)
    }

    /// Gives out the next candidate, or asks the source that is due.
    pub(crate) fn proceed(&mut self, turn: &mut Turn<'_>) -> Quest {
        if let Some(claim) = self.next_candidate() {
            return Quest::Candidate(Box::new(claim));
        }
        match self.source {
            Source::Lan { asked } if asked < QUERIES => {
                self.source = Source::Lan { asked: asked + 1 };
                self.query(turn);
                turn.set(Timer::Search, QUERY_INTERVAL);
            }
            Source::Lan { .. } => {
                self.source = Source::Memory;
                turn.intend(Intent::Recall);
                turn.set(Timer::Search, RECALL_PATIENCE);
            }
            Source::Memory => self.ask_topology(false, turn),
            Source::Topology { again: false } if !self.line.wait().is_zero() => {
                self.source = Source::Line;
                turn.set(Timer::Search, self.line.wait());
            }
            Source::Line => self.ask_topology(true, turn),
            Source::Topology { .. } => return self.defer(1, turn),
            Source::Deferring { times } => return self.defer(times + 1, turn),
        }
        Quest::Wait
    }

    /// A source has answered, with nothing perhaps. Answers that come late are welcome too.
    pub(crate) fn on_answer(&mut self, claims: Vec<Claim>, source_done: bool, turn: &mut Turn<'_>) -> Quest {
        let found = !claims.is_empty();
        claims.into_iter().for_each(|claim| self.add(claim, turn.own.node));
        if found || source_done {
            return self.proceed(turn);
        }
        Quest::Wait
    }

    pub(crate) fn on_recalled(&mut self, claims: Vec<Claim>, turn: &mut Turn<'_>) -> Quest {
        let done = self.source == Source::Memory;
        self.on_answer(claims, done, turn)
    }

    pub(crate) fn on_master_answered(&mut self, claims: Vec<Claim>, turn: &mut Turn<'_>) -> Quest {
        let done = matches!(self.source, Source::Topology { .. });
        self.on_answer(claims, done, turn)
    }

    /// Somebody else looks, too: when nobody is there, the better of us becomes LSN.
    pub(crate) fn on_query(&mut self, query: &LsnQuery, turn: &Turn<'_>) {
        let rank = |uptime: Uptime, node: NodeId| (uptime, std::cmp::Reverse(node));
        let own = rank(turn.own.uptime, turn.own.node);
        self.better_searcher |= rank(query.uptime, query.node) > own;
    }

    /// Keeps a claim for its turn, unless that tenure was tried.
    pub(crate) fn add(&mut self, claim: Claim, own: NodeId) {
        if claim.claimant.node == own || self.tried.contains(&claim.tenure()) {
            return;
        }
        self.candidates.retain(|known| known.tenure() != claim.tenure() && !claim.succeeds(known));
        if self.candidates.iter().any(|known| known.succeeds(&claim)) {
            return;
        }
        let place = self.candidates.partition_point(|known| known.prevails_over(&claim));
        self.candidates.insert(place, claim);
        self.candidates.truncate(CANDIDATES);
    }

    pub(crate) fn note_tried(&mut self, tenure: Tenure) {
        if self.tried.len() == TRIED {
            self.tried.remove(0);
        }
        self.tried.push(tenure);
    }

    fn ask_topology(&mut self, again: bool, turn: &mut Turn<'_>) {
        self.source = Source::Topology { again };
        turn.intend(Intent::AskMaster);
        turn.set(Timer::Search, MASTER_PATIENCE);
    }

    fn next_candidate(&mut self) -> Option<Claim> {
        (!self.candidates.is_empty()).then(|| self.candidates.remove(0))
    }

    fn defer(&mut self, times: u32, turn: &mut Turn<'_>) -> Quest {
        if !self.better_searcher || times > DEFERENCES {
            return Quest::Nobody;
        }
        // The better one has to be heard again, or it has gone.
        self.better_searcher = false;
        self.source = Source::Deferring { times };
        self.query(turn);
        turn.set(Timer::Search, DEFERENCE);
        Quest::Wait
    }

    fn query(&self, turn: &mut Turn<'_>) {
        let query = turn.own.query(self.nonce);
        turn.intend(Intent::Multicast(query));
    }
}
