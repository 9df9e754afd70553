//! Who waits for which operation, and what this node publishes.

use std::collections::{BTreeMap, HashMap};

use muster_overlay::dht::{Answer, Effort, Kept, Kind, OpId, Record};
use muster_types::{Key, NodeId};
use muster_wire::datagram::PeerAddress;
use muster_wire::record::Value;
use tokio::sync::oneshot;

use super::handle::{DhtError, Got};

/// Values that this node keeps renewing; more than it has of anything to say.
const PUBLISHED: usize = 256;

/// What to do with an operation's end.
pub(super) enum Waiter {
    Find(oneshot::Sender<(Vec<PeerAddress>, Effort)>),
    Get(Key, oneshot::Sender<Result<Got, DhtError>>),
    Put(oneshot::Sender<Result<(Kept<NodeId>, Effort), DhtError>>),
    One(oneshot::Sender<Option<Answer<NodeId>>>),
    Listen,
    /// Nobody waits: a renewal.
    Nobody,
}

#[derive(Default)]
pub(super) struct Operations {
    next: u64,
    waiters: HashMap<OpId, Waiter>,
    published: BTreeMap<(Key, Kind), Value>,
}

impl Operations {
    pub(super) fn begin(&mut self, waiter: Waiter) -> OpId {
        let op = OpId(self.next);
        self.next += 1;
        self.waiters.insert(op, waiter);
        op
    }

    pub(super) fn end(&mut self, op: OpId) -> Option<Waiter> {
        self.waiters.remove(&op)
    }

    pub(super) fn keep(&mut self, key: Key, value: Value) {
        if self.published.len() < PUBLISHED {
            self.published.insert((key, value.kind()), value);
        } else {
            tracing::warn!(%key, "not renewed: this node publishes too much already");
        }
    }

    pub(super) fn published(&self, key: Key, kind: Kind) -> Option<&Value> {
        self.published.get(&(key, kind))
    }

    /// What a `Put` came to, for who asked.
    pub(super) fn verdict(kept: Kept<NodeId>, effort: Effort) -> Result<(Kept<NodeId>, Effort), DhtError> {
        if kept.count() > 0 {
            return Ok((kept, effort));
        }
        let (refused, silent) = (kept.refused.len(), kept.silent.len());
        match kept.refused.first() {
            Some((_, first)) => {
                Err(DhtError::Refused { asked: refused + silent, refused, silent, first: *first })
            }
            None if silent > 0 => Err(DhtError::Silent { asked: silent }),
            None => Err(DhtError::NobodyThere),
        }
    }
}

/// What a `Get` found nothing of.
pub(super) fn missing(key: Key, effort: Effort) -> DhtError {
    let Effort { asked, answered, .. } = effort;
    if answered == 0 { DhtError::NobodyThere } else { DhtError::NoSuchKey { key, asked, answered } }
}

/// A record of this node's own, for those who look for it here.
pub(super) fn newest_first(records: &mut [Record]) {
    records.sort_by_key(|record| std::cmp::Reverse(record.sequence));
}
