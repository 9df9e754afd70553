//! Two LSNs in one cell: each compares the other's claim with its own (specification, section 4). The loser proves that
//! it can reach the winner by becoming its child, and only then gives up its own; the winner shows itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use muster_types::{Instant, NodeId};

use crate::claim::Claim;
use crate::intent::Intent;
use crate::message::{Discovery, Message};
use crate::timer::Timer;
use crate::timing::{RIVAL_PAUSE, YIELD_PATIENCE};
use crate::turn::Turn;

/// Rivals remembered at once; when more appear, the one whose pause ends first is forgotten.
const RIVALS: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Contest {
    yielding: Option<Claim>,
    /// It can be reached, and has been asked.
    asked: bool,
    /// Left alone until then: shown our claim, or not reached.
    paused: BTreeMap<NodeId, Instant>,
}

impl Contest {
    /// The better LSN that this one is asking to take it in.
    pub(crate) fn winner(&self) -> Option<&Claim> {
        self.yielding.as_ref()
    }

    /// The same, once it is known to live: an LSN about to become a child itself takes nobody new along, or three that
    /// yield in a circle would all end as children.
    pub(crate) fn asked_winner(&self) -> Option<&Claim> {
        self.yielding.as_ref().filter(|_| self.asked)
    }

    pub(crate) fn on_rival(
        &mut self,
        own: &Claim,
        rival: Claim,
        heard: Option<SocketAddr>,
        turn: &mut Turn<'_>,
    ) {
        if rival.claimant.node == own.claimant.node || !self.is_news(&rival, turn.now) {
            return;
        }
        if rival.prevails_over(own) {
            if self.yielding.as_ref().is_none_or(|winner| rival.prevails_over(winner)) {
                turn.set(Timer::Yield, YIELD_PATIENCE);
                turn.intend(Intent::Open(rival.claimant.clone()));
                (self.yielding, self.asked) = (Some(rival), false);
            }
            return;
        }
        self.pause(rival.claimant.node, turn.now);
        if let Some(to) = heard {
            turn.intend(Intent::Answer { to, discovery: Discovery::Claim(own.clone()) });
        }
        turn.intend(Intent::Open(rival.claimant));
    }

    pub(crate) fn on_opened(&mut self, own: &Claim, peer: NodeId, turn: &mut Turn<'_>) {
        match &self.yielding {
            Some(winner) if winner.claimant.node == peer => {
                self.asked = true;
                turn.send(peer, Message::Join(turn.own.join(winner.tenure())));
            }
            _ if self.paused.contains_key(&peer) => turn.send(peer, Message::Claim(own.clone())),
            _ => {}
        }
    }

    /// The winner cannot be reached, or does not take this node in: two cells, as long as that lasts.
    pub(crate) fn give_up(&mut self, peer: Option<NodeId>, turn: &mut Turn<'_>) {
        let Some(winner) =
            self.yielding.take_if(|winner| peer.is_none_or(|peer| peer == winner.claimant.node))
        else {
            return;
        };
        turn.timers.stop(Timer::Yield);
        turn.intend(Intent::Close(winner.claimant.node));
        self.pause(winner.claimant.node, turn.now);
    }

    fn is_news(&self, rival: &Claim, now: Instant) -> bool {
        self.paused.get(&rival.claimant.node).is_none_or(|&until| until <= now)
    }

    fn pause(&mut self, rival: NodeId, now: Instant) {
        self.paused.retain(|_, until| *until > now);
        if self.paused.len() >= RIVALS {
            let first = self.paused.iter().min_by_key(|(_, until)| **until).map(|(&node, _)| node);
            first.map(|node| self.paused.remove(&node));
        }
        self.paused.insert(rival, now + RIVAL_PAUSE);
    }
}
