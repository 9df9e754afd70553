//! A probe: the datagram that shows that anybody may write to an address. Nobody answers it; who heard it says so to
//! whoever had it sent (`muster.gsn.v1`), so that it draws nothing to a forged address.

use bytes::Bytes;

/// First byte of a probe; 0x80 to 0xbf are ours on a shared socket.
pub const MARK: u8 = 0xb8;

const TOKEN_BYTES: usize = 16;

/// Drawn for one probe, and known to nobody who did not hear it.
pub type Token = [u8; TOKEN_BYTES];

pub fn encode(token: &Token) -> Bytes {
    [&[MARK], &token[..]].concat().into()
}

/// `None`: it is no probe.
pub fn decode(datagram: &[u8]) -> Option<Token> {
    datagram.strip_prefix(&[MARK])?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_read_as_it_was_written_and_nothing_else_is_one() {
        let probe = encode(&[7; TOKEN_BYTES]);
        assert_eq!(decode(&probe), Some([7; TOKEN_BYTES]));
        for end in 0..probe.len() {
            assert_eq!(decode(&probe[..end]), None);
        }
        assert_eq!(decode(&[&probe[..], &[0]].concat()), None);
        assert_eq!(decode(&[0; 1 + TOKEN_BYTES]), None);
    }
}
