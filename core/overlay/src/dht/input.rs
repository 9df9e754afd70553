//! Everything that can happen to the table's machine, as one closed enum.

use std::time::Duration;

use muster_types::Key;

use super::message::{Answer, Request, Sender};
use super::record::{Kind, Record};

/// An operation of this node's own; the shell numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// A request on its way; the machine numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u32);

/// Finds a request's asker again; the shell numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

#[derive(Debug, Clone, PartialEq)]
pub enum Input<C> {
    /// What this node is now; again whenever it changes.
    Standing(Standing<C>),
    /// Bootstrap nodes: always there, asked when nobody else answers, and now and then to find a lost half again.
    Bootstrap(Vec<C>),
    /// Contacts kept from an earlier life, or told by others. They count once they have answered.
    Remembered(Vec<C>),
    /// An authenticated message outside of the table's own came from a reachable node.
    Heard {
        from: Sender<C>,
        round_trip: Option<Duration>,
    },
    /// Somebody asks; answer by [`Intent::Reply`](super::Intent::Reply). Records in it are verified.
    Asked {
        from: Sender<C>,
        ticket: Ticket,
        request: Request,
    },
    /// The answer to [`Intent::Ask`](super::Intent::Ask), however late. Records in it are verified, false ones left out.
    Answered {
        from: Sender<C>,
        call: CallId,
        answer: Answer<C>,
    },
    /// The request could not be sent at all.
    Failed {
        call: CallId,
    },
    /// Find the nodes closest to a key.
    Find {
        op: OpId,
        target: Key,
        care: Care,
    },
    Get {
        op: OpId,
        key: Key,
        kind: Kind,
        wish: Wish,
        care: Care,
    },
    /// Store this at the nodes closest to its key.
    Put {
        op: OpId,
        record: Record,
        care: Care,
    },
    /// Be told when this changes, until [`Cancel`](Self::Cancel).
    Listen {
        op: OpId,
        key: Key,
        kind: Kind,
    },
    /// Ask one node one thing, as crawlers do.
    AskOne {
        op: OpId,
        to: C,
        request: Request,
    },
    Cancel {
        op: OpId,
    },
    /// The host slept: every outstanding request is void, every contact suspect.
    WokeUp,
    /// Hand over what others should hold; [`Intent::Parted`](super::Intent::Parted) follows within
    /// [`timing::PARTING_PATIENCE`](super::timing::PARTING_PATIENCE).
    Leave,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing<C> {
    /// Others have been seen to reach it from outside.
    pub reachable: bool,
    /// It is LSN, GSN or bootstrap node.
    pub office: bool,
    /// The LSN that a client asks first.
    pub lsn: Option<C>,
}

/// Which of several records of a publisher will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The first found.
    First,
    /// The newest that several holders know.
    Newest,
}

/// How a lookup guards against nodes that answer falsely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// One path.
    Plain,
    /// One path; nothing found: once more over disjoint ones.
    OnMiss,
    /// Disjoint paths at once.
    Disjoint,
}
