//! Letters that came: each is taken once, for as long as its sender may repeat it.

use std::collections::BTreeMap;

use muster_types::{LetterId, NodeId, Timestamp};

/// Letters remembered, over all senders and of one: beyond it no new one is taken until one has run out.
const LETTERS: usize = 8_192;
const LETTERS_OF_ONE: usize = 1_024;

/// What is remembered of a letter.
pub type Name = (NodeId, LetterId);

/// By sender and id, until when it may come again.
#[derive(Debug, Default)]
pub struct Seen(BTreeMap<Name, Timestamp>);

/// What to do with a letter that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    New,
    /// It is here, and was acknowledged in vain.
    Again,
    /// There is no room to remember it.
    Full,
}

impl Seen {
    pub fn look(&mut self, name: Name, now: Timestamp) -> Verdict {
        if self.0.contains_key(&name) {
            return Verdict::Again;
        }
        if self.is_full_for(name.0) {
            self.0.retain(|_, until| *until > now);
        }
        if self.is_full_for(name.0) { Verdict::Full } else { Verdict::New }
    }

    /// It has been taken.
    pub fn remember(&mut self, name: Name, until: Timestamp) {
        self.0.insert(name, until);
    }

    /// Those that may come again.
    pub fn remembered(&self) -> impl Iterator<Item = (Name, Timestamp)> {
        self.0.iter().map(|(name, until)| (*name, *until))
    }

    fn is_full_for(&self, from: NodeId) -> bool {
        let of_one = (from, LetterId([0; 16]))..=(from, LetterId([u8::MAX; 16]));
        self.0.len() >= LETTERS || self.0.range(of_one).count() >= LETTERS_OF_ONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(from: u8, number: u32) -> Name {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        (NodeId([from; 20]), LetterId(id))
    }

    #[test]
    fn a_letter_is_new_once_and_one_sender_does_not_use_up_the_memory() {
        let (mut seen, now) = (Seen::default(), Timestamp::from_micros(0));
        let later = Timestamp::from_micros(1_000_000);
        for number in 0..LETTERS_OF_ONE {
            let name = name(1, u32::try_from(number).unwrap());
            assert_eq!(seen.look(name, now), Verdict::New);
            seen.remember(name, later);
            assert_eq!(seen.look(name, now), Verdict::Again);
        }
        assert_eq!(seen.look(name(1, 9_999), now), Verdict::Full);
        assert_eq!(seen.look(name(2, 9_999), now), Verdict::New);
        assert_eq!(seen.look(name(1, 9_999), later), Verdict::New, "what has run out gives way");
    }
}
