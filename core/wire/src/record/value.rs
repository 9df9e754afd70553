//! What a record says, and who may say it under which key.

use bytes::Bytes;
use muster_overlay::dht::Kind;
use muster_proto::overlay::v1::{self, record};
use muster_proto::trust::v1::Envelope;
use muster_types::{Contact, Key, NetworkId, NodeId, SubnetKey};
use ring::digest::{SHA256, digest};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{revocations_key, root_key};
use crate::error::WireError;
use crate::field;
use crate::revocation::base_of;

/// Subnets that a node's contact names: more would leave no room for its ticket.
const SUBNETS: usize = 4;

/// Super nodes that an LSN's record names: one, and the one beside it.
pub const VIA: usize = 2;

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Where its publisher is, and in which subnets: under their keys its LSN is found.
    Contact(Contact, Vec<SubnetKey>),
    /// Its publisher is the LSN of this subnet.
    Subnet {
        subnet: SubnetKey,
        lsn: Contact,
        lineage: u64,
        epoch: u64,
        /// Super nodes with which it holds sessions, while it has no master.
        via: Vec<Contact>,
    },
    /// Its publisher holds the content that hashes to the key.
    Holder {
        holder: Contact,
        subnet: Option<SubnetKey>,
    },
    /// The ticket beside it holds the keys.
    NodeKeys,
    /// DER; the network's id proves it.
    Root(Bytes),
    Gsn {
        contact: Contact,
        reliability_basis_points: u32,
    },
    /// Signed by the master; believed by that signature alone.
    Revocations(Envelope),
    Opaque(Bytes),
}

impl Value {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Contact(..) => Kind::Contact,
            Self::Subnet { .. } => Kind::Subnet,
            Self::Holder { .. } => Kind::Holders,
            Self::NodeKeys => Kind::NodeKeys,
            Self::Root(_) => Kind::Root,
            Self::Gsn { .. } => Kind::Gsn,
            Self::Revocations(_) => Kind::Revocations,
            Self::Opaque(_) => Kind::Opaque,
        }
    }

    /// Whether `publisher` may say this under `key`.
    pub(super) fn check(&self, key: Key, publisher: NodeId, network: NetworkId) -> Result<(), WireError> {
        let own = Key::from(publisher);
        match self {
            Self::Contact(contact, _) => {
                field::same_node("record.contact", contact.node, publisher)?;
                under("a contact stands under its node's id", key, own)
            }
            Self::NodeKeys => under("keys stand under their node's id", key, own),
            Self::Subnet { subnet, lsn, .. } => {
                field::same_node("record.subnet.lsn", lsn.node, publisher)?;
                under("an LSN stands under its subnet's key", key, (*subnet).into())
            }
            Self::Holder { holder, .. } => field::same_node("record.holder", holder.node, publisher),
            Self::Root(certificate) => {
                under("the root stands under the network's root key", key, root_key(network))?;
                check_root(certificate, network)
            }
            Self::Revocations(sealed) => {
                let expected = revocations_key(network, base_of(sealed)?);
                under("revocations stand under the number that they follow", key, expected)
            }
            Self::Gsn { .. } | Self::Opaque(_) => Ok(()),
        }
    }

    pub(super) fn to_wire(&self) -> record::Value {
        let contact = field::contact_to_wire;
        let optional = |subnet: &Option<SubnetKey>| {
            subnet.map(|subnet| field::to_bytes(subnet.as_bytes())).unwrap_or_default()
        };
        match self {
            Self::Contact(own, subnets) => {
                let subnet_keys = field::keys_to_wire(&subnets[..subnets.len().min(SUBNETS)]);
                record::Value::Contact(v1::Contact { subnet_keys, ..contact(own) })
            }
            Self::Subnet { subnet, lsn, lineage, epoch, via } => record::Value::Subnet(v1::SubnetValue {
                subnet_key: field::to_bytes(subnet.as_bytes()),
                lsn: Some(contact(lsn)),
                lineage: *lineage,
                epoch: *epoch,
                via: via.iter().take(VIA).map(contact).collect(),
            }),
            Self::Holder { holder, subnet } => record::Value::Holder(v1::HolderValue {
                holder: Some(contact(holder)),
                subnet_key: optional(subnet),
            }),
            Self::NodeKeys => record::Value::NodeKeys(v1::NodeKeysValue {}),
            Self::Root(certificate) => record::Value::Certificate(certificate.clone()),
            Self::Gsn { contact: gsn, reliability_basis_points } => record::Value::Gsn(v1::GsnValue {
                contact: Some(contact(gsn)),
                reliability_basis_points: *reliability_basis_points,
            }),
            Self::Revocations(signed) => record::Value::Signed(signed.clone()),
            Self::Opaque(bytes) => record::Value::Opaque(bytes.clone()),
        }
    }

    pub(super) fn from_wire(wire: record::Value) -> Result<Self, WireError> {
        let subnet = |bytes: &Bytes| {
            SubnetKey::try_from(&bytes[..]).map_err(|error| WireError::invalid("record.subnet_key", error))
        };
        Ok(match wire {
            record::Value::Contact(contact) => {
                let subnets = field::keys("record.contact.subnet_keys", &contact.subnet_keys)?;
                Self::Contact(field::contact("record.contact", Some(contact))?, subnets)
            }
            record::Value::Subnet(value) => Self::Subnet {
                subnet: subnet(&value.subnet_key)?,
                lsn: field::contact("record.subnet.lsn", value.lsn)?,
                lineage: value.lineage,
                epoch: value.epoch,
                via: contacts("record.subnet.via", value.via)?,
            },
            record::Value::Holder(value) => Self::Holder {
                holder: field::contact("record.holder", value.holder)?,
                subnet: (!value.subnet_key.is_empty()).then(|| subnet(&value.subnet_key)).transpose()?,
            },
            record::Value::NodeKeys(_) => Self::NodeKeys,
            record::Value::Certificate(certificate) => Self::Root(certificate),
            record::Value::Gsn(value) => Self::Gsn {
                contact: field::contact("record.gsn", value.contact)?,
                reliability_basis_points: field::uptime(
                    "record.gsn.reliability_basis_points",
                    value.reliability_basis_points,
                )?
                .0
                .into(),
            },
            record::Value::Signed(signed) => Self::Revocations(signed),
            record::Value::Opaque(bytes) => Self::Opaque(bytes),
        })
    }
}

fn contacts(name: &'static str, wire: Vec<v1::Contact>) -> Result<Vec<Contact>, WireError> {
    field::at_most(name, &wire, VIA)?;
    wire.into_iter().map(|contact| field::contact(name, Some(contact))).collect()
}

fn under(rule: &'static str, actual: Key, expected: Key) -> Result<(), WireError> {
    if actual == expected {
        Ok(())
    } else {
        Err(WireError::Invalid { field: "record.key", reason: format!("{rule}, {expected}, not {actual}") })
    }
}

/// The network's id is the beginning of the hash of its first root's key.
fn check_root(certificate: &[u8], network: NetworkId) -> Result<(), WireError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| WireError::invalid("record.certificate", error))?;
    let hash = digest(&SHA256, parsed.public_key().raw);
    let actual = NetworkId::try_from(&hash.as_ref()[..NetworkId::LEN])
        .map_err(|error| WireError::invalid("record.certificate", error))?;
    field::own_network("record.certificate", actual.as_bytes(), network)
}
