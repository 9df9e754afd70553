//! What carries a session's packets. QUIC knows addresses only, so every path that is not UDP has a virtual one.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Unique local addresses (RFC 4193) that never leave this process.
const VIRTUAL: [u16; 3] = [0xfd15, 0x6d75, 0x7374];

/// Any; QUIC wants one.
const VIRTUAL_PORT: u16 = 1;

/// What lies between two ends of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Path {
    Udp(SocketAddr),
    /// The peer's address of the TCP connection.
    Tcp(SocketAddr),
    /// The peer behind a relay.
    Relay(VirtualAddress),
}

impl Path {
    /// Where the peer's packets really come from, if this host sees it.
    pub fn remote(&self) -> Option<SocketAddr> {
        match self {
            Self::Udp(address) | Self::Tcp(address) => Some(*address),
            Self::Relay(_) => None,
        }
    }

    /// "udp4", "udp6", "tcp4", "tcp6" or "relay", as presence shows it (proto: `NodePresence.path`).
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Udp(address) if address.is_ipv4() => "udp4",
            Self::Udp(_) => "udp6",
            Self::Tcp(address) if address.is_ipv4() => "tcp4",
            Self::Tcp(_) => "tcp6",
            Self::Relay(_) => "relay",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.remote() {
            Some(address) => write!(f, "{} {address}", self.as_str()),
            None => f.write_str(self.as_str()),
        }
    }
}

/// The address under which QUIC knows a path that is not UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VirtualAddress(u64);

impl VirtualAddress {
    pub(crate) fn new(number: u64) -> Self {
        Self(number)
    }

    pub(crate) fn socket_address(self) -> SocketAddr {
        let [a, b, c] = VIRTUAL;
        let bits = u128::from(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)) | u128::from(self.0);
        SocketAddrV6::new(bits.into(), VIRTUAL_PORT, 0, 0).into()
    }

    pub(crate) fn from_socket_address(address: SocketAddr) -> Option<Self> {
        let IpAddr::V6(ip) = address.ip() else { return None };
        (ip.segments()[..3] == VIRTUAL).then(|| Self(ip.to_bits() as u64))
    }
}

/// As QUIC sees every address: IPv4 in its mapped form.
pub(crate) fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
        SocketAddr::V6(_) => address,
    }
}

/// As everybody else sees it.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_address_is_told_from_every_other() {
        let address = VirtualAddress::new(0x1234_5678_9abc);
        assert_eq!(VirtualAddress::from_socket_address(address.socket_address()), Some(address));
        for real in ["[2001:db8::1]:1", "[fd15::1]:1", "[::ffff:192.0.2.1]:1", "192.0.2.1:1"] {
            assert_eq!(VirtualAddress::from_socket_address(real.parse().unwrap()), None, "{real}");
        }
    }

    #[test]
    fn an_ipv4_address_is_itself_again_after_being_mapped() {
        let address = "192.0.2.1:5".parse().unwrap();
        assert!(mapped(address).is_ipv6());
        assert_eq!(canonical(mapped(address)), address);
    }
}
