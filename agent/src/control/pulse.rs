//! When the master is asked whether it is there: seldom while nothing is said, at once when something is said after a
//! silence, and soon again when it does not answer.

use std::time::Duration;

use muster_proto::control::v1::Heartbeat;
use tokio::time::Instant;

/// For the first answer to a heartbeat: twice around the world, and a lost packet. Then it is asked again ...
const ANSWER: Duration = Duration::from_secs(2);
/// ... so often ...
const AGAIN: Duration = Duration::from_secs(1);
/// ... until nothing was heard for so long since the first: the master is lost.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Pulse {
    interval: Duration,
    sequence: u64,
    heard: Instant,
    /// The first heartbeat since then.
    asked: Option<Instant>,
    pub(super) next: Instant,
}

impl Pulse {
    pub(super) fn begin(interval: Duration, now: Instant) -> Self {
        Self { interval, sequence: 0, heard: now, asked: None, next: now + interval }
    }

    pub(super) fn on_heard(&mut self, now: Instant) {
        self.heard = now;
        self.asked = None;
        self.next = now + self.interval;
    }

    /// Something goes up: whether it arrives is worth a question, if the last word is old.
    pub(super) fn on_sent(&mut self, now: Instant) {
        if self.asked.is_none() && now - self.heard > ANSWER {
            self.next = now;
        }
    }

    /// The next heartbeat; `None`: the master is lost.
    pub(super) fn beat(&mut self, now: Instant) -> Option<Heartbeat> {
        let pause = if self.asked.is_none() { ANSWER } else { AGAIN };
        if now - *self.asked.get_or_insert(now) >= PATIENCE {
            return None;
        }
        self.next = now + pause;
        self.sequence += 1;
        Some(Heartbeat { sequence: self.sequence, answer: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(25);

    #[test]
    fn a_master_that_answers_is_asked_once_an_interval() {
        let start = Instant::now();
        let mut pulse = Pulse::begin(INTERVAL, start);
        for sequence in 1..4 {
            let due = pulse.next;
            assert_eq!(due, start + INTERVAL * u32::try_from(sequence).unwrap());
            assert_eq!(pulse.beat(due).map(|beat| beat.sequence), Some(sequence));
            pulse.on_heard(due);
        }
    }

    #[test]
    fn a_master_that_does_not_answer_is_asked_again_and_given_up_after_its_patience() {
        let start = Instant::now();
        let mut pulse = Pulse::begin(INTERVAL, start);
        let mut asked = Vec::new();
        while pulse.beat(pulse.next).is_some() {
            asked.push((pulse.next - start).as_secs());
        }
        assert_eq!(asked, [27, 28, 29, 30]);
    }

    #[test]
    fn what_is_said_after_a_silence_is_followed_by_a_heartbeat_at_once() {
        let start = Instant::now();
        let mut pulse = Pulse::begin(INTERVAL, start);
        pulse.on_sent(start);
        assert_eq!(pulse.next, start + INTERVAL, "the last word is fresh");
        pulse.on_sent(start + ANSWER * 2);
        assert_eq!(pulse.next, start + ANSWER * 2);
    }
}
