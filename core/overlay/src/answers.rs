//! A deputy's answers to LAN queries, each after a random wait: they matter only when the LSN is gone.

use std::collections::VecDeque;
use std::net::SocketAddr;

use muster_types::Instant;

use crate::claim::Claim;
use crate::intent::Intent;
use crate::message::Discovery;
use crate::timer::Timer;
use crate::timing::{DEPUTY_ANSWER_MAX, DEPUTY_ANSWER_MIN};
use crate::turn::Turn;

/// Answers waiting at once. A querying node asks again, and there is another deputy.
const WAITING: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Answers(VecDeque<(Instant, SocketAddr)>);

impl Answers {
    pub(crate) fn owe(&mut self, to: SocketAddr, turn: &mut Turn<'_>) {
        if self.0.len() < WAITING && self.0.iter().all(|&(_, owed)| owed != to) {
            let due = turn.now + turn.between(DEPUTY_ANSWER_MIN, DEPUTY_ANSWER_MAX);
            let place = self.0.partition_point(|&(other, _)| other <= due);
            self.0.insert(place, (due, to));
            turn.timers.set_earliest(Timer::Answer, due);
        }
    }

    pub(crate) fn on_timer(&mut self, claim: &Claim, turn: &mut Turn<'_>) {
        while let Some((_, to)) = self.0.pop_front_if(|(due, _)| *due <= turn.now) {
            turn.intend(Intent::Answer { to, discovery: Discovery::Claim(claim.clone()) });
        }
        if let Some(&(due, _)) = self.0.front() {
            turn.timers.set(Timer::Answer, due);
        }
    }
}
