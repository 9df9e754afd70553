//! The certificate authority of one network, keys in hand: it issues certificates and lends its signers.

use std::fmt;

use muster_types::{Identity, NetworkId, RootKey, Timestamp};
use rand::CryptoRng;
use rcgen::{Issuer, KeyPair};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::founding::{KeyKind, StoredKey, certify_signer};
use super::leaf::{self, Leaf, SIGNER_LIFETIME};
use super::request::PublicKey;
use super::signer::{Purpose, Signer};
use super::vault::{Vault, VaultError};

/// Why the authority cannot do its work: never the caller's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error("the store has no {} key: the network was not founded, or not completely", .0.as_str())]
    Missing(KeyKind),
    #[error("the authority's {} key cannot be read: {reason}", .kind.as_str())]
    Unreadable { kind: KeyKind, reason: String },
    #[error("a certificate could not be made: {0}")]
    Encoding(String),
    #[error("the clock says {0:?}, which no certificate can say")]
    Clock(Timestamp),
    #[error("a key of the authority is not EC P-256")]
    Algorithm,
}

impl From<rcgen::Error> for AuthorityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Encoding(error.to_string())
    }
}

/// Root, issuing authority and signers, unsealed. Only the issuing key and the signers' are kept in memory.
pub struct Authority {
    network: NetworkId,
    root_key: RootKey,
    root: Vec<u8>,
    issuing: Vec<u8>,
    issuing_key: PublicKey,
    issuer: Issuer<'static, KeyPair>,
    signers: Vec<Signer>,
    challenge_key: hmac::Key,
    version: u64,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("network", &self.network).finish_non_exhaustive()
    }
}

impl Authority {
    /// Unseals the newest generation of each key.
    ///
    /// # Errors
    /// The vault is another network's, or a key is missing or damaged.
    pub fn unseal(keys: &[StoredKey], vault: &Vault) -> Result<Self, AuthorityError> {
        let root = newest(keys, KeyKind::Root)?;
        let issuing = newest(keys, KeyKind::Issuing)?;
        let challenge = newest(keys, KeyKind::Challenge)?;
        // Opened for the proof alone: a store whose root key belongs to another secret shall not start.
        root.unseal(vault)?;
        let root_spki = spki_of(root)?;
        let root_key = RootKey::from_spki(&root_spki).map_err(|_| AuthorityError::Algorithm)?;
        let issuer_key = key_pair(issuing, &issuing.unseal(vault)?)?;
        let certificate = CertificateDer::from(issuing.certificate.as_slice());
        let signers = Purpose::ALL
            .into_iter()
            .map(|purpose| signer(purpose, newest(keys, KeyKind::Signer(purpose))?, vault))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            network: root_key.network_id(),
            root_key,
            root: root.certificate.clone(),
            issuing: issuing.certificate.clone(),
            issuing_key: PublicKey::from_spki(&spki_of(issuing)?).ok_or(AuthorityError::Algorithm)?,
            issuer: Issuer::from_ca_cert_der(&certificate, issuer_key)?,
            signers,
            challenge_key: hmac::Key::new(hmac::HMAC_SHA256, &challenge.unseal(vault)?),
            version: keys.iter().map(|key| u64::from(key.generation)).sum(),
        })
    }

    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// The key that links carry and devices pin.
    pub fn root_key(&self) -> &RootKey {
        &self.root_key
    }

    /// DER
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// DER of the authority between root and leaves.
    pub fn issuing(&self) -> &[u8] {
        &self.issuing
    }

    /// Rises with every change of a key or certificate.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn signers(&self) -> &[Signer] {
        &self.signers
    }

    pub fn signer(&self, purpose: Purpose) -> &Signer {
        // `unseal` puts one there for every purpose, in the order of `Purpose::ALL`, which is the enum's.
        &self.signers[purpose as usize]
    }

    pub(super) fn challenge_key(&self) -> &hmac::Key {
        &self.challenge_key
    }

    /// Issues a certificate. Whether `identity` may have it was decided before.
    ///
    /// # Errors
    /// The certificate could not be encoded or signed.
    pub fn issue(
        &self,
        identity: &Identity,
        key: &PublicKey,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<Leaf, AuthorityError> {
        leaf::issue(&self.issuer, identity, key, now, rng)
    }

    /// Whether this authority signed `certificate`, be it expired or not.
    pub fn signed(&self, certificate: &X509Certificate<'_>) -> bool {
        self.issuing_key.verifies(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data)
    }

    /// New certificates, for the same keys, of signers that are past half of theirs: the next generation to store.
    ///
    /// # Errors
    /// As [`Authority::unseal`] and [`Authority::issue`].
    pub fn renew_signers(
        &self,
        keys: &[StoredKey],
        vault: &Vault,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<StoredKey>, AuthorityError> {
        let mut renewed = Vec::new();
        for purpose in Purpose::ALL {
            let kind = KeyKind::Signer(purpose);
            let current = newest(keys, kind)?;
            if now.since(current.create_time) < SIGNER_LIFETIME / 2 {
                continue;
            }
            let plain = current.unseal(vault)?;
            let key = key_pair(current, &plain)?;
            let certificate = certify_signer(&self.issuer, self.network, purpose, &key, now, rng)?;
            let generation = current.generation + 1;
            renewed.push(StoredKey::seal(kind, generation, &plain, certificate, (vault, now), rng)?);
        }
        Ok(renewed)
    }
}

fn newest(keys: &[StoredKey], kind: KeyKind) -> Result<&StoredKey, AuthorityError> {
    keys.iter()
        .filter(|key| key.kind == kind)
        .max_by_key(|key| key.generation)
        .ok_or(AuthorityError::Missing(kind))
}

fn unreadable(kind: KeyKind, reason: impl fmt::Display) -> AuthorityError {
    AuthorityError::Unreadable { kind, reason: reason.to_string() }
}

fn key_pair(key: &StoredKey, plain: &[u8]) -> Result<KeyPair, AuthorityError> {
    KeyPair::try_from(plain).map_err(|error| unreadable(key.kind, error))
}

fn spki_of(key: &StoredKey) -> Result<Vec<u8>, AuthorityError> {
    let (_, certificate) =
        X509Certificate::from_der(&key.certificate).map_err(|error| unreadable(key.kind, error))?;
    Ok(certificate.public_key().raw.to_vec())
}

fn signer(purpose: Purpose, stored: &StoredKey, vault: &Vault) -> Result<Signer, AuthorityError> {
    let plain = stored.unseal(vault)?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &plain, &SystemRandom::new())
        .map_err(|error| unreadable(stored.kind, error))?;
    Ok(Signer { purpose, key, spki: spki_of(stored)?, certificate: stored.certificate.clone() })
}
