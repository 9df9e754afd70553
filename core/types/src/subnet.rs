//! The subnet key: what two nodes that could be neighbors have in common (specification, section 4).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE as HEX;

use crate::Prefix;
use crate::id::{IdError, identifier};

identifier!(
    /// 160-bit hash of a local network and the public address it is seen from, in the key space of node ids.
    SubnetKey, 20, "a subnet key"
);

impl From<SubnetKey> for crate::Key {
    fn from(subnet: SubnetKey) -> Self {
        Self(subnet.0)
    }
}

/// Public addresses of IPv6 hosts share a /64 with their neighbors.
const IPV6_LENGTH: u8 = 64;

impl SubnetKey {
    /// The key of the network that `local` lies in, seen by the master as `public`.
    ///
    /// The first 20 bytes of SHA-256 over, in this order: the family (one byte, 4 or 6), the mask's length in
    /// bits (one byte; 64 for IPv6 whatever the interface says), the local network address and the public
    /// address under the same mask (4 or 16 bytes each). `None` if the families differ.
    pub fn derive(local: Prefix, public: IpAddr) -> Option<Self> {
        let public = public.to_canonical();
        let (family, length) = match (local.network(), public) {
            (IpAddr::V4(_), IpAddr::V4(_)) => (4, local.length()),
            (IpAddr::V6(_), IpAddr::V6(_)) => (6, IPV6_LENGTH),
            _ => return None,
        };
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        hash.update(&[family, length]);
        for address in [local.network(), public] {
            match Prefix::of(address, length).network() {
                IpAddr::V4(ip) => hash.update(&ip.octets()),
                IpAddr::V6(ip) => hash.update(&ip.octets()),
            }
        }
        let mut key = Self::default();
        key.0.copy_from_slice(&hash.finish().as_ref()[..Self::LEN]);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(local: &str, length: u8, public: &str) -> Option<SubnetKey> {
        SubnetKey::derive(Prefix::of(local.parse().unwrap(), length), public.parse().unwrap())
    }

    #[test]
    fn two_homes_with_the_same_private_prefix_have_different_keys() {
        assert_ne!(key("192.168.1.5", 24, "203.0.113.7"), key("192.168.1.5", 24, "198.51.100.7"));
    }

    #[test]
    fn neighbors_have_the_same_key() {
        assert_eq!(key("192.168.1.5", 24, "203.0.113.7"), key("192.168.1.200", 24, "203.0.113.7"));
        assert_eq!(key("2001:db8::5", 64, "2001:db8::5"), key("2001:db8::6", 128, "2001:db8::6"));
    }

    #[test]
    fn families_do_not_mix() {
        assert_eq!(key("192.168.1.5", 24, "2001:db8::1"), None);
    }

    #[test]
    fn the_encoding_stays_what_it_is() {
        // Computed apart from this code: printf '\x04\x18\xc0\xa8\x01\x00\xcb\x00\x71\x00' | sha256sum
        let expected = "c765125d0065d8dcadbb9a00b0bff906228e13ad";
        assert_eq!(key("192.168.1.5", 24, "203.0.113.7").unwrap().to_string(), expected);
    }
}
