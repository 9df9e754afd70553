//! What is kept of a candidate: who it is, what it did so far, and what became of it.

use std::time::Duration;

use muster_types::{Address, NodeId, SubnetKey, Timestamp};
use serde::{Deserialize, Serialize};

/// Reliability follows what happens with this time constant: yesterday counts a third.
const MEMORY: Duration = Duration::from_secs(24 * 3600);

/// Punches that a newcomer is believed to have served, so that the first failure does not condemn it.
const BENEFIT: u64 = 5;

/// Beyond so many punches old ones count half.
const PUNCHES: u64 = 1_000;

/// All of it, in basis points.
const FULL: f64 = 10_000.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum State {
    Unwilling,
    #[default]
    Unproven,
    Spare,
    Serving,
    Gone,
}

impl State {
    pub const ALL: [Self; 5] = [Self::Unwilling, Self::Unproven, Self::Spare, Self::Serving, Self::Gone];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unwilling => "unwilling",
            Self::Unproven => "unproven",
            Self::Spare => "spare",
            Self::Serving => "serving",
            Self::Gone => "gone",
        }
    }
}

/// What the owner gives at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Caps {
    pub signalling: u64,
    pub relaying: u64,
    pub nodes: u32,
}

/// What it said of its work last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Load {
    pub nodes: u32,
    pub bytes: u64,
    pub signals: u64,
    pub percent: u8,
}

/// What a candidate did, over all its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct History {
    /// Share of time in which it was proven, recent time counting more; 0 to 1.
    pub reachable: f64,
    pub probes_sent: u64,
    pub probes_heard: u64,
    pub probes_counted: u64,
    pub punches_tried: u64,
    pub punches_served: u64,
    pub unreachable: u64,
    /// Bytes in a second, as callers saw it relay.
    pub measured: u64,
}

impl History {
    /// Lets `span` pass, in which it was proven or not.
    pub fn pass(&mut self, span: Duration, proven: bool) {
        let share = 1.0 - (-span.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        let now = if proven { 1.0 } else { 0.0 };
        self.reachable += share * (now - self.reachable);
    }

    pub fn punched(&mut self, tried: u64, served: u64) {
        self.punches_tried = self.punches_tried.saturating_add(tried);
        self.punches_served = self.punches_served.saturating_add(served.min(tried));
        if self.punches_tried > PUNCHES {
            self.punches_tried /= 2;
            self.punches_served /= 2;
        }
    }

    /// 0 to 10,000: how much of the time it was there, times how well it served then. A newcomer has half the time.
    pub fn reliability(&self) -> u16 {
        let there = 0.5 + self.reachable / 2.0;
        let served = (self.punches_served + BENEFIT) as f64 / (self.punches_tried + BENEFIT) as f64;
        (FULL * there * served).clamp(0.0, FULL) as u16
    }
}

/// A candidate as the store has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    pub node: NodeId,
    pub state: State,
    pub reason: String,
    /// As offered.
    pub offered: Vec<Address>,
    /// Those of them that are proven.
    pub proven: Vec<Address>,
    pub noise_key: [u8; 32],
    pub caps: Caps,
    pub nat: String,
    pub subnets: Vec<SubnetKey>,
    pub history: History,
    pub load: Load,
    /// When its present or last session began.
    pub since: Timestamp,
    pub last_proof: Option<Timestamp>,
    pub lease_until: Option<Timestamp>,
    /// Which replica has its stream, and until when that is believed.
    pub replica: String,
    pub alive_until: Timestamp,
}

impl Kept {
    /// Whether it is listed at `now`.
    pub fn serves(&self, now: Timestamp) -> bool {
        self.state == State::Serving && self.alive_until > now && !self.proven.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reliability_rises_with_time_served_and_falls_with_punches_that_fail() {
        let mut history = History::default();
        let newcomer = history.reliability();
        history.pass(MEMORY * 3, true);
        let settled = history.reliability();
        assert!(newcomer == 5_000 && settled > 9_500, "{newcomer} {settled}");
        history.punched(20, 5);
        assert!(history.reliability() < settled / 2);
        history.punched(2_000, 4_000);
        assert!(history.punches_tried <= PUNCHES + 10 && history.punches_served <= history.punches_tried);
    }
}
