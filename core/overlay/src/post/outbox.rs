//! Letters of this node's that have not arrived: each is said again, ever more seldom, until its recipient acknowledges it or
//! its life ends.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_types::{Instant, LetterId, NodeId};

/// Letters that wait at once, and those for one recipient: one that is away does not fill the box.
const LETTERS: usize = 256;
const LETTERS_FOR_ONE: usize = 64;

/// A letter that is under way is said again after this: a lookup in the hash table, and a round trip by four hosts.
const FIRST: Duration = Duration::from_secs(3);
/// Each pause is twice the last; a recipient that comes back is found within this.
const LONGEST: Duration = Duration::from_secs(300);

/// One letter, as the box knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    pub id: LetterId,
    pub to: NodeId,
    pub expires: Instant,
}

/// Why a letter is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("{0} letters wait already")]
    Box(usize),
    #[error("{0} letters wait for that node already")]
    Recipient(usize),
}

#[derive(Debug)]
struct Waiting {
    kept: Kept,
    due: Instant,
    pause: Duration,
}

/// The machine: take letters in, ask which are [due](Self::due) at [`next`](Self::next).
#[derive(Debug, Default)]
pub struct Outbox(BTreeMap<LetterId, Waiting>);

impl Outbox {
    /// Takes a letter, which is due at once.
    ///
    /// # Errors
    /// Too many wait.
    pub fn take(&mut self, kept: Kept, now: Instant) -> Result<(), Full> {
        if self.0.len() >= LETTERS {
            return Err(Full::Box(LETTERS));
        }
        if self.0.values().filter(|it| it.kept.to == kept.to).count() >= LETTERS_FOR_ONE {
            return Err(Full::Recipient(LETTERS_FOR_ONE));
        }
        self.0.insert(kept.id, Waiting { kept, due: now, pause: FIRST });
        Ok(())
    }

    /// The recipient has it. `false`: it is none of this box's, or another node says so.
    pub fn acknowledged(&mut self, id: LetterId, by: NodeId) -> bool {
        let known = self.0.get(&id).is_some_and(|it| it.kept.to == by);
        if known {
            self.0.remove(&id);
        }
        known
    }

    /// The letters to be said now; they are due again after a pause.
    pub fn due(&mut self, now: Instant) -> Vec<Kept> {
        let mut due = Vec::new();
        for waiting in self.0.values_mut().filter(|it| it.due <= now && it.kept.expires > now) {
            due.push(waiting.kept);
            waiting.due = now + waiting.pause;
            waiting.pause = (waiting.pause * 2).min(LONGEST);
        }
        due
    }

    /// Forgets and tells those whose life has ended.
    pub fn expired(&mut self, now: Instant) -> Vec<Kept> {
        let over: Vec<Kept> = self.0.values().map(|it| it.kept).filter(|kept| kept.expires <= now).collect();
        for kept in &over {
            self.0.remove(&kept.id);
        }
        over
    }

    /// There is a new way, to `node` or to all: what waits for it is due now.
    pub fn retry(&mut self, node: Option<NodeId>, now: Instant) {
        for waiting in self.0.values_mut().filter(|it| node.is_none_or(|node| node == it.kept.to)) {
            (waiting.due, waiting.pause) = (waiting.due.min(now), FIRST);
        }
    }

    /// When to ask again.
    pub fn next(&self) -> Option<Instant> {
        self.0.values().map(|it| it.due.min(it.kept.expires)).min()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPIENT: NodeId = NodeId([5; 20]);

    fn letter(number: u8, life: u64) -> Kept {
        let expires = Instant::ZERO + Duration::from_secs(life);
        Kept { id: LetterId([number; 16]), to: RECIPIENT, expires }
    }

    #[test]
    fn a_letter_is_said_ever_more_seldom_until_it_is_acknowledged_by_its_recipient() {
        let (mut outbox, mut now, mut said) = (Outbox::default(), Instant::ZERO, 0);
        let kept = letter(1, 7_200);
        outbox.take(kept, now).unwrap();
        while let Some(next) = outbox.next().filter(|next| *next < kept.expires) {
            now = next;
            said += outbox.due(now).len();
        }
        assert!((25..40).contains(&said), "{said} times in two hours");
        assert!(!outbox.acknowledged(kept.id, NodeId([6; 20])), "somebody else's word counts");
        assert!(outbox.acknowledged(kept.id, RECIPIENT));
        assert!(!outbox.acknowledged(kept.id, RECIPIENT));
        assert_eq!(outbox.next(), None);
    }

    #[test]
    fn a_letter_that_outlives_its_time_is_told_once_and_said_no_more() {
        let mut outbox = Outbox::default();
        let kept = letter(1, 10);
        outbox.take(kept, Instant::ZERO).unwrap();
        assert_eq!(outbox.due(Instant::ZERO), [kept]);
        assert_eq!((outbox.due(kept.expires), outbox.expired(kept.expires)), (vec![], vec![kept]));
        assert!(outbox.is_empty() && outbox.expired(kept.expires).is_empty());
    }

    #[test]
    fn a_new_way_makes_what_waits_due_at_once() {
        let mut outbox = Outbox::default();
        outbox.take(letter(1, 1_000), Instant::ZERO).unwrap();
        assert_eq!(outbox.due(Instant::ZERO).len(), 1);
        outbox.retry(Some(NodeId([6; 20])), Instant::ZERO);
        assert!(outbox.due(Instant::ZERO).is_empty());
        outbox.retry(Some(RECIPIENT), Instant::ZERO);
        assert_eq!(outbox.due(Instant::ZERO).len(), 1);
    }

    #[test]
    fn one_recipient_that_is_away_does_not_fill_the_box() {
        let mut outbox = Outbox::default();
        for number in 0..LETTERS_FOR_ONE {
            outbox.take(letter(u8::try_from(number).unwrap(), 10), Instant::ZERO).unwrap();
        }
        let refused = outbox.take(letter(200, 10), Instant::ZERO);
        assert_eq!(refused, Err(Full::Recipient(LETTERS_FOR_ONE)));
        let other = Kept { to: NodeId([6; 20]), ..letter(201, 10) };
        assert_eq!(outbox.take(other, Instant::ZERO), Ok(()));
    }
}
