//! Messages of the registry of super nodes, as both its callers and the registry itself read and write them.

use std::net::SocketAddr;

use bytes::Bytes;
use muster_proto::gsn::v1;
use muster_proto::overlay::v1 as overlay;
use muster_types::{Contact, NodeId, SubnetKey};

use crate::error::WireError;
use crate::field;

/// The name by which tickets mean a node that relays: its id in hexadecimal digits. No relay of the master's has it.
pub fn relay_name(node: NodeId) -> String {
    node.to_string()
}

/// A GSN, as the registry lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuperNode {
    pub contact: Contact,
    pub noise_key: [u8; 32],
    /// 0 to 10,000.
    pub reliability: u16,
    pub load_percent: u8,
    pub same_subnet: bool,
}

impl SuperNode {
    /// # Errors
    /// A field is missing or malformed.
    pub fn from_wire(wire: v1::SuperNode) -> Result<Self, WireError> {
        let noise_key = <[u8; 32]>::try_from(&wire.noise_key[..])
            .map_err(|_| WireError::invalid("super_node.noise_key", "it has not 32 bytes"))?;
        Ok(Self {
            contact: field::contact("super_node.contact", wire.contact)?,
            noise_key,
            reliability: field::uptime("super_node.reliability_basis_points", wire.reliability_basis_points)?
                .0,
            load_percent: field::percent("super_node.load_percent", wire.load_percent)?,
            same_subnet: wire.same_subnet,
        })
    }
}

/// # Errors
/// It is missing, its node is none, or it has too many addresses.
pub fn contact_from_wire(what: &'static str, wire: Option<overlay::Contact>) -> Result<Contact, WireError> {
    field::contact(what, wire)
}

pub fn contact_to_wire(contact: &Contact) -> overlay::Contact {
    field::contact_to_wire(contact)
}

/// # Errors
/// It is missing, or has no UDP port.
pub fn address_from_wire(
    what: &'static str,
    wire: Option<&overlay::SocketAddress>,
) -> Result<SocketAddr, WireError> {
    field::required(what, field::observed(what, wire)?)
}

pub fn address_to_wire(address: SocketAddr) -> overlay::SocketAddress {
    field::observed_to_wire(address)
}

/// # Errors
/// There are too many, or one has a wrong length.
pub fn keys_from_wire(what: &'static str, wire: &[Bytes]) -> Result<Vec<SubnetKey>, WireError> {
    field::keys(what, wire)
}

pub fn keys_to_wire(keys: &[SubnetKey]) -> Vec<Bytes> {
    field::keys_to_wire(keys)
}
