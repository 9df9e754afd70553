//! One UDP socket, told apart by the first byte (RFC 7983's idea, RFC 9443's ranges with QUIC's fixed bit kept).

/// Whose a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// RFC 8489.
    Stun,
    Quic,
    Overlay,
    Nobody,
}

impl Owner {
    pub(crate) fn of(first_byte: u8) -> Self {
        match first_byte {
            0x00..=0x03 => Self::Stun,
            // Short headers 0x40-0x7f, long headers 0xc0-0xff: the fixed bit is set (RFC 9000, section 17) and
            // never greased.
            0x40..=0x7f | 0xc0..=0xff => Self::Quic,
            0x80..=0xbf => Self::Overlay,
            0x04..=0x3f => Self::Nobody,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte_has_exactly_one_owner() {
        let count = |owner| (0..=u8::MAX).filter(|byte| Owner::of(*byte) == owner).count();
        assert_eq!(count(Owner::Stun), 4);
        assert_eq!(count(Owner::Quic), 128);
        assert_eq!(count(Owner::Overlay), 64);
        assert_eq!(count(Owner::Nobody), 60);
        for (byte, owner) in [
            (0x00, Owner::Stun),
            (0x03, Owner::Stun),
            (0x04, Owner::Nobody),
            (0x3f, Owner::Nobody),
            (0x40, Owner::Quic),
            (0x7f, Owner::Quic),
            (0x80, Owner::Overlay),
            (0xbf, Owner::Overlay),
            (0xc0, Owner::Quic),
            (0xff, Owner::Quic),
        ] {
            assert_eq!(Owner::of(byte), owner, "{byte:#04x}");
        }
    }

    #[test]
    fn discovery_is_ours() {
        assert_eq!(Owner::of(muster_wire::discovery::MARK), Owner::Overlay);
    }
}
