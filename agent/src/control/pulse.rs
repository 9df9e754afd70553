//! When the master is told that this node is there, and asked whether it is itself: told whenever nothing else was said for an
//! interval; asked seldom, at once when something is said after a silence, and soon again when it does not answer. In
//! between the kernel tells of a path that is gone, for it hears no acknowledgement of what was told.

use std::time::Duration;

use muster_proto::control::v1::Heartbeat;
use tokio::time::Instant;

/// For the first answer to a question: twice around the world, and a lost packet. Then it is asked again ...
const ANSWER: Duration = Duration::from_secs(2);
/// ... so often ...
const AGAIN: Duration = Duration::from_secs(1);
/// ... until nothing was heard for so long since the first: the master is lost. A path on which nothing arrives for so long
/// is, too.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Where the kernel watches the path, so many intervals may pass without the master's own word. What it watches for between
/// is a master that stands still while its host lives. An answer and its acknowledgement are a third of what a quiet
/// stream costs.
const INTERVALS: u32 = 4;

#[derive(Debug)]
pub(super) struct Pulse {
    interval: Duration,
    /// For the master's own word.
    patience: Duration,
    sequence: u64,
    heard: Instant,
    said: Instant,
    question: Question,
    pub(super) next: Instant,
}

#[derive(Debug, Clone, Copy)]
enum Question {
    None,
    Due,
    /// Asked first then, and not answered yet.
    Open(Instant),
}

impl Pulse {
    /// `watched`: the kernel ends the stream when nothing arrives for [`PATIENCE`].
    pub(super) fn begin(interval: Duration, watched: bool, now: Instant) -> Self {
        let intervals = if watched { INTERVALS } else { 1 };
        // Answers come a little after their questions.
        let patience = interval * intervals - interval / 2;
        let (question, next) = (Question::None, now + interval);
        Self { interval, patience, sequence: 0, heard: now, said: now, question, next }
    }

    pub(super) fn on_heard(&mut self, now: Instant) {
        self.heard = now;
        self.question = Question::None;
        self.next = self.said + self.interval;
    }

    /// Something goes up, which is as good as a heartbeat. Whether the master takes it in is worth a question, if its last
    /// word is old.
    pub(super) fn on_said(&mut self, now: Instant) {
        self.said = now;
        match self.question {
            Question::None if now - self.heard > ANSWER => (self.question, self.next) = (Question::Due, now),
            Question::None => self.next = now + self.interval,
            Question::Due | Question::Open(_) => {}
        }
    }

    /// The next heartbeat; `None`: the master is lost.
    pub(super) fn beat(&mut self, now: Instant) -> Option<Heartbeat> {
        self.sequence += 1;
        self.said = now;
        let beat = Heartbeat { sequence: self.sequence, ..Heartbeat::default() };
        if matches!(self.question, Question::None) && now - self.heard < self.patience {
            self.next = now + self.interval;
            return Some(Heartbeat { unanswered: true, ..beat });
        }
        match self.question {
            Question::Open(asked) if now - asked >= PATIENCE => return None,
            Question::Open(_) => self.next = now + AGAIN,
            Question::None | Question::Due => {
                (self.question, self.next) = (Question::Open(now), now + ANSWER);
            }
        }
        Some(beat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(25);

    fn beats(pulse: &mut Pulse, start: Instant, count: usize) -> Vec<(u64, bool)> {
        let mut beats = Vec::new();
        while beats.len() < count
            && let due = pulse.next
            && let Some(beat) = pulse.beat(due)
        {
            beats.push(((due - start).as_secs(), !beat.unanswered));
            if !beat.unanswered {
                pulse.on_heard(due);
            }
        }
        beats
    }

    #[test]
    fn where_the_kernel_sees_the_path_the_master_is_asked_only_every_fourth_time() {
        let start = Instant::now();
        let mut pulse = Pulse::begin(INTERVAL, true, start);
        let expected = [(25, false), (50, false), (75, false), (100, true), (125, false)];
        assert_eq!(beats(&mut pulse, start, 5), expected);
    }

    #[test]
    fn where_nobody_sees_the_path_the_master_is_asked_every_time() {
        let start = Instant::now();
        let mut pulse = Pulse::begin(INTERVAL, false, start);
        assert_eq!(beats(&mut pulse, start, 3), [(25, true), (50, true), (75, true)]);
    }

    #[test]
    fn a_master_that_does_not_answer_is_asked_again_and_given_up_after_its_patience() {
        let start = Instant::now();
        let mut pulse = Pulse::begin(INTERVAL, false, start);
        let mut asked = Vec::new();
        while let due = pulse.next
            && pulse.beat(due).is_some()
        {
            asked.push((due - start).as_secs());
        }
        assert_eq!(asked, [25, 27, 28, 29]);
        assert_eq!((pulse.next - start).as_secs(), 30);
    }

    #[test]
    fn what_is_said_after_a_silence_is_followed_by_a_question_at_once() {
        let start = Instant::now();
        let mut pulse = Pulse::begin(INTERVAL, true, start);
        pulse.on_said(start + ANSWER);
        assert_eq!(pulse.next, start + ANSWER + INTERVAL, "the last word is fresh");
        let later = start + ANSWER * 2;
        pulse.on_said(later);
        assert_eq!(pulse.next, later);
        assert_eq!(pulse.beat(later).map(|beat| beat.unanswered), Some(false));
        assert_eq!(pulse.next, later + ANSWER);
    }

    #[test]
    fn what_the_master_says_does_not_put_off_that_this_node_shows_itself() {
        let start = Instant::now();
        let mut pulse = Pulse::begin(INTERVAL, true, start);
        pulse.on_heard(start + INTERVAL / 2);
        assert_eq!(pulse.next, start + INTERVAL);
    }
}
