//! Who lives where: names and addresses of the lab, all computed from a place's number and a host's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use muster_sim::model::Behaviour;

/// Which internet protocols a place speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Family {
    V4,
    V6,
    Dual,
}

impl Family {
    pub fn has_v4(self) -> bool {
        self != Self::V6
    }

    pub fn has_v6(self) -> bool {
        self != Self::V4
    }
}

/// How a place's router translates IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Translation {
    /// By the simulator's model.
    Model(Behaviour),
    /// Not at all: the place's own addresses are routed, as public ones are. Not for places 1 and 2, whose are the same.
    None,
    /// By the kernel: nftables masquerade, with an INPUT drop on the WAN side.
    Kernel,
}

/// One place of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacePlan {
    pub agents: usize,
    pub family: Family,
    pub translation: Translation,
    /// A second translator behind a model of the first, as carriers have (RFC 6598).
    pub carrier: Option<Behaviour>,
    /// Its hosts say that they are reached by the place's public address, and give what a fast line gives.
    pub super_node: bool,
}

impl Default for PlacePlan {
    fn default() -> Self {
        Self {
            agents: 6,
            family: Family::V4,
            translation: Translation::Model(Behaviour::home()),
            carrier: None,
            super_node: false,
        }
    }
}

/// Most places and most hosts in one; the addresses below are laid out for them.
pub const PLACES_MAX: usize = 200;
pub const AGENTS_MAX: usize = 80;

/// Host numbers for guests from other places begin here.
pub const FIRST_GUEST: usize = 100;

/// The domain that the lab's DNS server knows.
pub const DOMAIN: &str = "lab.test";

/// Hosts in the data centre.
pub const MASTER: DataCentreHost = DataCentreHost { name: "master", number: 10 };
/// Where the master goes when it moves.
pub const MASTER_MOVED: DataCentreHost = DataCentreHost { name: "master", number: 20 };
/// A second address of the master's, which nobody writes to.
pub const MASTER_PROBER: DataCentreHost = DataCentreHost { name: "master", number: 11 };
pub const DNS: DataCentreHost = DataCentreHost { name: "dns", number: 53 };

/// A host with public addresses on the internet's data-centre segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataCentreHost {
    pub name: &'static str,
    number: u8,
}

impl DataCentreHost {
    pub const fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 51, 100, self.number)
    }

    pub const fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, self.number as u16)
    }

    /// Its address as `family` reaches it; v6 wherever that is spoken alone.
    pub const fn address(self, family: Family) -> IpAddr {
        match family {
            Family::V6 => IpAddr::V6(self.v6()),
            Family::V4 | Family::Dual => IpAddr::V4(self.v4()),
        }
    }
}

/// The data centre's router, which is the internet itself.
pub const DATA_CENTRE_GATEWAY: DataCentreHost = DataCentreHost { name: "internet", number: 1 };

/// The number of a place, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaceNumber(pub usize);

impl PlaceNumber {
    pub fn switch(self) -> String {
        format!("p{}sw", self.0)
    }

    pub fn gateway(self) -> String {
        format!("p{}gw", self.0)
    }

    /// A host of this place, counted from 1.
    pub fn host(self, index: usize) -> String {
        format!("p{}a{index}", self.0)
    }

    /// The router's TUN device on the internet's side.
    pub fn uplink(self) -> String {
        format!("to-p{}", self.0)
    }

    /// The address that the internet knows this place by.
    pub fn public(self) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 113, self.0 as u8)
    }

    /// The address that a carrier knows this place by.
    pub fn shared(self) -> Ipv4Addr {
        Ipv4Addr::new(100, 64, 0, self.0 as u8)
    }

    /// The private address numbered `host` here. Places 1 and 2 have the same prefix, as homes do.
    pub fn v4(self, host: usize) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, if self.0 <= 2 { 1 } else { self.0 as u8 }, host as u8)
    }

    pub fn v6(self, host: usize) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, self.0 as u16, 0, 0, 0, 0, host as u16)
    }
}

/// The router's host number in its place.
pub const GATEWAY_NUMBER: usize = 1;

/// The host number of a place's `index`th agent.
pub fn host_number(index: usize) -> usize {
    10 + index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_places_share_a_prefix_and_no_two_share_a_public_address() {
        let (first, second, third) = (PlaceNumber(1), PlaceNumber(2), PlaceNumber(3));
        assert_eq!(first.v4(11), second.v4(11));
        assert_ne!(first.v4(11), third.v4(11));
        assert_ne!(first.public(), second.public());
        assert_ne!(first.v6(11), second.v6(11));
    }

    #[test]
    fn agents_and_guests_never_meet() {
        assert!(host_number(AGENTS_MAX) < FIRST_GUEST);
    }
}
