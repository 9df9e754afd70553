//! A deputy listens to its LSN's beats. Beats missed lead to two probes, probes unanswered to a claim.

use muster_types::Instant;

use crate::timer::Timer;
use crate::timing::{
    BEAT_GRACE, BEAT_INTERVAL, BEATS_MISSED, PROBE_PATIENCE, REOPEN_PROBE, STEP_IN_PATIENCE,
};
use crate::turn::Turn;

/// Whose turn it is to claim. The first two of the neighbor list are deputies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    First,
    Second,
}

impl Rank {
    pub(crate) fn of(position: usize) -> Option<Self> {
        [Self::First, Self::Second].get(position).copied()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Listening,
    Probing,
    /// The second deputy leaves the claim to the first.
    StandingBack,
}

/// What has to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    Nothing,
    Probe,
    LsnIsDead,
}

#[derive(Debug)]
pub(crate) struct Watch {
    rank: Rank,
    phase: Phase,
    last_sign: Instant,
}

impl Watch {
    pub(crate) fn begin(rank: Rank, turn: &mut Turn<'_>) -> Self {
        let mut watch = Self { rank, phase: Phase::Listening, last_sign: turn.now };
        watch.on_sign_of_life(turn);
        watch
    }

    pub(crate) fn last_sign(&self) -> Instant {
        self.last_sign
    }

    pub(crate) fn set_rank(&mut self, rank: Rank) {
        self.rank = rank;
    }

    /// A beat, a pong or a claim of the LSN; or this host itself ran late, and accuses nobody.
    pub(crate) fn on_sign_of_life(&mut self, turn: &mut Turn<'_>) {
        self.phase = Phase::Listening;
        self.last_sign = turn.now;
        turn.set(Timer::Watch, BEAT_INTERVAL * BEATS_MISSED + BEAT_GRACE);
    }

    /// The session that beats come by is gone; whether it can be opened again is the probe.
    pub(crate) fn on_session_lost(&mut self, turn: &mut Turn<'_>) {
        if self.phase == Phase::Listening {
            self.phase = Phase::Probing;
            turn.set(Timer::Watch, REOPEN_PROBE);
        }
    }

    /// It cannot.
    pub(crate) fn on_not_reopened(&mut self, turn: &mut Turn<'_>) -> Finding {
        if self.phase == Phase::Probing { self.on_timeout(turn) } else { Finding::Nothing }
    }

    /// [`Timer::Watch`] came, on time.
    pub(crate) fn on_timeout(&mut self, turn: &mut Turn<'_>) -> Finding {
        match (self.phase, self.rank) {
            (Phase::Listening, _) => {
                self.phase = Phase::Probing;
                turn.set(Timer::Watch, PROBE_PATIENCE);
                Finding::Probe
            }
            (Phase::Probing, Rank::Second) => {
                self.phase = Phase::StandingBack;
                turn.set(Timer::Watch, STEP_IN_PATIENCE);
                Finding::Nothing
            }
            (Phase::Probing, Rank::First) | (Phase::StandingBack, _) => Finding::LsnIsDead,
        }
    }
}
