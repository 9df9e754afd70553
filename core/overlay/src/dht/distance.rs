//! The XOR metric: how far two keys are from each other, and how many leading bits they share.

use muster_types::{Key, NodeId};

/// Bits of a key.
pub(super) const KEY_BITS: usize = Key::LEN * 8;

/// The XOR of two keys, read as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Distance {
    high: u128,
    low: u32,
}

impl Distance {
    pub const FARTHEST: Self = Self { high: u128::MAX, low: u32::MAX };

    pub fn between(a: Key, b: Key) -> Self {
        let ((a_high, a_low), (b_high, b_low)) = (halves(a), halves(b));
        Self { high: a_high ^ b_high, low: a_low ^ b_low }
    }

    /// Leading bits that the two keys share.
    pub fn shared_bits(self) -> usize {
        let bits = if self.high == 0 { 128 + self.low.leading_zeros() } else { self.high.leading_zeros() };
        bits as usize
    }
}

/// A key that shares exactly `shared` leading bits with `key`; the bits after those come from `noise`.
pub(super) fn key_at(key: Key, shared: usize, noise: [u8; Key::LEN]) -> Key {
    let mut made = noise;
    for (byte, made) in made.iter_mut().enumerate() {
        let kept = shared.saturating_sub(byte * 8).min(8);
        let mask = !(0xff_u16 >> kept) as u8;
        *made = (key.0[byte] & mask) | (*made & !mask);
    }
    if shared < KEY_BITS {
        let bit = 0x80 >> (shared % 8);
        made[shared / 8] = (made[shared / 8] & !bit) | (!key.0[shared / 8] & bit);
    }
    Key(made)
}

fn halves(key: Key) -> (u128, u32) {
    let [high @ .., a, b, c, d] = key.0;
    (u128::from_be_bytes(high), u32::from_be_bytes([a, b, c, d]))
}

/// Tells the key behind a contact's handle. A node that knows few contacts uses ids as handles ([`ById`]); a simulator
/// of a million nodes uses numbers of four bytes.
pub trait Names<C> {
    fn key(&self, contact: C) -> Key;
}

/// Handles that are ids.
#[derive(Debug, Clone, Copy, Default)]
pub struct ById;

impl Names<NodeId> for ById {
    fn key(&self, contact: NodeId) -> Key {
        contact.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_made_key_shares_exactly_the_bits_asked_for(key: [u8; 20], noise: [u8; 20], shared in 0..KEY_BITS) {
            let made = key_at(Key(key), shared, noise);
            prop_assert_eq!(Distance::between(Key(key), made).shared_bits(), shared);
        }

        #[test]
        fn of_two_keys_the_one_that_shares_more_bits_is_nearer(a: [u8; 20], b: [u8; 20], target: [u8; 20]) {
            let [a, b] = [a, b].map(|key| Distance::between(Key(key), Key(target)));
            if a.shared_bits() > b.shared_bits() {
                prop_assert!(a < b);
            }
        }
    }
}
