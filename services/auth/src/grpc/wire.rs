//! Auth's records to protobuf messages and back.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use muster_kit::status::Fault;
use muster_proto::auth::v1 as wire;
use muster_proto::payload_type::NODE_TICKET;
use muster_proto::trust::v1::{Envelope, NodeTicket, TrustBundle};
use muster_types::{Role, Timestamp};
use muster_wire::{envelope, time};
use prost::Message;

use super::contacts::{Contacts, octets};
use super::{Whereabouts, fault};
use crate::domain::Authority;
use crate::domain::principal::Ticket;
use crate::domain::request::{CertificateRequest, NodeKeys, RequestError};
use crate::domain::signer::Purpose;
use crate::service::Admission;

/// A UUID in its customary form.
const UUID_CHARS: usize = 36;

/// What every set of credentials says beside the certificate.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    whereabouts: Arc<Whereabouts>,
    contacts: Contacts,
}

impl Directory {
    pub(super) fn new(whereabouts: Whereabouts, contacts: Contacts) -> Self {
        Self { whereabouts: Arc::new(whereabouts), contacts }
    }

    /// Devices pin it, and judge it themselves.
    fn operator_policy(&self) -> Option<Envelope> {
        let bytes = std::fs::read(&self.whereabouts.operator_policy_file).ok()?;
        Envelope::decode(&bytes[..])
            .inspect_err(
                |error| tracing::error!(%error, "the operators' policy cannot be read; devices pin none"),
            )
            .ok()
    }

    /// The answer to whoever was enrolled; `source` is where it called from.
    pub(super) fn enrolled(
        &self,
        admission: &Admission,
        source: Option<IpAddr>,
    ) -> Result<wire::Credentials, Fault> {
        let is_node = admission.principal.identity.node_id().is_some();
        let contacts = if is_node { self.contacts.claims_for(source) } else { Vec::new() };
        let observed_ip = source.map(octets).unwrap_or_default();
        Ok(wire::Credentials { contacts, observed_ip, ..self.credentials(admission)? })
    }

    /// The answer to whoever was renewed.
    pub(super) fn credentials(&self, admission: &Admission) -> Result<wire::Credentials, Fault> {
        let Admission { principal, leaf, ticket, authority, time } = admission;
        let ticket = ticket.as_ref().map(|ticket| {
            sign(authority, Purpose::Tickets, NODE_TICKET, ticket_to_wire(ticket).encode_to_vec().into())
        });
        let node_id = principal.identity.node_id();
        Ok(wire::Credentials {
            network_id: Bytes::copy_from_slice(authority.network().as_bytes()),
            role: role_to_wire(principal.identity.role).into(),
            node_id: node_id.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.as_bytes())),
            name: principal.resource_name(),
            certificate_chain: [vec![leaf.der.clone().into()], bytes(&authority.chain())].concat(),
            ticket: ticket.transpose()?,
            trust_bundle: Some(trust_bundle(authority, *time)),
            master_addresses: self.whereabouts.addresses.clone(),
            contacts: Vec::new(),
            observed_ip: Bytes::new(),
            master_time: Some(time::to_wire(*time)),
            discovery_domain: self.whereabouts.discovery_domain.clone(),
            operator_policy: self.operator_policy(),
        })
    }
}

/// Signs by the signer of `purpose`.
pub(super) fn sign(
    authority: &Authority,
    purpose: Purpose,
    payload_type: &'static str,
    payload: Bytes,
) -> Result<Envelope, Fault> {
    let signer = authority.signer(purpose);
    envelope::sign_p256(payload_type, payload, &signer.key, envelope::key_id(&signer.spki)).map_err(|_| {
        tracing::error!("the system has no randomness to sign with");
        muster_kit::status::fault(tonic::Code::Internal, "AUTHORITY_FAILED", "signing failed; try again")
    })
}

pub(super) fn trust_bundle(authority: &Authority, now: Timestamp) -> TrustBundle {
    let issuing = authority.issuing().iter().map(|issuing| issuing.certificate.clone().into());
    TrustBundle {
        version: authority.version(),
        roots: bytes(authority.roots()),
        authorities: issuing.chain(bytes(authority.crosses())).collect(),
        signers: authority.signers(now).map(Bytes::copy_from_slice).collect(),
        withdrawals: authority.withdrawals(now).map(Bytes::copy_from_slice).collect(),
    }
}

fn bytes(ders: &[Vec<u8>]) -> Vec<Bytes> {
    ders.iter().map(|der| Bytes::copy_from_slice(der)).collect()
}

fn ticket_to_wire(ticket: &Ticket) -> NodeTicket {
    NodeTicket {
        node_id: Bytes::copy_from_slice(ticket.node.as_bytes()),
        certificate_serial: ticket.serial.clone().into(),
        noise_key: Bytes::copy_from_slice(&ticket.keys.noise),
        sealing_key: Bytes::copy_from_slice(&ticket.keys.sealing),
        signing_key: Bytes::copy_from_slice(&ticket.keys.signing),
        not_before_time: Some(time::to_wire(ticket.not_before)),
        not_after_time: Some(time::to_wire(ticket.not_after)),
        labels: ticket.labels.clone().into_iter().collect(),
        enrollment_generation: ticket.generation,
    }
}

pub(super) fn is_uuid(text: &str) -> bool {
    text.len() == UUID_CHARS
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

pub(super) fn node_keys(
    keys: Option<wire::NodeKeys>,
    request: &CertificateRequest,
) -> Result<Option<NodeKeys>, RequestError> {
    keys.map(|keys| {
        let wire::NodeKeys { noise_key, sealing_key, signing_key, signing_proof } = &keys;
        NodeKeys::proven(noise_key, sealing_key, signing_key, signing_proof, request)
    })
    .transpose()
}

pub(super) fn role_to_wire(role: Role) -> wire::Role {
    match role {
        Role::Node => wire::Role::Node,
        Role::Admin => wire::Role::Admin,
        Role::Operator => wire::Role::Operator,
        Role::Auditor => wire::Role::Auditor,
        Role::Cmdb => wire::Role::Cmdb,
        Role::Service => wire::Role::Service,
        Role::Signer => wire::Role::Unspecified,
    }
}

pub(super) fn role_from_wire(role: i32) -> Result<Role, Fault> {
    match wire::Role::try_from(role) {
        Ok(wire::Role::Node) => Ok(Role::Node),
        Ok(wire::Role::Admin) => Ok(Role::Admin),
        Ok(wire::Role::Operator) => Ok(Role::Operator),
        Ok(wire::Role::Auditor) => Ok(Role::Auditor),
        Ok(wire::Role::Cmdb) => Ok(Role::Cmdb),
        Ok(wire::Role::Service) => Ok(Role::Service),
        Ok(wire::Role::Unspecified) | Err(_) => {
            Err(fault::invalid("LINK_TERMS_INVALID", "role is missing or unknown"))
        }
    }
}
