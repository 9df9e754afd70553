//! Packets by what they are for, as far as a router sees: so that a sum of bytes can be taken apart.

use std::collections::BTreeMap;

use muster_sim::model::Protocol;
use muster_sim::model::packet::payload;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    /// The hash table's datagrams.
    Sealed,
    /// Sessions between nodes.
    Quic,
    Stun,
    OtherUdp,
    /// TCP with something in it: the master's streams.
    Tcp,
    /// TCP's own: acknowledgements, beginnings, ends.
    TcpBare,
    Other,
}

/// What was seen of one sort, IP headers included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    pub packets: u64,
    pub bytes: u64,
}

pub type Sorts = BTreeMap<Sort, Amount>;

impl Sort {
    /// By the protocol, and of UDP by the first byte (design, section 2: one UDP socket, told apart by the first byte).
    pub fn of(packet: &[u8]) -> Self {
        match payload(packet) {
            Some((Protocol::Tcp, [])) => Self::TcpBare,
            Some((Protocol::Tcp, _)) => Self::Tcp,
            Some((Protocol::Udp, [0x00..=0x03, ..])) => Self::Stun,
            Some((Protocol::Udp, [0x80..=0xbf, ..])) => Self::Sealed,
            Some((Protocol::Udp, [0x40..=0x7f | 0xc0..=0xff, ..])) => Self::Quic,
            Some((Protocol::Udp, _)) => Self::OtherUdp,
            _ => Self::Other,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sealed => "sealed datagrams (the hash table)",
            Self::Quic => "QUIC (sessions between nodes)",
            Self::Stun => "STUN",
            Self::OtherUdp => "other UDP",
            Self::Tcp => "TCP with content (the master's streams)",
            Self::TcpBare => "TCP without (acknowledgements)",
            Self::Other => "neither UDP nor TCP",
        }
    }
}

impl Amount {
    pub fn add(&mut self, packet: &[u8]) {
        self.packets += 1;
        self.bytes += packet.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IPV4_HEADER: usize = 20;

    fn packet(protocol: u8, header: usize, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; IPV4_HEADER + header];
        packet.extend_from_slice(payload);
        let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
        (packet[0], packet[2], packet[3], packet[9]) = (0x45, length[0], length[1], protocol);
        if protocol == 6 {
            packet[IPV4_HEADER + 12] = u8::try_from(header / 4).unwrap() << 4;
        }
        packet
    }

    #[test]
    fn packets_are_told_apart_by_protocol_and_first_byte() {
        let udp = |first| Sort::of(&packet(17, 8, &[first, 1, 2]));
        assert_eq!(
            [udp(0x01), udp(0x81), udp(0x41), udp(0xc1)],
            [Sort::Stun, Sort::Sealed, Sort::Quic, Sort::Quic]
        );
        assert_eq!([Sort::of(&packet(17, 8, &[])), udp(0x20)], [Sort::OtherUdp; 2]);
        assert_eq!(Sort::of(&packet(6, 32, &[23])), Sort::Tcp);
        assert_eq!(Sort::of(&packet(6, 32, &[])), Sort::TcpBare);
        assert_eq!(Sort::of(&packet(1, 8, &[])), Sort::Other);
        assert_eq!(Sort::of(&[]), Sort::Other);
    }
}
