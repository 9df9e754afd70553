//! Certificates for the master's own: services and the operator who sits at it. Made in process, without a link.

use std::fmt;

use muster_kit::tls::Material;
use muster_types::{Identity, Role, Timestamp};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::enroll::serial;
use super::{Auth, AuthError, OURSELVES, settle};
use crate::domain::audit::{Action, Deed};
use crate::domain::authority::AuthorityError;
use crate::domain::label::Labels;
use crate::domain::leaf::Leaf;
use crate::domain::principal::Principal;
use crate::domain::request::PublicKey;
use crate::store::{Change, Write};

/// A certificate with its key, both just made.
pub struct Issued {
    /// Resource name.
    pub name: String,
    /// DER, leaf first, without the root.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8 DER
    pub key: Vec<u8>,
    /// DER, the newest first.
    pub roots: Vec<Vec<u8>>,
    pub not_after: Timestamp,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issued({})", self.name)
    }
}

impl Issued {
    /// As TLS takes it.
    pub fn material(&self) -> Material {
        Material {
            chain: self.chain.iter().map(|der| CertificateDer::from(der.clone())).collect(),
            key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.clone())),
            roots: self.roots.iter().map(|der| CertificateDer::from(der.clone())).collect(),
        }
    }
}

impl Auth {
    /// Makes a key and a certificate for a service or the local operator.
    ///
    /// # Errors
    /// The certificate could not be made or stored.
    pub async fn issue(&self, role: Role, name: &str) -> Result<Issued, AuthError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::from)?;
        let spki = key.subject_public_key_info();
        let public_key = PublicKey::from_spki(&spki).ok_or(AuthorityError::Algorithm)?;
        let authority = self.authority();
        let identity = Identity { network: authority.network(), role, name: name.to_owned() };
        let leaf = settle(|| self.try_issue(&identity, &public_key)).await?;
        Ok(Issued {
            name: identity.resource_name(),
            chain: [vec![leaf.der], authority.chain()].concat(),
            key: key.serialize_der(),
            roots: authority.roots().to_vec(),
            not_after: leaf.not_after,
        })
    }

    async fn try_issue(&self, identity: &Identity, key: &PublicKey) -> Result<Leaf, AuthError> {
        let now = self.now();
        let before = self.store.principal(&identity.resource_name()).await?;
        let leaf = self.authority().issue(identity, key, now, &mut rand::rng())?;
        let (expected, before) = before.map(|stored| (stored.revision, stored.record)).unzip();
        let principal = Principal {
            identity: identity.clone(),
            key: leaf.key,
            generation: before.as_ref().map_or(1, |principal| principal.generation.saturating_add(1)),
            host_name: String::new(),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            labels: Labels::new(),
            node_keys: None,
            enroll_time: before.map_or(now, |principal| principal.enroll_time),
            renew_time: now,
            revocation: None,
        };
        let deed = Deed {
            time: now,
            action: Action::Issue,
            actor: OURSELVES.to_owned(),
            subject: principal.resource_name(),
            detail: serial(&leaf),
        };
        let writes = vec![Write::PutPrincipal { principal, expected }, Write::AddCertificate(leaf.clone())];
        self.store.commit(Change { writes, deed }).await?;
        Ok(leaf)
    }
}
