//! What this node says of itself when it attaches.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use muster_overlay::input::Network;
use muster_overlay::intent::{Change, Presence as Shown, Update};
use muster_overlay::standing::Standing;
use muster_proto::control::v1::{
    Hello, LocalPrefix, NodeDeparture, NodePresence, PresenceChange, PresenceUpdate, presence_change,
};
use muster_types::limits::ADDRESSES;
use muster_types::version::PROTOCOL;
use muster_types::{Address, NodeId, Prefix, SubnetKey, Version};
use muster_wire::Signer;
use muster_wire::hello::{self, Host};
use muster_wire::time::span_to_wire;

use crate::driver::contacts::Surroundings;
use crate::driver::overlay::Overlay;
use crate::identity::Identity;
use crate::inventory;
use crate::platform::interfaces::{self, Attachment};

/// This agent's version, as peers and people see it.
const SOFTWARE: &str = env!("CARGO_PKG_VERSION");

/// Abilities that not every version has; the kinds of tasks are told by refusing others.
const CAPABILITIES: [&str; 4] = ["task.run", "task.inventory", "task.lock", "task.erase"];

/// The node's description, with the boot nonce of this life.
pub(super) struct Presence {
    boot_nonce: u64,
    host_name: String,
    os: String,
    subnet_keys: Vec<Bytes>,
    attachment: Attachment,
    network: Network,
    /// The master is on this host.
    alone: bool,
}

impl Presence {
    pub(super) fn new(master_addresses: &[String]) -> Self {
        let (name, version) = inventory::os();
        Self {
            boot_nonce: rand::random(),
            host_name: inventory::host_name(),
            os: format!("{name} {version}").trim().to_owned(),
            subnet_keys: Vec::new(),
            attachment: Attachment::default(),
            network: Network::default(),
            alone: !master_addresses.is_empty()
                && master_addresses.iter().all(|address| is_loopback(address)),
        }
    }

    pub(super) fn boot_nonce(&self) -> u64 {
        self.boot_nonce
    }

    pub(super) fn version(&self) -> Version {
        SOFTWARE.parse().unwrap_or_default()
    }

    /// Looks at the host's network; answers what it is now if it is not what it was.
    pub(super) fn look(&mut self, port: u16) -> Option<Network> {
        let attachment = Attachment::current(self.alone);
        let address =
            |(ip, _): &(IpAddr, Prefix)| Address { ip: *ip, udp_port: Some(port), tcp_port: Some(port) };
        let standing = Standing { wired: attachment.wired, mains_powered: interfaces::mains_powered() };
        let network = Network {
            addresses: attachment.addresses.iter().map(address).take(ADDRESSES).collect(),
            prefixes: attachment.prefixes(),
            gateway: attachment.gateway,
            standing,
        };
        self.attachment = attachment;
        let changed = network != self.network;
        self.network = network.clone();
        changed.then_some(network)
    }

    /// Names the network that the host is on, for what is remembered of it.
    pub(super) fn place(&self) -> String {
        let prefixes: Vec<_> = self.network.prefixes.iter().map(ToString::to_string).collect();
        let gateway = self.network.gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
        format!("{gateway} {}", prefixes.join(" "))
    }

    /// The keys as topology derives them from what it sees.
    pub(super) fn keys_by_master(&mut self, keys: Vec<Bytes>) {
        self.subnet_keys = keys;
    }

    pub(super) fn addresses(&self) -> Vec<Address> {
        self.network.addresses.clone()
    }

    /// The subnet keys that the master would derive if it saw this host's own addresses.
    pub(super) fn untranslated_keys(&self) -> Vec<SubnetKey> {
        let derive = |(address, prefix): &(IpAddr, Prefix)| SubnetKey::derive(*prefix, *address);
        self.attachment.addresses.iter().filter_map(derive).collect()
    }

    /// What tells neighbors from others; `enrolled_from` is where auth saw this device.
    pub(super) fn surroundings(&self, enrolled_from: &[u8]) -> Surroundings {
        let prefixes = self.network.prefixes.clone();
        let by_master = self.subnet_keys.iter().filter_map(|key| SubnetKey::try_from(&key[..]).ok());
        let mut keys: Vec<_> = by_master.chain(self.untranslated_keys()).collect();
        if let Some(public) = address(enrolled_from) {
            keys.extend(prefixes.iter().filter_map(|prefix| SubnetKey::derive(*prefix, public)));
        }
        Surroundings { prefixes, keys }
    }

