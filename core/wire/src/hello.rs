//! The first message each way: which version, which keys, which run of the agent. Everything after is read
//! with it at hand.

use bytes::Bytes;
use muster_proto::overlay::v1::{self, session_message::Body};
use muster_proto::trust::v1::Envelope;
use muster_types::{NodeId, Version, version};
use prost::Message;

use crate::error::WireError;
use crate::field;
use crate::frame;
use crate::signer::Signer;
use crate::ticket::NodeTicket;
use crate::verifier::Verifier;

/// Capabilities that one node may name.
const CAPABILITIES: usize = 64;

/// The host as it calls itself: shown to people, never trusted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    pub name: String,
    pub os: String,
    pub architecture: String,
}

/// What a peer said first, believed.
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    pub protocol: u32,
    pub software: Version,
    pub capabilities: Vec<String>,
    pub ticket: NodeTicket,
    /// The ticket as auth signed it, to be shown to the master.
    pub sealed_ticket: Envelope,
    pub boot_nonce: u64,
    pub host: Host,
    /// Up to where the peer knows every revocation; its own word.
    pub known_revocation: u64,
}

impl Hello {
    pub fn node(&self) -> NodeId {
        self.ticket.node
    }
}

/// Whom TLS proved at the other end; the ticket must belong to exactly this certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPeer {
    pub node: NodeId,
    pub certificate_serial: Bytes,
}

/// This node's own Hello.
pub fn encode(host: &Host, software: Version, capabilities: &[String], signer: &Signer) -> Bytes {
    let hello = v1::Hello {
        version: Some(v1::Version {
            protocol: version::PROTOCOL,
            software: software.to_string(),
            capabilities: capabilities.iter().take(CAPABILITIES).cloned().collect(),
        }),
        ticket: Some(signer.ticket.clone()),
        boot_nonce: signer.boot_nonce,
        host_name: field::cut_text(&host.name),
        os: field::cut_text(&host.os),
        architecture: field::cut_text(&host.architecture),
        known_revocation: signer.known_revocation,
    };
    v1::SessionMessage { body: Some(Body::Hello(hello)) }.encode_to_vec().into()
}

/// # Errors
/// Not a Hello, malformed, or its ticket is not that of the peer's certificate.
pub fn decode(bytes: &[u8], peer: &TlsPeer, verifier: &Verifier<'_>) -> Result<Hello, WireError> {
    frame::bounded(bytes.len())?;
    let message: v1::SessionMessage = field::parse("session message", bytes)?;
    let Some(Body::Hello(hello)) = message.body else { return Err(WireError::Missing("hello")) };
    let ticket = verifier.ticket("hello.ticket", hello.ticket.as_ref())?;
    field::same_node("hello.ticket", ticket.node, peer.node)?;
    if ticket.certificate_serial != peer.certificate_serial {
        return Err(WireError::invalid("hello.ticket", "it belongs to another certificate of the same node"));
    }
    let version = field::required("hello.version", hello.version)?;
    field::at_most("hello.version.capabilities", &version.capabilities, CAPABILITIES)?;
    let software = version.software.parse();
    Ok(Hello {
        protocol: version.protocol,
        software: software.map_err(|error| WireError::invalid("hello.version.software", error))?,
        capabilities: version.capabilities,
        ticket,
        sealed_ticket: field::required("hello.ticket", hello.ticket)?,
        boot_nonce: hello.boot_nonce,
        host: Host {
            name: field::text("hello.host_name", hello.host_name)?,
            os: field::text("hello.os", hello.os)?,
            architecture: field::text("hello.architecture", hello.architecture)?,
        },
        known_revocation: hello.known_revocation,
    })
}
