//! The outer form of a sealed datagram: first byte, indexes, counter, macs. All numbers in network order.
//!
//! | kind | after the first byte |
//! |---|---|
//! | opening | sender 4, Noise's first message, mac1 16, mac2 16; 1,200 bytes in all |
//! | reply | sender 4, receiver 4, Noise's second message, mac1 16 |
//! | cookie | receiver 4, nonce 12, sealed cookie 32 |
//! | sealed | receiver 4, counter 8, ciphertext |
//! | unknown | the receiver and counter of a sealed datagram whose index nobody has here |

use super::reader::Reader;

/// First bytes; 0x80 is discovery's.
const OPENING: u8 = 0x90;
const REPLY: u8 = 0x91;
const COOKIE: u8 = 0x92;
const SEALED: u8 = 0x93;
const UNKNOWN: u8 = 0x94;

pub(super) const MAC_BYTES: usize = 16;
pub(super) const NONCE_BYTES: usize = 12;
/// Poly1305's.
pub(super) const TAG_BYTES: usize = 16;
/// A cookie with its tag.
pub(super) const SEALED_COOKIE_BYTES: usize = MAC_BYTES + TAG_BYTES;

/// First byte, receiver, counter, tag.
pub(super) const SEALED_OVERHEAD: usize = 1 + 4 + 8 + TAG_BYTES;

/// What kind of sealed datagram bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Opening,
    Reply,
    Cookie,
    Sealed,
    Unknown,
}

impl Kind {
    /// `None`: not a sealed datagram at all.
    pub fn of(datagram: &[u8]) -> Option<Self> {
        match *datagram.first()? {
            OPENING => Some(Self::Opening),
            REPLY => Some(Self::Reply),
            COOKIE => Some(Self::Cookie),
            SEALED => Some(Self::Sealed),
            UNKNOWN => Some(Self::Unknown),
            _ => None,
        }
    }
}

/// The parts of a datagram, as far as they can be told without a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Opening { sender: u32, noise: &'a [u8], macs: Macs<'a> },
    Reply { sender: u32, receiver: u32, noise: &'a [u8], macs: Macs<'a> },
    Cookie { receiver: u32, nonce: [u8; NONCE_BYTES], sealed: &'a [u8] },
    Sealed { receiver: u32, counter: u64, ciphertext: &'a [u8] },
    Unknown { receiver: u32, counter: u64 },
}

/// mac1 covers all before it, mac2 all before that.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Macs<'a> {
    pub(super) covered: &'a [u8],
    pub(super) mac1: &'a [u8],
    /// Of an opening; empty in a reply.
    pub(super) mac2: &'a [u8],
}

impl<'a> Frame<'a> {
    pub(super) fn parse(datagram: &'a [u8]) -> Option<Self> {
        let kind = Kind::of(datagram)?;
        let mut reader = Reader::new(datagram);
        reader.u8()?;
        let first = reader.u32()?;
        Some(match kind {
            Kind::Opening => {
                let end = datagram.len().checked_sub(2 * MAC_BYTES)?;
                let noise = datagram.get(5..end)?;
                let (mac1, mac2) = datagram[end..].split_at(MAC_BYTES);
                Self::Opening { sender: first, noise, macs: Macs { covered: &datagram[..end], mac1, mac2 } }
            }
            Kind::Reply => {
                let receiver = reader.u32()?;
                let end = datagram.len().checked_sub(MAC_BYTES)?;
                let noise = datagram.get(9..end)?;
                let macs = Macs { covered: &datagram[..end], mac1: &datagram[end..], mac2: &[] };
                Self::Reply { sender: first, receiver, noise, macs }
            }
            Kind::Cookie => {
                let nonce = reader.array()?;
                let sealed = &datagram[reader.rest()];
                (sealed.len() == SEALED_COOKIE_BYTES).then_some(())?;
                Self::Cookie { receiver: first, nonce, sealed }
            }
            Kind::Sealed => {
                let counter = reader.u64()?;
                Self::Sealed { receiver: first, counter, ciphertext: &datagram[reader.rest()] }
            }
            Kind::Unknown => {
                let counter = reader.u64()?;
                reader.rest().is_empty().then_some(())?;
                Self::Unknown { receiver: first, counter }
            }
        })
    }
}

/// What stands before Noise's first message.
pub(super) fn opening_header(sender: u32) -> Vec<u8> {
    [&[OPENING][..], &sender.to_be_bytes()].concat()
}

/// What stands before Noise's second message.
pub(super) fn reply_header(sender: u32, receiver: u32) -> Vec<u8> {
    [&[REPLY][..], &sender.to_be_bytes(), &receiver.to_be_bytes()].concat()
}

pub(super) fn cookie(receiver: u32, nonce: &[u8; NONCE_BYTES], sealed: &[u8]) -> Vec<u8> {
    [&[COOKIE][..], &receiver.to_be_bytes(), nonce, sealed].concat()
}

/// What stands before a sealed datagram's ciphertext.
pub(super) fn sealed_header(receiver: u32, counter: u64) -> [u8; 13] {
    let mut header = [0; 13];
    header[0] = SEALED;
    header[1..5].copy_from_slice(&receiver.to_be_bytes());
    header[5..].copy_from_slice(&counter.to_be_bytes());
    header
}

/// Thirteen bytes, fewer than any datagram that it answers.
pub(super) fn unknown(receiver: u32, counter: u64) -> Vec<u8> {
    [&[UNKNOWN][..], &receiver.to_be_bytes(), &counter.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_is_ours_and_none_is_discovery() {
        for first in [OPENING, REPLY, COOKIE, SEALED, UNKNOWN] {
            assert!((0x80..=0xbf).contains(&first) && first != crate::discovery::MARK);
            assert!(Kind::of(&[first]).is_some());
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let header = sealed_header(7, 9);
        let sealed = Frame::parse(&header).unwrap();
        assert_eq!(sealed, Frame::Sealed { receiver: 7, counter: 9, ciphertext: &[] });
        assert_eq!(Frame::parse(&unknown(7, 9)), Some(Frame::Unknown { receiver: 7, counter: 9 }));
        let bytes = cookie(7, &[1; NONCE_BYTES], &[2; SEALED_COOKIE_BYTES]);
        let cookie =
            Frame::Cookie { receiver: 7, nonce: [1; NONCE_BYTES], sealed: &[2; SEALED_COOKIE_BYTES] };
        assert_eq!(Frame::parse(&bytes), Some(cookie));
    }

    proptest! {
        #[test]
        fn anything_is_parsed_or_refused(first in 0x90u8..0x95, rest in prop::collection::vec(any::<u8>(), 0..1300)) {
            let datagram = [&[first][..], &rest].concat();
            if let Some(Frame::Opening { noise, macs, .. }) = Frame::parse(&datagram) {
                prop_assert_eq!(5 + noise.len() + macs.mac1.len() + macs.mac2.len(), datagram.len());
            }
        }
    }
}
