//! The interfaces that lead out: those with a default route, bridges and tunnels left out, and when they change.

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod routes;
#[cfg(not(target_os = "linux"))]
#[path = "other.rs"]
mod routes;
mod watch;

use std::collections::HashMap;
use std::net::IpAddr;

use muster_types::Prefix;
use netdev::interface::types::InterfaceType;

pub(crate) use watch::watch;

/// Interfaces that one host reports; more than a few default routes are somebody's experiment.
const INTERFACES: usize = 8;

/// One interface with a default route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    /// Neither Wi-Fi nor mobile.
    pub wired: bool,
    /// This host's addresses, with the prefix that each lies in; link-local ones left out.
    pub addresses: Vec<(IpAddr, Prefix)>,
    /// Next hops of the default routes; none where the route names only the interface.
    pub gateways: Vec<IpAddr>,
}

impl Interface {
    /// Whether packets from this address come from this interface's network.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|(_, prefix)| prefix.contains(address))
    }
}

/// What the system says now, in its own order.
pub fn default_route() -> Vec<Interface> {
    let routes = routes::default_routes();
    let interfaces = netdev::get_interfaces().into_iter().filter(counts);
    interfaces.filter_map(|interface| describe(&interface, &routes)).take(INTERFACES).collect()
}

fn counts(interface: &netdev::Interface) -> bool {
    interface.is_up()
        && !interface.is_loopback()
        && !interface.is_point_to_point()
        && !matches!(interface.if_type, InterfaceType::Tunnel | InterfaceType::Ppp | InterfaceType::Bridge)
        && !routes::is_bridge(&interface.name)
}

fn describe(interface: &netdev::Interface, routes: &HashMap<String, Vec<IpAddr>>) -> Option<Interface> {
    let gateways = routes.get(&interface.name)?.clone();
    let v4 = interface.ipv4.iter().map(|net| (IpAddr::from(net.addr()), net.prefix_len()));
    let v6 = interface.ipv6.iter().filter(|net| !net.addr().is_unicast_link_local());
    let v6 = v6.map(|net| (IpAddr::from(net.addr()), net.prefix_len()));
    let addresses = v4.chain(v6).map(|(ip, length)| (ip, Prefix::of(ip, length))).collect();
    let wired = !matches!(interface.if_type, InterfaceType::Wireless80211 | InterfaceType::Wwan);
    Some(Interface { index: interface.index, name: interface.name.clone(), wired, addresses, gateways })
}
