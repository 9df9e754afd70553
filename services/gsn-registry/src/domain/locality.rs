//! How near two addresses are, as far as addresses tell.

use std::net::IpAddr;

use muster_types::Prefix;

/// Bits of a place: super nodes should not all stand in one.
const PLACE_V4: u8 = 16;
const PLACE_V6: u8 = 32;

/// The leading bits that both have in common; none of different families.
pub fn common_bits(a: IpAddr, b: IpAddr) -> u8 {
    let common = match (a.to_canonical(), b.to_canonical()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => 0,
    };
    u8::try_from(common).unwrap_or(u8::MAX)
}

/// The part of the Internet that an address belongs to.
pub fn place(ip: IpAddr) -> Prefix {
    let ip = ip.to_canonical();
    Prefix::of(ip, if ip.is_ipv4() { PLACE_V4 } else { PLACE_V6 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(a: &str, b: &str) -> u8 {
        common_bits(a.parse().unwrap(), b.parse().unwrap())
    }

    #[test]
    fn neighbors_have_more_in_common_and_families_nothing() {
        assert_eq!(bits("192.0.2.1", "192.0.2.1"), 32);
        assert_eq!(bits("192.0.2.1", "192.0.2.2"), 30);
        assert_eq!(bits("192.0.2.1", "2001:db8::1"), 0);
        assert_eq!(bits("2001:db8::1", "2001:db8::1"), 128);
        assert_eq!(bits("::ffff:192.0.2.1", "192.0.2.1"), 32);
    }
}
