//! The host's network: the interface of the default route, its prefixes and addresses, and when they change.

use std::net::IpAddr;

use muster_types::Prefix;

/// The default-route interface of this moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attachment {
    pub interface: String,
    /// Global addresses, IPv4 first, each with its prefix's length.
    pub addresses: Vec<(IpAddr, u8)>,
    pub gateway: Option<IpAddr>,
    pub wired: bool,
}

impl Attachment {
    /// The attachment through which packets leave the host; `None` without a network.
    pub fn current() -> Option<Self> {
        let interface = netdev::get_default_interface().ok()?;
        let v4 = interface.ipv4.iter().map(|net| (IpAddr::V4(net.addr()), net.prefix_len()));
        let v6 = interface.ipv6.iter().filter(|net| !net.addr().is_unicast_link_local());
        let v6 = v6.map(|net| (IpAddr::V6(net.addr()), net.prefix_len()));
        let gateway = interface.gateway.as_ref().and_then(|gateway| {
            let v4 = gateway.ipv4.first().copied().map(IpAddr::V4);
            v4.or_else(|| gateway.ipv6.first().copied().map(IpAddr::V6))
        });
        let wired = !matches!(interface.if_type, netdev::interface::types::InterfaceType::Wireless80211);
        Some(Self { addresses: v4.chain(v6).collect(), gateway, wired, interface: interface.name })
    }

    pub fn prefixes(&self) -> Vec<Prefix> {
        self.addresses.iter().map(|(address, length)| Prefix::of(*address, *length)).collect()
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
