//! What an endpoint needs to know: who it is, whom it believes, where it listens.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_types::{Identity, NetworkId, NodeId, Timestamp, limits};
use muster_wire::TrustStore;
use muster_wire::trust::identity_of;
use ring::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::BindError;

/// Beyond this a session without a packet is lost: two keep-alives and their answers may go missing.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Keeps address translators' entries, most of which live for 30 s (RFC 4787, REQ-5 asks for 120), alive.
pub const KEEP_ALIVE: Duration = Duration::from_secs(25);

/// Tells the date by the master's clock.
pub type DateClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A node's certificate with its chain, its key, and the roots that peers must lead to.
pub struct Material {
    /// The node's own first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub roots: Vec<CertificateDer<'static>>,
}

impl Material {
    /// Whose certificate it is.
    pub(crate) fn identity(&self) -> Result<(NetworkId, NodeId), BindError> {
        let fail = BindError::Identity;
        let leaf = self.chain.first().ok_or_else(|| fail("there is none".to_owned()))?;
        let identity = shown(leaf).map_err(fail)?.identity;
        let node = identity.node_id().ok_or_else(|| fail(format!("{identity} is no node")))?;
        Ok((identity.network, node))
    }
}

/// What a certificate says of its holder.
pub(crate) struct Shown {
    pub(crate) identity: Identity,
    pub(crate) serial: Bytes,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub(crate) key: [u8; 32],
}

pub(crate) fn shown(der: &CertificateDer<'_>) -> Result<Shown, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let serial = Bytes::copy_from_slice(certificate.raw_serial());
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, certificate.public_key().raw).as_ref());
    Ok(Shown { identity: identity_of(&certificate)?, serial, key })
}

/// Everything an endpoint is bound with.
pub struct Config {
    pub material: Material,
    /// Believes tickets; replaced by [`Endpoint::set_trust`](crate::Endpoint::set_trust).
    pub trust: Arc<TrustStore>,
    /// This node's encoded Hello; replaced by [`Endpoint::set_hello`](crate::Endpoint::set_hello).
    pub hello: Bytes,
    pub clock: DateClock,
    /// Tried first, for UDP and TCP alike; if it is taken, any. Zero: any.
    pub port: u16,
    /// Listen here only; by default on every address of both families, so that no address change needs a new
    /// socket.
    pub bind: Vec<IpAddr>,
    /// `false`: TCP only, as where a firewall drops UDP.
    pub udp: bool,
    pub tcp: bool,
    pub idle_timeout: Duration,
    /// Sent by the dialling end alone.
    pub keep_alive: Option<Duration>,
    pub discovery: Option<crate::discovery::Config>,
}

impl Config {
    /// The product's own values around what only the caller can know.
    pub fn new(material: Material, trust: Arc<TrustStore>, hello: Bytes, clock: DateClock) -> Self {
        Self {
            material,
            trust,
            hello,
            clock,
            port: limits::DEFAULT_PORT,
            bind: vec![IpAddr::from([0; 4]), IpAddr::from([0; 16])],
            udp: true,
            tcp: true,
            idle_timeout: IDLE_TIMEOUT,
            keep_alive: Some(KEEP_ALIVE),
            discovery: Some(crate::discovery::Config::default()),
        }
    }
}
