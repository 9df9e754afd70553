//! Probes between two nodes that are about to meet, sealed by a key that only the two can derive: X25519 of their Noise
//! keys, then HKDF-SHA256. No handshake, 42 bytes, a key for each direction: nobody's own probe, turned back by a router, is
//! taken for the peer's.
//!
//! | bytes | |
//! |---|---|
//! | 1 | 0xA0 |
//! | 8 | meeting |
//! | 12 | nonce |
//! | 5 | sealed: kind, number |
//! | 16 | tag |

use bytes::Bytes;
use muster_overlay::meeting::Probe;
use muster_types::{NetworkId, NodeId};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use x25519_dalek::{PublicKey, StaticSecret};

/// First byte; 0x80 to 0xBF are ours on the shared socket.
pub const MARK: u8 = 0xa0;

const ASK: u8 = 1;
const ANSWER: u8 = 2;

/// Kind and number.
const PLAIN: usize = 5;
const HEADER: usize = 1 + 8 + NONCE_LEN;
/// All of it.
pub const BYTES: usize = HEADER + PLAIN + 16;

/// Both directions' keys of one meeting.
pub struct ProbeKeys {
    meeting: u64,
    sending: LessSafeKey,
    receiving: LessSafeKey,
    random: SystemRandom,
}

/// Which meeting a datagram claims to be of. `None`: it is no probe.
pub fn claimed(datagram: &[u8]) -> Option<u64> {
    let rest = datagram.strip_prefix(&[MARK])?;
    let (meeting, _) = rest.split_first_chunk::<8>()?;
    (datagram.len() == BYTES).then(|| u64::from_be_bytes(*meeting))
}

impl ProbeKeys {
    /// Between this node and a peer, whose ticket says which Noise key is its.
    pub fn new(
        network: NetworkId,
        meeting: u64,
        (own, secret): (NodeId, &[u8; 32]),
        (peer, public): (NodeId, &[u8; 32]),
    ) -> Self {
        let shared = StaticSecret::from(*secret).diffie_hellman(&PublicKey::from(*public));
        let salt = Salt::new(HKDF_SHA256, network.as_bytes());
        let root = salt.extract(shared.as_bytes());
        let key = |from: NodeId, to: NodeId| {
            let meeting = meeting.to_be_bytes();
            let info: [&[u8]; 4] = [b"muster probe", &meeting, from.as_bytes(), to.as_bytes()];
            let okm = root.expand(&info, &CHACHA20_POLY1305);
            // HKDF refuses only lengths beyond 255 hashes.
            LessSafeKey::new(okm.map(UnboundKey::from).unwrap_or_else(|_| unreachable!("32 bytes")))
        };
        Self { meeting, sending: key(own, peer), receiving: key(peer, own), random: SystemRandom::new() }
    }

    /// `None`: the system has no randomness.
    pub fn seal(&self, probe: Probe) -> Option<Bytes> {
        let (kind, number) = match probe {
            Probe::Ask(number) => (ASK, number),
            Probe::Answer(number) => (ANSWER, number),
        };
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut datagram = [&[MARK][..], &self.meeting.to_be_bytes(), &nonce, &[kind]].concat();
        datagram.extend_from_slice(&number.to_be_bytes());
        let (header, plain) = datagram.split_at_mut(HEADER);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.sending.seal_in_place_separate_tag(nonce, Aad::from(&*header), plain).ok()?;
        datagram.extend_from_slice(tag.as_ref());
        Some(datagram.into())
    }

    /// `None`: the peer did not send this.
    pub fn open(&self, datagram: &[u8]) -> Option<Probe> {
        if claimed(datagram) != Some(self.meeting) {
            return None;
        }
        let (header, sealed) = datagram.split_at(HEADER);
        let nonce = Nonce::try_assume_unique_for_key(&header[HEADER - NONCE_LEN..]).ok()?;
        let mut sealed = sealed.to_vec();
        let plain = self.receiving.open_in_place(nonce, Aad::from(header), &mut sealed).ok()?;
        let (kind, number) = plain.split_first()?;
        let number = u32::from_be_bytes(number.try_into().ok()?);
        match *kind {
            ASK => Some(Probe::Ask(number)),
            ANSWER => Some(Probe::Answer(number)),
            _ => None,
        }
    }
}

impl std::fmt::Debug for ProbeKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProbeKeys({:x})", self.meeting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: NetworkId = NetworkId([7; 16]);
    const LEFT: NodeId = NodeId([1; 20]);
    const RIGHT: NodeId = NodeId([2; 20]);

    fn keys(meeting: u64) -> [ProbeKeys; 2] {
        let (left, right) = ([3; 32], [4; 32]);
        let public = |secret: [u8; 32]| PublicKey::from(&StaticSecret::from(secret)).to_bytes();
        [
            ProbeKeys::new(NETWORK, meeting, (LEFT, &left), (RIGHT, &public(right))),
            ProbeKeys::new(NETWORK, meeting, (RIGHT, &right), (LEFT, &public(left))),
        ]
    }

    #[test]
    fn a_probe_opens_at_the_peer_and_not_at_its_sender_nor_in_another_meeting() {
        let [left, right] = keys(9);
        let datagram = left.seal(Probe::Ask(77)).unwrap();
        assert_eq!((datagram.len(), claimed(&datagram)), (BYTES, Some(9)));
        assert_eq!(right.open(&datagram), Some(Probe::Ask(77)));
        assert_eq!(left.open(&datagram), None);
        let [_, other] = keys(10);
        assert_eq!(other.open(&datagram), None);
    }

    #[test]
    fn a_changed_or_shortened_probe_is_nobodys() {
        let [left, right] = keys(9);
        let datagram = left.seal(Probe::Answer(1)).unwrap();
        for at in 0..BYTES {
            let mut changed = datagram.to_vec();
            changed[at] ^= 1;
            assert_eq!(right.open(&changed), None, "byte {at}");
            assert_eq!(right.open(&datagram[..at]), None);
        }
    }
}
