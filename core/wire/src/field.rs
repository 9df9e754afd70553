//! Single fields of protobuf messages to the domain's types and back: bounded, and each error names its field.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use muster_overlay::standing::{Standing, Uptime};
use muster_proto::overlay::v1;
use muster_types::{Address, Contact, NetworkId, NodeId, SubnetKey, limits};
use prost::Message;

use crate::error::WireError;

/// Connected all the time, in basis points.
const FULL_UPTIME: u32 = 10_000;

/// Text that people read (a reason, a host's name): enough for a sentence.
pub(crate) const TEXT_BYTES: usize = 512;

/// Parses a message whose size has been checked.
pub(crate) fn parse<M: Message + Default>(what: &'static str, bytes: &[u8]) -> Result<M, WireError> {
    M::decode(bytes).map_err(|error| WireError::Malformed { what, reason: error.to_string() })
}

pub(crate) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or(WireError::Missing(field))
}

pub(crate) fn node(field: &'static str, bytes: &[u8]) -> Result<NodeId, WireError> {
    NodeId::try_from(bytes).map_err(|error| WireError::invalid(field, error))
}

/// Empty stands for none.
pub(crate) fn optional_node(field: &'static str, bytes: &[u8]) -> Result<Option<NodeId>, WireError> {
    (!bytes.is_empty()).then(|| node(field, bytes)).transpose()
}

pub(crate) fn own_network(field: &'static str, bytes: &[u8], expected: NetworkId) -> Result<(), WireError> {
    let actual = NetworkId::try_from(bytes).map_err(|error| WireError::invalid(field, error))?;
    if actual == expected { Ok(()) } else { Err(WireError::OtherNetwork { field, expected, actual }) }
}

pub(crate) fn same_node(field: &'static str, actual: NodeId, expected: NodeId) -> Result<(), WireError> {
    if actual == expected { Ok(()) } else { Err(WireError::Stranger { field, expected, actual }) }
}

pub(crate) fn at_most<T>(field: &'static str, items: &[T], limit: usize) -> Result<(), WireError> {
    let actual = items.len();
    if actual <= limit { Ok(()) } else { Err(WireError::TooMany { field, actual, limit }) }
}

pub(crate) fn keys(field: &'static str, wire: &[Bytes]) -> Result<Vec<SubnetKey>, WireError> {
    at_most(field, wire, limits::SUBNET_KEYS)?;
    wire.iter()
        .map(|key| SubnetKey::try_from(&key[..]).map_err(|error| WireError::invalid(field, error)))
        .collect()
}

pub(crate) fn text(field: &'static str, text: String) -> Result<String, WireError> {
    let actual = text.len();
    if actual <= TEXT_BYTES {
        Ok(text)
    } else {
        Err(WireError::TooLarge { what: field, actual, limit: TEXT_BYTES })
    }
}

/// What of `text` a receiver accepts.
pub(crate) fn cut_text(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES)].to_owned()
}

pub(crate) fn uptime(field: &'static str, basis_points: u32) -> Result<Uptime, WireError> {
    u16::try_from(basis_points)
        .ok()
        .filter(|_| basis_points <= FULL_UPTIME)
        .map(Uptime)
        .ok_or_else(|| WireError::invalid(field, format!("{basis_points} exceeds {FULL_UPTIME}")))
}

pub(crate) fn percent(field: &'static str, value: u32) -> Result<u8, WireError> {
    u8::try_from(value)
        .ok()
        .filter(|percent| *percent <= 100)
        .ok_or_else(|| WireError::invalid(field, format!("{value} exceeds 100")))
}

pub(crate) fn contact(field: &'static str, wire: Option<v1::Contact>) -> Result<Contact, WireError> {
    let wire = required(field, wire)?;
    at_most(field, &wire.addresses, limits::ADDRESSES)?;
    let addresses = wire.addresses.iter().map(|wire| address(field, wire)).collect::<Result<_, _>>()?;
    Ok(Contact { node: node(field, &wire.node_id)?, addresses })
}

pub(crate) fn address(field: &'static str, wire: &v1::SocketAddress) -> Result<Address, WireError> {
    Ok(Address {
        ip: ip(field, &wire.ip)?,
        udp_port: port(field, wire.udp_port)?,
        tcp_port: port(field, wire.tcp_port)?,
    })
}

fn ip(field: &'static str, bytes: &[u8]) -> Result<IpAddr, WireError> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        Ok(IpAddr::from(octets))
    } else if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
        Ok(IpAddr::from(octets))
    } else {
        Err(WireError::invalid(field, format!("an IP address has 4 or 16 bytes, not {}", bytes.len())))
    }
}

/// Zero stands for none.
fn port(field: &'static str, wire: u32) -> Result<Option<u16>, WireError> {
    let port = u16::try_from(wire).map_err(|_| WireError::invalid(field, format!("{wire} is no port")))?;
    Ok((port != 0).then_some(port))
}

/// Where packets come from, whatever carries them.
pub(crate) fn observed(
    field: &'static str,
    wire: Option<&v1::SocketAddress>,
) -> Result<Option<SocketAddr>, WireError> {
    let Some(wire) = wire else { return Ok(None) };
    let address = address(field, wire)?;
    Ok(address.udp())
}

pub(crate) fn standing(wire: Option<v1::Standing>) -> Standing {
    let v1::Standing { wired, mains_powered } = wire.unwrap_or_default();
    Standing { wired, mains_powered }
}

pub(crate) fn to_bytes(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

pub(crate) fn keys_to_wire(keys: &[SubnetKey]) -> Vec<Bytes> {
    keys.iter().take(limits::SUBNET_KEYS).map(|key| to_bytes(key.as_bytes())).collect()
}

pub(crate) fn optional_node_to_wire(node: Option<NodeId>) -> Bytes {
    node.map(|node| to_bytes(node.as_bytes())).unwrap_or_default()
}

pub(crate) fn contact_to_wire(contact: &Contact) -> v1::Contact {
    v1::Contact {
        node_id: to_bytes(contact.node.as_bytes()),
        addresses: contact.addresses.iter().take(limits::ADDRESSES).map(address_to_wire).collect(),
        subnet_keys: Vec::new(),
    }
}

fn address_to_wire(address: &Address) -> v1::SocketAddress {
    v1::SocketAddress {
        ip: ip_to_wire(address.ip),
        udp_port: address.udp_port.unwrap_or_default().into(),
        tcp_port: address.tcp_port.unwrap_or_default().into(),
    }
}

pub(crate) fn observed_to_wire(observed: SocketAddr) -> v1::SocketAddress {
    let ip = ip_to_wire(observed.ip().to_canonical());
    v1::SocketAddress { ip, udp_port: observed.port().into(), tcp_port: 0 }
}

fn ip_to_wire(ip: IpAddr) -> Bytes {
    match ip {
        IpAddr::V4(ip) => to_bytes(&ip.octets()),
        IpAddr::V6(ip) => to_bytes(&ip.octets()),
    }
}

pub(crate) fn standing_to_wire(standing: Standing) -> v1::Standing {
    v1::Standing { wired: standing.wired, mains_powered: standing.mains_powered }
}
