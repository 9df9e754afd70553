//! The host's network: the interface of the default route, its prefixes and addresses, and when they change.

use std::net::IpAddr;

use muster_net::interfaces::default_route;
use muster_types::Prefix;

/// 127.0.0.0/8 (RFC 1122, section 3.2.1.3).
const LOOPBACK_LENGTH: u8 = 8;

/// Where the host is attached at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attachment {
    /// Global addresses, each with its prefix.
    pub addresses: Vec<(IpAddr, Prefix)>,
    pub gateway: Option<IpAddr>,
    pub wired: bool,
}

impl Attachment {
    /// The attachment through which packets leave the host; empty without a network. A host whose master is on itself
    /// (`alone`) is content with its loopback.
    pub fn current(alone: bool) -> Self {
        let interfaces = default_route();
        let attachment = Self {
            addresses: interfaces.iter().flat_map(|interface| interface.addresses.clone()).collect(),
            gateway: interfaces.iter().find_map(|interface| interface.gateways.first().copied()),
            wired: interfaces.iter().any(|interface| interface.wired),
        };
        if attachment.addresses.is_empty() && alone { Self::loopback() } else { attachment }
    }

    fn loopback() -> Self {
        let ip = IpAddr::from([127, 0, 0, 1]);
        Self { addresses: vec![(ip, Prefix::of(ip, LOOPBACK_LENGTH))], gateway: None, wired: true }
    }

    pub fn prefixes(&self) -> Vec<Prefix> {
        self.addresses.iter().map(|(_, prefix)| *prefix).collect()
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
