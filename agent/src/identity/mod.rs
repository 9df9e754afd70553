//! Who this device is: keys that never leave it, and what auth attested of them. One private file, replaced whole.

mod certificate;
mod keys;
mod learned;
mod revoked;
mod state_dir;

use std::sync::Arc;

use muster_kit::clock;
use muster_kit::tls::{self, Material};
use muster_proto::auth::v1::{Credentials, Role};
use muster_proto::trust::v1::{Envelope, TrustBundle};
use muster_types::limits::KEPT_CONTACTS;
use muster_types::{NetworkId, NodeId, RootKey, Timestamp};
use muster_wire::roots;
use muster_wire::ticket::NodeTicket;
use muster_wire::trust::{TrustError, TrustStore};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

pub use certificate::{Validity, validity};
pub use keys::{DeviceKeys, KeyError};
pub use learned::Learned;
pub(crate) use learned::{decoded, encoded};
pub use revoked::KeptRevocations;
pub use state_dir::{Enrolling, PROXY, StateDir, StateError};

/// Why credentials do not fit this device.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error("the credentials are for {0}, not for a node")]
    Role(String),
    #[error("the credentials lack {0}")]
    Missing(&'static str),
    #[error("the certificate is not for this device's key")]
    ForeignKey,
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
    #[error("the root with the key of the link is not among the network's roots")]
    ForeignRoot,
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("the ticket is not good: {0}")]
    Ticket(#[from] muster_wire::ticket::TicketError),
    #[error("the ticket binds other keys than this device's")]
    ForeignTicket,
}

/// An enrolled device.
#[derive(Clone)]
pub struct Identity {
    pub keys: Arc<DeviceKeys>,
    pub credentials: Credentials,
    /// The root's key that the link pinned.
    pub root_key: RootKey,
    /// `host:port` of the link: the last of the addresses that are tried.
    pub link_address: String,
    pub network: NetworkId,
    pub node: NodeId,
    pub root: CertificateDer<'static>,
}

impl Identity {
    /// Checks that credentials are this device's and lead to the pinned root at `now`, by the master's clock.
    ///
    /// # Errors
    /// What does not fit.
    pub fn verified(
        keys: Arc<DeviceKeys>,
        mut credentials: Credentials,
        root_key: RootKey,
        link_address: String,
        now: Timestamp,
    ) -> Result<Self, CredentialError> {
        credentials.contacts.truncate(KEPT_CONTACTS);
        let identity = Self::assembled(keys, credentials, root_key, link_address)?;
        let ticket = NodeTicket::open(identity.ticket()?, &identity.trust_store(now)?, now)?;
        if ticket.node != identity.node || !identity.keys.are_in(&ticket) {
            return Err(CredentialError::ForeignTicket);
        }
        Ok(identity)
    }

    /// The same without dates and signatures: of what was verified before it was kept.
    ///
    /// # Errors
    /// What does not fit.
    pub fn assembled(
        keys: Arc<DeviceKeys>,
        credentials: Credentials,
        root_key: RootKey,
        link_address: String,
    ) -> Result<Self, CredentialError> {
        if credentials.role() != Role::Node {
            return Err(CredentialError::Role(credentials.role().as_str_name().to_owned()));
        }
        let leaf = credentials.certificate_chain.first().ok_or(CredentialError::Missing("a certificate"))?;
        let subject = certificate::identity_with_key(leaf, keys.tls_point())?;
        let network = NetworkId::try_from(&credentials.network_id[..])
            .map_err(|_| CredentialError::Missing("a network id"))?;
        let node = subject.node_id().ok_or_else(|| CredentialError::Role(subject.to_string()))?;
        if node.as_bytes() != &credentials.node_id[..] || subject.network != network {
            return Err(CredentialError::Certificate(format!("it is of {subject}")));
        }
        let bundle = credentials.trust_bundle.as_ref().ok_or(CredentialError::Missing("a trust bundle"))?;
        let root = pinned_root(bundle, &root_key)?;
        Ok(Self { keys, root_key, link_address, network, node, root, credentials })
    }

    /// The signed binding of this node's keys.
    ///
    /// # Errors
    /// There is none.
    pub fn ticket(&self) -> Result<&Envelope, CredentialError> {
        self.credentials.ticket.as_ref().ok_or(CredentialError::Missing("a ticket"))
    }

    /// What TLS shows and believes.
    pub fn material(&self) -> Material {
        let chain =
            self.credentials.certificate_chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let key = PrivatePkcs8KeyDer::from(self.keys.tls_pkcs8().to_vec()).into();
        let pinned = std::slice::from_ref(&self.root);
        let bundle = self.credentials.trust_bundle.as_ref();
        let believed = bundle.map(|bundle| roots::believed(pinned, bundle, clock::wall()));
        Material { chain, key, roots: believed.unwrap_or_else(|| pinned.to_vec()) }
    }

    /// Whom to believe: the pinned root, and the signers that the credentials came with.
    ///
    /// # Errors
    /// A signer does not lead to the pinned root.
    pub fn trust_store(&self, now: Timestamp) -> Result<TrustStore, TrustError> {
        let mut store = TrustStore::new(self.network, std::slice::from_ref(&self.root))?;
        if let Some(bundle) = &self.credentials.trust_bundle {
            store.load(bundle, now)?;
        }
        Ok(store)
    }

    /// From when to when the certificate is good.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn validity(&self) -> Result<Validity, CredentialError> {
        let leaf = self.credentials.certificate_chain.first();
        validity(leaf.ok_or(CredentialError::Missing("a certificate"))?)
    }
}

/// The root certificate with the pinned key. Its own signature is checked when it anchors a chain; its key is what counts.
fn pinned_root(bundle: &TrustBundle, root_key: &RootKey) -> Result<CertificateDer<'static>, CredentialError> {
    let roots = bundle.roots.iter().map(|der| CertificateDer::from(der.to_vec()));
    let mut pinned = roots.filter(|root| tls::root_key(root).is_ok_and(|key| key == *root_key));
    pinned.next().ok_or(CredentialError::ForeignRoot)
}
