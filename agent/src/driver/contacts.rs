//! The LSNs that enrollment told of, for a device that nobody answers on its local network: its neighbors among them.

use muster_overlay::Claim;
use muster_types::{Prefix, SubnetKey};

/// Neighbors that are tried. Who cannot be reached costs a second, and there is one LSN to a cell.
const TRIED: usize = 4;

/// What a device knows of where it is, without asking anybody.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) prefixes: Vec<Prefix>,
    /// Keys that its subnet has, or had when it was enrolled here.
    pub(super) keys: Vec<SubnetKey>,
}

impl Surroundings {
    /// LSNs of this subnet, in the order in which they were told. Whose subnet the master could not name is a neighbor by
    /// its address.
    pub(super) fn neighbors(&self, contacts: Vec<Claim>) -> impl Iterator<Item = Claim> {
        contacts.into_iter().filter(|claim| self.is_neighbor(claim)).take(TRIED)
    }

    fn is_neighbor(&self, claim: &Claim) -> bool {
        if !claim.subnet_keys.is_empty() {
            return claim.subnet_keys.iter().any(|key| self.keys.contains(key));
        }
        let mut addresses = claim.claimant.addresses.iter();
        addresses.any(|address| self.prefixes.iter().any(|prefix| prefix.contains(address.ip)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use muster_overlay::message::Seal;
    use muster_overlay::standing::{Standing, Uptime};
    use muster_types::{Address, Contact, NodeId};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn key(public: &str) -> SubnetKey {
        SubnetKey::derive(Prefix::of(ip("192.168.1.0"), 24), ip(public)).unwrap()
    }

    fn lsn(number: u8, address: &str, subnet_keys: Vec<SubnetKey>) -> Claim {
        let address = Address { ip: ip(address), udp_port: Some(1), tcp_port: Some(1) };
        Claim {
            lineage: u64::from(number),
            epoch: 1,
            predecessor: None,
            subnet_keys,
            claimant: Contact { node: NodeId([number; 20]), addresses: vec![address] },
            uptime: Uptime(1),
            standing: Standing::default(),
            successor: None,
            settled: true,
            seal: Seal::OWN,
        }
    }

    fn tried(here: &Surroundings, contacts: Vec<Claim>) -> Vec<u8> {
        here.neighbors(contacts).map(|claim| claim.claimant.node.0[0]).collect()
    }

    #[test]
    fn of_two_homes_with_the_same_prefix_only_the_own_ones_lsn_is_tried() {
        let here = Surroundings {
            prefixes: vec![Prefix::of(ip("192.168.1.0"), 24)],
            keys: vec![key("203.0.113.1")],
        };
        let (own, other) = (vec![key("203.0.113.1")], vec![key("198.51.100.1")]);
        let contacts = vec![lsn(1, "192.168.1.9", other), lsn(2, "192.168.1.9", own)];
        assert_eq!(tried(&here, contacts), [2]);
    }

    #[test]
    fn where_the_master_cannot_name_subnets_addresses_tell_and_few_are_tried() {
        let here = Surroundings { prefixes: vec![Prefix::of(ip("10.1.0.0"), 16)], keys: vec![] };
        let near = (1..=9).map(|number| lsn(number, "10.1.2.3", vec![]));
        let contacts = near.chain([lsn(10, "10.2.0.1", vec![])]).rev().collect();
        assert_eq!(tried(&here, contacts), [9, 8, 7, 6]);
    }
}
