//! One host's part in a task: its states, and which of its reports are here.

use std::collections::BTreeSet;

use muster_types::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use super::opaque::Opaque;
use super::task::TaskId;

/// Reports of one target that may be ahead of a missing one; what comes further ahead is not taken and sent again.
const AHEAD: usize = 1_024;

/// States in the order of the contract; all from `Succeeded` on are terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    Queued = 1,
    Delivered,
    Started,
    Succeeded,
    Failed,
    TimedOut,
    Rejected,
    Cancelled,
    Expired,
    /// The host died between STARTED and its durable result.
    Lost,
}

impl TargetState {
    pub const ALL: [Self; 10] = [
        Self::Queued,
        Self::Delivered,
        Self::Started,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Rejected,
        Self::Cancelled,
        Self::Expired,
        Self::Lost,
    ];

    /// States below this one are open.
    pub const FIRST_TERMINAL: Self = Self::Succeeded;

    pub fn is_terminal(self) -> bool {
        self >= Self::FIRST_TERMINAL
    }

    pub fn number(self) -> i64 {
        self as i64
    }

    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.number() == number)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Delivered => "delivered",
            Self::Started => "started",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Lost => "lost",
        }
    }
}

/// How a target ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    pub reason_code: String,
    pub reason: String,
    /// The host's own word, as it sent it; empty where the master decided.
    pub word: Opaque,
}

/// Which of the numbered reports are here: all up to one, and some ahead of it. The first is number 1.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Received {
    upto: u64,
    ahead: BTreeSet<u64>,
}

impl Received {
    /// Every report up to this one is here.
    pub fn upto(&self) -> u64 {
        self.upto
    }

    /// Whether the report is new, and can be taken.
    fn note(&mut self, sequence: u64) -> bool {
        if sequence <= self.upto || self.ahead.contains(&sequence) {
            return false;
        }
        if sequence != self.upto + 1 {
            return self.ahead.len() < AHEAD && self.ahead.insert(sequence);
        }
        self.upto = sequence;
        while self.ahead.remove(&(self.upto + 1)) {
            self.upto += 1;
        }
        true
    }

    /// Whether the report is new, where it is the last there will be: a host that died in between has forgotten what is
    /// missing before it.
    fn close(&mut self, sequence: u64) -> bool {
        if sequence <= self.upto {
            return false;
        }
        self.upto = sequence;
        self.ahead.clear();
        true
    }
}

/// What a report says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Delivered,
    Started,
    Output(Opaque),
    Progress(Opaque),
    Finished(TargetState, Ending),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub task: TaskId,
    pub node: NodeId,
    /// Which of the task's signed orders names it.
    pub part: u32,
    pub state: TargetState,
    pub updated: Timestamp,
    pub received: Received,
    pub ending: Option<Ending>,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Here already, or too far ahead.
    Not,
    /// To be logged; the state stays.
    Noted,
    /// To be logged; the state changed.
    Moved,
}

impl Target {
    pub fn queued(task: TaskId, node: NodeId, part: u32, now: Timestamp) -> Self {
        let state = TargetState::Queued;
        Self { task, node, part, state, updated: now, received: Received::default(), ending: None }
    }

    /// Takes a report. States only rise, and the first terminal one stays.
    pub fn take(&mut self, sequence: u64, step: &Step, now: Timestamp) -> Taken {
        let is_new = match step {
            Step::Finished(TargetState::Lost, _) => self.received.close(sequence),
            _ => self.received.note(sequence),
        };
        if !is_new {
            return Taken::Not;
        }
        let (state, ending) = match step {
            Step::Delivered => (TargetState::Delivered, None),
            Step::Started => (TargetState::Started, None),
            Step::Finished(state, ending) if state.is_terminal() => (*state, Some(ending.clone())),
            Step::Finished(..) | Step::Output(_) | Step::Progress(_) => return Taken::Noted,
        };
        if self.state.is_terminal() || state <= self.state {
            return Taken::Noted;
        }
        (self.state, self.ending, self.updated) = (state, ending, now);
        Taken::Moved
    }

    /// The master ends it, unless it has ended.
    pub fn end(&mut self, state: TargetState, reason_code: &str, reason: &str, now: Timestamp) -> bool {
        if self.state.is_terminal() {
            return false;
        }
        self.state = state;
        self.updated = now;
        self.ending = Some(Ending {
            reason_code: reason_code.to_owned(),
            reason: reason.to_owned(),
            word: Opaque::default(),
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target::queued(TaskId::default(), NodeId([1; 20]), 0, Timestamp::default())
    }

    fn finished(state: TargetState) -> Step {
        let ending = Ending { reason_code: String::new(), reason: String::new(), word: Opaque::default() };
        Step::Finished(state, ending)
    }

    #[test]
    fn the_first_terminal_report_wins() {
        let (mut target, now) = (target(), Timestamp::from_micros(1));
        assert_eq!(target.take(1, &Step::Delivered, now), Taken::Moved);
        assert_eq!(target.take(2, &finished(TargetState::Failed), now), Taken::Moved);
        assert_eq!(target.take(3, &finished(TargetState::Succeeded), now), Taken::Noted);
        assert_eq!(target.state, TargetState::Failed);
        assert!(!target.end(TargetState::Expired, "EXPIRED", "", now));
    }

    #[test]
    fn a_repeated_report_is_taken_once() {
        let (mut target, now) = (target(), Timestamp::from_micros(1));
        assert_eq!(target.take(1, &Step::Started, now), Taken::Moved);
        assert_eq!(target.take(1, &Step::Started, now), Taken::Not);
        assert_eq!(target.received.upto(), 1);
    }

    #[test]
    fn a_gap_holds_the_acknowledgement_back_until_it_is_filled() {
        let (mut target, now) = (target(), Timestamp::from_micros(1));
        assert_eq!(target.take(1, &Step::Delivered, now), Taken::Moved);
        assert_eq!(target.take(3, &finished(TargetState::Succeeded), now), Taken::Moved);
        assert_eq!(target.received.upto(), 1);
        assert_eq!(target.take(2, &Step::Started, now), Taken::Noted);
        assert_eq!(target.received.upto(), 3);
        assert_eq!(target.state, TargetState::Succeeded);
    }

    #[test]
    fn the_word_of_a_host_that_died_is_acknowledged_whatever_is_missing_before_it() {
        let (mut target, now) = (target(), Timestamp::from_micros(1));
        assert_eq!(target.take(1, &Step::Started, now), Taken::Moved);
        assert_eq!(target.take(3, &Step::Output(Opaque::default()), now), Taken::Noted);
        assert_eq!(target.take(1 << 20, &finished(TargetState::Lost), now), Taken::Moved);
        assert_eq!(target.received.upto(), 1 << 20);
        assert_eq!(target.take(1 << 20, &finished(TargetState::Lost), now), Taken::Not);
    }

    #[test]
    fn what_is_too_far_ahead_is_not_taken() {
        let (mut target, now) = (target(), Timestamp::from_micros(1));
        for sequence in 2..2 + AHEAD as u64 {
            assert_eq!(target.take(sequence, &Step::Output(Opaque::default()), now), Taken::Noted);
        }
        assert_eq!(target.take(5_000, &Step::Output(Opaque::default()), now), Taken::Not);
    }
}
