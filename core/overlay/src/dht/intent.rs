//! Everything that the table's machine can want from its shell, as one closed enum that the shell matches exhaustively.

use std::time::Duration;

use super::input::{CallId, OpId, Ticket};
use super::message::{Answer, Refusal, Request, Service};
use super::record::{Kind, Record};
use muster_types::Key;

#[derive(Debug, Clone, PartialEq)]
pub enum Intent<C> {
    /// Send a request. The machine keeps the time itself; what never comes needs no word.
    Ask { to: C, call: CallId, request: Request },
    /// Answer a request.
    Reply { to: C, ticket: Ticket, answer: Answer<C> },
    /// The end of a `Find`: the closest nodes that answered, closest first.
    Found { op: OpId, closest: Vec<C>, effort: Effort },
    /// The end of a `Get`; empty: no such key, after so many answers.
    Got { op: OpId, records: Vec<Record>, effort: Effort },
    /// The end of a `Put`.
    Put { op: OpId, kept: Kept<C>, effort: Effort },
    /// What is listened for has changed.
    Changed { op: OpId, record: Record },
    /// The end of an `AskOne`; `None`: no answer.
    Answered { op: OpId, answer: Option<Answer<C>> },
    /// Sign this own record anew and put it again: it expires soon.
    Renew { key: Key, kind: Kind },
    /// A contact that served has failed its pings; its LSN may want to know.
    Unreachable(C),
    /// What this node does for the table from now on; goes with every message.
    Serves(Service),
    /// The end of `Leave`.
    Parted,
}

/// Where a record is after a `Put`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept<C> {
    /// They have acknowledged it; with this node itself if it is one of the closest.
    pub holders: Vec<C>,
    pub by_this_node: bool,
    /// They were asked and said no.
    pub refused: Vec<(C, Refusal)>,
    /// They were asked and did not answer.
    pub silent: Vec<C>,
}

impl<C> Kept<C> {
    pub fn count(&self) -> usize {
        self.holders.len() + usize::from(self.by_this_node)
    }
}

/// What an operation took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effort {
    /// Nodes asked one after the other until the first value, or the closest node; the own LSN is not counted.
    pub hops: u32,
    pub asked: u32,
    pub answered: u32,
    pub lasted: Duration,
}