    /// The Hello of the control channel, without a claim.
    pub(super) fn hello(&self, identity: &Identity) -> Hello {
        let prefix = |(address, prefix): &(IpAddr, Prefix)| LocalPrefix {
            address: octets(*address),
            length: u32::from(prefix.length()),
        };
        Hello {
            protocol_version: PROTOCOL,
            software_version: SOFTWARE.to_owned(),
            capabilities: CAPABILITIES.map(str::to_owned).to_vec(),
            boot_nonce: self.boot_nonce,
            ticket: identity.credentials.ticket.clone(),
            claim: None,
            subnet_keys: self.subnet_keys.clone(),
            prefixes: self.attachment.addresses.iter().map(prefix).collect(),
            resume_token: Bytes::new(),
            last_update: 0,
            known_revocation: 0,
            presence: Some(self.node_presence()),
        }
    }

    /// The Hello of sessions between nodes.
    pub(super) fn overlay_hello(&self, signer: &Signer) -> Bytes {
        let host = Host {
            name: self.host_name.clone(),
            os: self.os.clone(),
            architecture: inventory::architecture().to_owned(),
        };
        hello::encode(&host, self.version(), &CAPABILITIES.map(str::to_owned), signer)
    }

    pub(super) fn node_presence(&self) -> NodePresence {
        NodePresence {
            host_name: self.host_name.clone(),
            software_version: SOFTWARE.to_owned(),
            addresses: addresses_to_wire(&self.network.addresses),
            wired: self.network.standing.wired,
            mains_powered: self.network.standing.mains_powered,
            os: self.os.clone(),
            architecture: inventory::architecture().to_owned(),
            boot_nonce: self.boot_nonce,
            ..NodePresence::default()
        }
    }

    /// An LSN's changes with what only the sessions know of its children.
    pub(super) fn update_to_wire(&self, update: &Update, overlay: &Overlay) -> PresenceUpdate {
        let change = |change: &Change| PresenceChange {
            node_id: Bytes::copy_from_slice(change.node.as_bytes()),
            change: Some(match &change.presence {
                Shown::Attached { attach, contact, version, standing } => {
                    let mut shown = child_presence(change.node, overlay);
                    shown.attach = overlay.sealed_attach(attach);
                    shown.software_version = version.to_string();
                    shown.addresses = addresses_to_wire(&contact.addresses);
                    (shown.wired, shown.mains_powered) = (standing.wired, standing.mains_powered);
                    presence_change::Change::Attached(shown)
                }
                Shown::Departed(part) => presence_change::Change::Departed(NodeDeparture {
                    code: part.as_ref().map_or(0, |part| part.code.0.into()),
                    description: part.as_ref().map_or_else(String::new, |part| part.description.clone()),
                }),
            }),
        };
        let changes = update.changes.iter().map(change).collect();
        PresenceUpdate { number: update.number, snapshot: update.snapshot, changes }
    }
}

fn child_presence(child: NodeId, overlay: &Overlay) -> NodePresence {
    let Some((session, hello)) = overlay.hello_of(child) else { return NodePresence::default() };
    NodePresence {
        ticket: Some(hello.sealed_ticket),
        host_name: hello.host.name,
        os: hello.host.os,
        architecture: hello.host.architecture,
        boot_nonce: hello.boot_nonce,
        round_trip: session.rtt().map(span_to_wire),
        path: session.path().as_str().to_owned(),
        ..NodePresence::default()
    }
}

fn is_loopback(address: &str) -> bool {
    let socket = address.parse::<SocketAddr>().map(|address| address.ip().is_loopback());
    socket.unwrap_or_else(|_| address.starts_with("localhost:"))
}

/// "ip:port", best first.
fn addresses_to_wire(addresses: &[Address]) -> Vec<String> {
    let text = |address: &Address| address.udp().or_else(|| address.tcp()).map(|address| address.to_string());
    addresses.iter().filter_map(text).take(ADDRESSES).collect()
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

fn octets(address: IpAddr) -> Bytes {
    match address {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}
