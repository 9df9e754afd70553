//! The relays that the registry lists: the master's own, which are fast, then super nodes, which give what their owners let
//! them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use muster_proto::gsn::v1::{Relay, SuperNode};
use muster_types::{Address, Contact};
use muster_wire::gsn;
use tokio::net::lookup_host;
use tokio::time::timeout;

/// Super nodes of the hash table that are looked at.
const NODES: usize = 8;

/// One relay.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// As tickets mean it.
    pub(super) name: String,
    /// It takes new sessions.
    pub(super) open: bool,
    pub(super) place: Place,
}

/// How a relay is reached.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Service(Relay),
    Node(Contact),
}

/// In the order in which they are tried.
pub(super) fn all(relays: Vec<Relay>, super_nodes: Vec<SuperNode>) -> Vec<Known> {
    let services = relays.into_iter().map(|relay| Known {
        name: relay.name.clone(),
        open: !relay.draining,
        place: Place::Service(relay),
    });
    let nodes = super_nodes.into_iter().filter_map(|node| {
        let contact = gsn::contact_from_wire("super_node.contact", node.contact).ok()?;
        let open = node.caps.is_some_and(|caps| caps.relaying_bytes_per_second > 0);
        Some(Known { name: gsn::relay_name(contact.node), open, place: Place::Node(contact) })
    });
    services.chain(nodes).collect()
}

/// Super nodes that stand in the hash table.
pub(super) fn nodes(contacts: Vec<Contact>) -> Vec<Known> {
    let known = |contact: Contact| Known {
        name: gsn::relay_name(contact.node),
        open: true,
        place: Place::Node(contact),
    };
    contacts.into_iter().take(NODES).map(known).collect()
}

impl Place {
    /// For people.
    pub(super) fn addresses(&self) -> Vec<String> {
        match self {
            Self::Service(relay) => tcp_addresses(relay),
            Self::Node(contact) => udp(contact).map(|at| at.to_string()).collect(),
        }
    }

    /// Where it answers how it sees this node (STUN).
    pub(super) async fn sees_us(&self) -> Vec<SocketAddr> {
        match self {
            Self::Service(relay) => udp_address(relay).await.into_iter().collect(),
            Self::Node(contact) => udp(contact).collect(),
        }
    }
}

fn udp(contact: &Contact) -> impl Iterator<Item = SocketAddr> {
    contact.addresses.iter().filter_map(Address::udp)
}

pub(super) fn tcp_addresses(relay: &Relay) -> Vec<String> {
    let address = |host: &str, port: u32| match host.parse() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
        _ => format!("{host}:{port}"),
    };
    relay.addresses.iter().map(|it| address(&it.host, it.tcp_port)).collect()
}

/// Names have so long to resolve: behind a proxy nobody may answer for them, and the stream finds its own way.
const RESOLVED: Duration = Duration::from_secs(1);

/// The first that has a UDP port and resolves in time.
pub(super) async fn udp_address(relay: &Relay) -> Option<SocketAddr> {
    for address in &relay.addresses {
        let Some(port) = u16::try_from(address.udp_port).ok().filter(|port| *port != 0) else { continue };
        let found = timeout(RESOLVED, lookup_host((address.host.as_str(), port))).await;
        if let Ok(Ok(mut found)) = found
            && let Some(found) = found.next()
        {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use muster_proto::gsn::v1::RelayAddress;

    use super::*;

    #[tokio::test]
    async fn a_relay_whose_first_address_has_no_udp_is_asked_at_its_second() {
        let address = |host: &str, udp_port| RelayAddress { host: host.to_owned(), tcp_port: 443, udp_port };
        let addresses = vec![address("192.0.2.1", 0), address("192.0.2.2", 9)];
        let relay = Relay { addresses, ..Relay::default() };
        assert_eq!(udp_address(&relay).await, Some(SocketAddr::from(([192, 0, 2, 2], 9))));
    }
}
