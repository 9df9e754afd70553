//! What this node says of itself when it attaches.

use bytes::Bytes;
use muster_proto::control::v1::{Hello, LocalPrefix, NodePresence};
use muster_types::version::PROTOCOL;

use crate::identity::Identity;
use crate::inventory;
use crate::platform::interfaces::{self, Attachment};

/// Abilities that not every version has; the kinds of tasks are told by refusing others.
const CAPABILITIES: [&str; 2] = ["task.run", "task.inventory"];

/// The node's description, with the boot nonce of this life.
pub(super) struct Presence {
    boot_nonce: u64,
    host_name: String,
    os: String,
    subnet_keys: Vec<Bytes>,
}

impl Presence {
    pub(super) fn of(_identity: &Identity) -> Self {
        let (name, version) = inventory::os();
        Self {
            boot_nonce: rand::random(),
            host_name: inventory::host_name(),
            os: format!("{name} {version}").trim().to_owned(),
            subnet_keys: Vec::new(),
        }
    }

    /// The keys as topology derives them from what it sees.
    pub(super) fn keys_by_master(&mut self, keys: Vec<Bytes>) {
        self.subnet_keys = keys;
    }

    pub(super) fn subnet_keys(&self) -> Vec<String> {
        self.subnet_keys.iter().map(|key| data_encoding::HEXLOWER.encode(key)).collect()
    }

    /// The Hello of a node without an LSN.
    pub(super) fn hello(&self, identity: &Identity) -> Hello {
        let attachment = Attachment::current().unwrap_or_default();
        let prefix = |(address, length): &(std::net::IpAddr, u8)| LocalPrefix {
            address: octets(*address),
            length: u32::from(*length),
        };
        Hello {
            protocol_version: PROTOCOL,
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: CAPABILITIES.map(str::to_owned).to_vec(),
            boot_nonce: self.boot_nonce,
            ticket: identity.credentials.ticket.clone(),
            claim: None,
            subnet_keys: self.subnet_keys.clone(),
            prefixes: attachment.addresses.iter().map(prefix).collect(),
            resume_token: Bytes::new(),
            last_update: 0,
            presence: Some(self.node_presence(&attachment)),
        }
    }

    pub(super) fn node_presence(&self, attachment: &Attachment) -> NodePresence {
        NodePresence {
            host_name: self.host_name.clone(),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            addresses: attachment.addresses.iter().map(|(address, _)| address.to_string()).collect(),
            wired: attachment.wired,
            mains_powered: interfaces::mains_powered(),
            os: self.os.clone(),
            architecture: inventory::architecture().to_owned(),
            boot_nonce: self.boot_nonce,
            ..NodePresence::default()
        }
    }
}

fn octets(address: std::net::IpAddr) -> Bytes {
    match address {
        std::net::IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        std::net::IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}
