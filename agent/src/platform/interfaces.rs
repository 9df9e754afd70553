//! The host's network: the interface of the default route, its prefixes and addresses, and when they change.

use std::collections::BTreeSet;
use std::net::IpAddr;

use muster_net::interfaces::default_route;
use muster_types::Prefix;

/// 127.0.0.0/8 (RFC 1122, section 3.2.1.3).
const LOOPBACK_LENGTH: u8 = 8;

/// Where the host is attached at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attachment {
    /// Global addresses, each with its prefix: the first interface's first, those of one in their own order, so that a mere
    /// reordering changes nothing.
    pub addresses: Vec<(IpAddr, Prefix)>,
    pub gateway: Option<IpAddr>,
    pub wired: bool,
}

impl Attachment {
    /// The attachment through which packets leave the host; empty without a network. A host whose master is on itself
    /// (`alone`) is content with its loopback.
    pub fn current(alone: bool) -> Self {
        let interfaces = default_route();
        let mut addresses = Vec::new();
        for interface in &interfaces {
            let own = interface.addresses.iter().copied().collect::<BTreeSet<_>>();
            addresses
                .extend(own.into_iter().filter(|address| !addresses.contains(address)).collect::<Vec<_>>());
        }
        let attachment = Self {
            addresses,
            gateway: interfaces.iter().find_map(|interface| interface.gateways.first().copied()),
            wired: interfaces.iter().any(|interface| interface.wired),
        };
        if attachment.addresses.is_empty() && alone { Self::loopback() } else { attachment }
    }

    fn loopback() -> Self {
        let ip = IpAddr::from([127, 0, 0, 1]);
        Self { addresses: vec![(ip, Prefix::of(ip, LOOPBACK_LENGTH))], gateway: None, wired: true }
    }

    /// Each once and in order: they name the network, whatever addresses the host has there (RFC 8981 has it draw new ones).
    pub fn prefixes(&self) -> Vec<Prefix> {
        let prefixes: BTreeSet<_> = self.addresses.iter().map(|(_, prefix)| *prefix).collect();
        prefixes.into_iter().collect()
    }
}

/// Whether the host runs on mains: unless a mains supply says it is not connected (sysfs-class-power).
pub fn mains_powered() -> bool {
    let supplies = std::fs::read_dir("/sys/class/power_supply").into_iter().flatten().flatten();
    let online: Vec<_> = supplies
        .filter(|supply| {
            let kind = std::fs::read_to_string(supply.path().join("type")).unwrap_or_default();
            kind.trim() == "Mains"
        })
        .map(|supply| std::fs::read_to_string(supply.path().join("online")).unwrap_or_default())
        .collect();
    online.is_empty() || online.iter().any(|state| state.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_privacy_address_is_no_other_network() {
        let address = |ip: &str| -> (IpAddr, Prefix) {
            let ip: IpAddr = ip.parse().unwrap();
            (ip, Prefix::of(ip, if ip.is_ipv4() { 24 } else { 64 }))
        };
        let attached = |addresses: &[&str]| Attachment {
            addresses: addresses.iter().map(|ip| address(ip)).collect(),
            ..Attachment::default()
        };
        let before = attached(&["192.168.1.7", "2001:db8::1"]);
        for after in [&["2001:db8::1", "2001:db8::2", "192.168.1.7"][..], &["192.168.1.7", "2001:db8::9"]] {
            assert_eq!(attached(after).prefixes(), before.prefixes());
        }
        assert_ne!(attached(&["192.168.2.7", "2001:db8::1"]).prefixes(), before.prefixes());
    }
}
