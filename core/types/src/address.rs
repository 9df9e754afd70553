//! Where a node can be reached.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::NodeId;

/// One IP address of a node with the ports it listens on there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Address {
    pub ip: IpAddr,
    /// `None` where UDP is known not to work.
    pub udp_port: Option<u16>,
    /// `None` where TCP is known not to work.
    pub tcp_port: Option<u16>,
}

impl Address {
    /// The address that QUIC packets go to.
    pub fn udp(&self) -> Option<SocketAddr> {
        self.udp_port.map(|port| SocketAddr::new(self.ip, port))
    }

    /// The address that TCP connections go to.
    pub fn tcp(&self) -> Option<SocketAddr> {
        self.tcp_port.map(|port| SocketAddr::new(self.ip, port))
    }
}

/// A node and its addresses, best first, at most [`crate::limits::ADDRESSES`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Contact {
    pub node: NodeId,
    pub addresses: Vec<Address>,
}

/// A network address with its length in bits; the host's bits are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    network: IpAddr,
    length: u8,
}

impl Prefix {
    /// The prefix of `length` bits that `address` lies in. A length beyond the family's is cut to it.
    pub fn of(address: IpAddr, length: u8) -> Self {
        match address {
            IpAddr::V4(ip) => {
                let length = length.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                Self { network: Ipv4Addr::from_bits(ip.to_bits() & mask).into(), length }
            }
            IpAddr::V6(ip) => {
                let length = length.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                Self { network: Ipv6Addr::from_bits(ip.to_bits() & mask).into(), length }
            }
        }
    }

    pub fn network(&self) -> IpAddr {
        self.network
    }

    pub fn length(&self) -> u8 {
        self.length
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.network.is_ipv4() && Self::of(address, self.length) == *self
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_forgets_the_hosts_bits_and_contains_its_hosts() {
        let host: IpAddr = "192.168.1.77".parse().unwrap();
        let prefix = Prefix::of(host, 24);
        assert_eq!(prefix.to_string(), "192.168.1.0/24");
        assert!(prefix.contains(host));
        assert!(!prefix.contains("192.168.2.1".parse().unwrap()));
        assert!(!Prefix::of("::".parse().unwrap(), 0).contains(host));
    }
}
