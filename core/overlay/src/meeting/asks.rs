//! Which of the peer's probes are answered: each from where it was heard first, and not too many a second. Who repeats one
//! from elsewhere, with a source of his choice, gets nothing sent there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use muster_types::Instant;

use super::timing::{ANSWERS, ASKED};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Asks {
    /// Of the current second.
    since: Instant,
    answers: u32,
    /// Where the latest came from, at most [`ASKED`].
    heard: BTreeMap<u32, SocketAddr>,
}

impl Asks {
    /// Whether probe `number` from there is answered.
    pub(super) fn admit(&mut self, from: SocketAddr, number: u32, now: Instant) -> bool {
        if now.since(self.since) >= SECOND {
            (self.since, self.answers) = (now, 0);
        }
        if self.answers >= ANSWERS || self.heard.get(&number).is_some_and(|first| *first != from) {
            return false;
        }
        if self.heard.len() >= ASKED && !self.heard.contains_key(&number) {
            self.heard.pop_first();
        }
        self.heard.insert(number, from);
        self.answers += 1;
        true
    }

    /// The peer begins anew, and may count from zero.
    pub(super) fn forget(&mut self) {
        self.heard.clear();
    }
}
