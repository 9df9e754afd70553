//! Whether topology shows this child. Its signed words flow in, by way of an LSN that may lie; out flows the question by
//! a channel of this node's own, when they stay away.

use std::time::Duration;

use muster_types::{Instant, NodeId};
use rand::{Rng, RngCore};

use super::Node;
use crate::intent::Intent;
use crate::timer::Timer;
use crate::timing::{
    RECEIPT_ATTEMPT, RECEIPT_PATIENCE, RECEIPT_RETRY, RECEIPT_TURN, RECEIPT_TURN_MAX, WORD_HOLDS,
    WORD_HOLDS_MAX,
};

impl Node {
    pub(super) fn on_receipt(&mut self, lsn: NodeId, now: Instant, rng: &mut dyn RngCore) {
        if self.membership().is_some_and(|membership| membership.lsn() == lsn) {
            self.is_shown(now, rng);
        }
    }

    /// A word that names no LSN stands for a receipt that is old, and not for the one that a new attach waits for.
    pub(super) fn on_vouched(&mut self, now: Instant, rng: &mut dyn RngCore) {
        let waits = self.timers.is_set(Timer::Receipt) && !self.receipt_is_old;
        // What comes by a channel of its own says nothing about the LSN.
        if self.membership().is_some() && !waits && !self.master {
            self.is_shown(now, rng);
        }
    }

    /// The LSN says that this node is gone; whether that was an error or a lie, topology has to hear the node itself.
    pub(super) fn on_missed(&mut self, now: Instant, rng: &mut dyn RngCore) {
        if self.membership().is_some() && !self.master {
            tracing::info!(node = %self.own.node, "topology was told that this node is gone: attaching to it");
            self.lsn_lacks_master = false;
            self.want_receipt(now, rng);
        }
    }

    /// Nothing that topology signed has come for long. The LSN is asked to show this node once more; one that hides it has no
    /// new word to pass on, and none of its old ones counts.
    pub(super) fn on_old_word(&mut self, now: Instant, rng: &mut dyn RngCore) {
        if self.membership().is_some() {
            self.receipt_is_old = true;
            self.renew(now, rng);
            self.timers.set(Timer::Receipt, now + RECEIPT_PATIENCE);
        }
    }

    fn is_shown(&mut self, now: Instant, rng: &mut dyn RngCore) {
        self.timers.stop(Timer::Receipt);
        self.timers.set(Timer::Standing, now + rng.random_range(WORD_HOLDS..=WORD_HOLDS_MAX));
        (self.receipt_looks, self.receipt_is_old) = (0, false);
        self.let_go_of_master();
    }

    /// "A hidden node goes to topology itself after 5 s" (design, section 2: Presence), and asks its LSN again. Where the
    /// LSN has no channel, or topology is not reached from here either, nobody is hidden: the cell's nodes look in turns.
    pub(super) fn want_receipt(&mut self, now: Instant, rng: &mut dyn RngCore) {
        let pause = match (self.master, self.attached) {
            (true, true) => {
                self.renew(now, rng);
                RECEIPT_RETRY
            }
            (true, false) => {
                self.let_go_of_master();
                self.receipt_pause(rng)
            }
            (false, _) if self.lsn_lacks_master && self.receipt_looks == 0 => self.receipt_pause(rng),
            (false, _) => {
                self.master = true;
                self.intents.push_back(Intent::AttachMaster(None));
                if !self.lsn_lacks_master {
                    self.renew(now, rng);
                }
                RECEIPT_ATTEMPT
            }
        };
        self.timers.set(Timer::Receipt, now + pause);
    }

    /// A turn for each node of the cell, longer from round to round.
    fn receipt_pause(&mut self, rng: &mut dyn RngCore) -> Duration {
        self.receipt_looks += 1;
        let cell = self.neighbors().map_or(0, |list| list.neighbors.len()) + 1;
        let turn = RECEIPT_TURN.saturating_mul(1 << self.receipt_looks.min(16)).min(RECEIPT_TURN_MAX);
        let round = turn.saturating_mul(u32::try_from(cell).unwrap_or(u32::MAX));
        rng.random_range(round / 2..=round)
    }

    /// The LSN's word about its own channel. When it has one again, the receipt is due as after an attach.
    pub(super) fn on_lsns_word(&mut self, lacks_master: bool, now: Instant) {
        let found_again = std::mem::replace(&mut self.lsn_lacks_master, lacks_master) && !lacks_master;
        if found_again && self.timers.is_set(Timer::Receipt) && !self.master {
            self.receipt_looks = 0;
            self.timers.set(Timer::Receipt, now + RECEIPT_PATIENCE);
        }
    }
}
