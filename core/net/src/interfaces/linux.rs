//! Default routes as Linux lists them for this process's own network namespace.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// RTF_REJECT (linux/route.h): a route that leads nowhere, as every host without IPv6 has one.
const REJECT: u32 = 0x0200;

/// Gateways by interface name.
pub(super) fn default_routes() -> HashMap<String, Vec<IpAddr>> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (v4, v6) = (read("/proc/self/net/route"), read("/proc/self/net/ipv6_route"));
    let mut routes: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for (name, gateway) in v4.lines().filter_map(v4_default).chain(v6.lines().filter_map(v6_default)) {
        let gateways = routes.entry(name).or_default();
        if !gateway.is_unspecified() && !gateways.contains(&gateway) {
            gateways.push(gateway);
        }
    }
    routes
}

pub(super) fn is_bridge(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).join("bridge").exists()
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask ...`, addresses in the machine's byte order.
fn v4_default(line: &str) -> Option<(String, IpAddr)> {
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let number = |index: usize| u32::from_str_radix(fields.get(index)?, 16).ok();
    let default = number(1)? == 0 && number(7)? == 0 && number(3)? & REJECT == 0;
    let gateway = Ipv4Addr::from(number(2)?.to_ne_bytes());
    default.then(|| (fields[0].to_owned(), gateway.into()))
}

/// `destination length source length next-hop metric refcount use flags interface`, in hexadecimal.
fn v6_default(line: &str) -> Option<(String, IpAddr)> {
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let [destination, length, _, _, gateway, _, _, _, flags, name] = fields.as_slice() else { return None };
    let number = |text: &str| u128::from_str_radix(text, 16).ok();
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let default = number(destination)? == 0 && *length == "00" && flags & REJECT == 0 && *name != "lo";
    default.then_some(((*name).to_owned(), Ipv6Addr::from_bits(number(gateway)?).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_route_is_told_from_the_others() {
        let line = "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0";
        let expected = ("eth0".to_owned(), "192.168.1.1".parse().unwrap());
        assert_eq!(v4_default(line), Some(expected));
        assert_eq!(v4_default("eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"), None);
        assert_eq!(v4_default("Iface\tDestination\tGateway \tFlags"), None);
    }

    #[test]
    fn an_ipv6_default_route_is_told_from_the_one_that_leads_nowhere() {
        let zero = "0".repeat(32);
        let gateway = "fe800000000000000000000000000001";
        let line =
            |flags, name| format!("{zero} 00 {zero} 00 {gateway} 00000400 00000001 00000000 {flags} {name}");
        assert_eq!(
            v6_default(&line("00000003", "eth0")),
            Some(("eth0".to_owned(), "fe80::1".parse().unwrap()))
        );
        assert_eq!(v6_default(&line("00200200", "lo")), None);
    }
}
