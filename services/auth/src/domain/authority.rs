//! The certificate authority of one network, keys in hand: it issues certificates and lends its signers.

use std::fmt;

use muster_types::{Identity, NetworkId, RootKey, Timestamp};
use muster_wire::envelope::key_id;
use muster_wire::trust::WITHDRAWALS;
use rand::CryptoRng;
use rcgen::{Issuer, PublicKeyData};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::custody::{AuthorityKey, TokenError};
use super::founding::certify_signer;
use super::key::{KeyKind, StoredKey, generations, newest};
use super::leaf::{self, Leaf, SIGNER_LIFETIME};
use super::request::PublicKey;
use super::rotation::withdrawn;
use super::signer::{Purpose, RETIRED, RETIREMENT, Retired, Signer};
use super::vault::{Vault, VaultError};

/// Why the authority cannot do its work: never the caller's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the {} key in the token is not that of its certificate", .0.as_str())]
    Mismatch(KeyKind),
    #[error("the token that holds the authority's key did not sign")]
    Unsigned,
    #[error("the store has no {} key with a certificate: the network was not founded, or not completely", .0.as_str())]
    Missing(KeyKind),
    #[error("the {} key is not here: export the request, have it signed where the key is, and import the answer", .0.as_str())]
    Elsewhere(KeyKind),
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
        match error {
            rcgen::Error::RemoteKeyError => Self::Unsigned,
            error => Self::Encoding(error.to_string()),
        }
    }
}

/// An authority below the root. The newest signs certificates, the older ones the lists of those they signed.
pub struct Subordinate {
    /// As in `issuing/2`.
    pub name: String,
    /// DER
    pub certificate: Vec<u8>,
    key: PublicKey,
    pub(super) issuer: Issuer<'static, AuthorityKey>,
}

impl fmt::Debug for Subordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subordinate({})", self.name)
    }
}

impl Subordinate {
    /// Whether it signed a certificate (DER).
    pub fn signed(&self, certificate: &[u8]) -> bool {
        X509Certificate::from_der(certificate)
            .is_ok_and(|(_, certificate)| signed_by(std::slice::from_ref(self), &certificate))
    }
}

/// Roots, authorities and signers, unsealed. Root keys are not kept in memory.
pub struct Authority {
    network: NetworkId,
    root_key: RootKey,
    /// DER, the newest first.
    roots: Vec<Vec<u8>>,
    /// DER: the roots' certificates for each other.
    crosses: Vec<Vec<u8>>,
    /// The newest first.
    issuing: Vec<Subordinate>,
    /// The newest first; empty where the root is elsewhere and has not signed one.
    devices: Vec<Subordinate>,
    signers: Vec<Signer>,
    retired: Vec<Retired>,
    /// Certificates (DER) that withdraw signers' keys, the newest first, each with the time it was made.
    withdrawals: Vec<(Vec<u8>, Timestamp)>,
    challenge_key: hmac::Key,
    version: u64,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("network", &self.network).finish_non_exhaustive()
    }
}

impl Authority {
    /// Unseals the newest generation of each key, and reads the certificates of the older ones.
    ///
    /// # Errors
    /// The vault is another network's, or a key is missing or damaged.
    pub fn unseal(keys: &[StoredKey], vault: &Vault) -> Result<Self, AuthorityError> {
        let root = newest(keys, KeyKind::Root)?;
        newest(keys, KeyKind::Issuing)?;
        let challenge = newest(keys, KeyKind::Challenge)?;
        // Opened for the proof alone: a store whose root key belongs to another secret shall not start.
        if root.is_here() {
            key_of(root, vault)?;
        }
        let roots = generations(keys, KeyKind::Root);
        // The network's name is that of its first root.
        let first = roots.last().copied().ok_or(AuthorityError::Missing(KeyKind::Root))?;
        let signers = Purpose::ALL
            .into_iter()
            .map(|purpose| signer(purpose, newest(keys, KeyKind::Signer(purpose))?, vault))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            network: root_key_of(first)?.network_id(),
            root_key: root_key_of(root)?,
            roots: roots.iter().map(|key| key.certificate.clone()).collect(),
            crosses: generations(keys, KeyKind::Cross).iter().map(|key| key.certificate.clone()).collect(),
            issuing: subordinates(keys, KeyKind::Issuing, vault)?,
            devices: subordinates(keys, KeyKind::Devices, vault)?,
            signers,
            retired: retired(keys)?,
            withdrawals: generations(keys, KeyKind::Withdrawal)
                .iter()
                .map(|key| (key.certificate.clone(), key.create_time))
                .collect(),
            challenge_key: hmac::Key::new(hmac::HMAC_SHA256, &challenge.unseal(vault)?),
            version: Self::version_of(keys),
        })
    }

    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// The key that links carry and devices pin: the newest root's.
    pub fn root_key(&self) -> &RootKey {
        &self.root_key
    }

    /// DER of the newest root.
    pub fn root(&self) -> &[u8] {
        &self.roots[0]
    }

    /// DER of all trusted roots, the newest first.
    pub fn roots(&self) -> &[Vec<u8>] {
        &self.roots
    }

    /// DER: the roots' certificates for each other.
    pub fn crosses(&self) -> &[Vec<u8>] {
        &self.crosses
    }

    /// The authorities between root and leaves, the newest first.
    pub fn issuing(&self) -> &[Subordinate] {
        &self.issuing
    }

    /// The authorities of devices without our agent, the newest first; empty where the root is elsewhere and has not signed
    /// one.
    pub fn devices(&self) -> &[Subordinate] {
        &self.devices
    }

    /// What goes with a leaf, DER: its issuer and, while one root replaces another, the new root's certificate by the old
    /// one, so that whoever pins the old one can follow.
    pub fn chain(&self) -> Vec<Vec<u8>> {
        let newest = self.root_key.spki();
        let leads_to_newest = |cross: &&Vec<u8>| spki_of(cross).is_ok_and(|spki| spki == newest);
        let crosses = self.crosses.iter().filter(leads_to_newest).cloned();
        self.issuing.first().map(|issuing| issuing.certificate.clone()).into_iter().chain(crosses).collect()
    }

    /// What [`Self::version`] is with these keys.
    pub fn version_of(keys: &[StoredKey]) -> u64 {
        keys.iter().map(|key| u64::from(key.generation)).sum()
    }

    /// Rises with every change of a key or certificate.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// DER: certificates of everybody whose signature counts now, those that sign first.
    pub fn signers(&self, now: Timestamp) -> impl Iterator<Item = &[u8]> {
        let retired = self.retired.iter().filter(move |key| key.until > now);
        let present = self.signers.iter().map(|signer| &signer.certificate[..]);
        present.chain(retired.map(|key| &key.certificate[..]))
    }

    /// DER: that signers' keys were withdrawn, as long as any certificate of theirs may be good.
    pub fn withdrawals(&self, now: Timestamp) -> impl Iterator<Item = &[u8]> {
        let good = self.withdrawals.iter().filter(move |(_, made)| now.since(*made) < SIGNER_LIFETIME);
        good.map(|(certificate, _)| &certificate[..]).take(WITHDRAWALS)
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
        // `unseal` refuses a network without an issuing authority.
        let issuing = &self.issuing[0];
        leaf::issue(&issuing.issuer, &issuing.name, identity, key, now, rng)
    }

    /// The authority that signs for devices without our agent.
    ///
    /// # Errors
    /// There is none yet.
    pub(super) fn device_authority(&self) -> Result<&Subordinate, AuthorityError> {
        self.devices.first().ok_or(AuthorityError::Missing(KeyKind::Devices))
    }

    /// Whether this authority, in any of its generations, signed `certificate`, be it expired or not.
    pub fn signed(&self, certificate: &X509Certificate<'_>) -> bool {
        signed_by(&self.issuing, certificate)
    }

    /// The like of a device without our agent.
    pub fn signed_device(&self, certificate: &X509Certificate<'_>) -> bool {
        signed_by(self.devices(), certificate)
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
            let spki = spki_of_key(current)?;
            let issuer = &self.issuing[0].issuer;
            let certificate = certify_signer(issuer, self.network, purpose, &spki, now, rng)?;
            let generation = current.generation + 1;
            renewed.push(StoredKey::seal(kind, generation, &plain, certificate, (vault, now), rng)?);
        }
        Ok(renewed)
    }
}

fn signed_by(authorities: &[Subordinate], certificate: &X509Certificate<'_>) -> bool {
    let (signed, signature) = (certificate.tbs_certificate.as_ref(), &certificate.signature_value.data);
    authorities.iter().any(|authority| authority.key.verifies(signed, signature))
}

fn subordinates(
    keys: &[StoredKey],
    kind: KeyKind,
    vault: &Vault,
) -> Result<Vec<Subordinate>, AuthorityError> {
    let certified = generations(keys, kind).into_iter().filter(|key| !key.certificate.is_empty());
    certified
        .map(|key| {
            let spki = spki_of_key(key)?;
            Ok(Subordinate {
                name: key.name(),
                certificate: key.certificate.clone(),
                key: PublicKey::from_spki(&spki).ok_or(AuthorityError::Algorithm)?,
                issuer: issuer(key, vault)?,
            })
        })
        .collect()
}

/// A stored authority, ready to sign.
pub(super) fn issuer(
    key: &StoredKey,
    vault: &Vault,
) -> Result<Issuer<'static, AuthorityKey>, AuthorityError> {
    let certificate = CertificateDer::from(key.certificate.as_slice());
    Ok(Issuer::from_ca_cert_der(&certificate, key_of(key, vault)?)?)
}

/// A stored root's or authority's key.
pub(super) fn key_of(key: &StoredKey, vault: &Vault) -> Result<AuthorityKey, AuthorityError> {
    if !key.is_here() {
        return Err(AuthorityError::Elsewhere(key.kind));
    }
    let opened = AuthorityKey::open(&key.unseal(vault)?, vault).map_err(|error| match error {
        AuthorityError::Encoding(reason) => unreadable(key.kind, reason),
        other => other,
    })?;
    if !key.certificate.is_empty() && spki_of_key(key)? != opened.subject_public_key_info() {
        return Err(AuthorityError::Mismatch(key.kind));
    }
    Ok(opened)
}

fn unreadable(kind: KeyKind, reason: impl fmt::Display) -> AuthorityError {
    AuthorityError::Unreadable { kind, reason: reason.to_string() }
}

fn root_key_of(root: &StoredKey) -> Result<RootKey, AuthorityError> {
    RootKey::from_spki(&spki_of_key(root)?).map_err(|_| AuthorityError::Algorithm)
}

fn spki_of_key(key: &StoredKey) -> Result<Vec<u8>, AuthorityError> {
    spki_of(&key.certificate).map_err(|error| unreadable(key.kind, error))
}

pub(super) fn spki_of(certificate: &[u8]) -> Result<Vec<u8>, AuthorityError> {
    let (_, certificate) = X509Certificate::from_der(certificate)
        .map_err(|error| AuthorityError::Encoding(error.to_string()))?;
    Ok(certificate.public_key().raw.to_vec())
}

/// Signers' keys that were replaced; a new certificate for the same key replaces nothing.
fn retired(keys: &[StoredKey]) -> Result<Vec<Retired>, AuthorityError> {
    let (mut all, withdrawn) = (Vec::new(), withdrawn(keys));
    for purpose in Purpose::ALL {
        let known = generations(keys, KeyKind::Signer(purpose));
        let mut replaced = Vec::new();
        for pair in known.windows(2) {
            if let [newer, older] = pair
                && spki_of_key(newer)? != spki_of_key(older)?
                && !withdrawn.contains(&key_id(&spki_of_key(older)?))
            {
                let until = newer.create_time + RETIREMENT;
                replaced.push(Retired { certificate: older.certificate.clone(), until });
            }
        }
        all.extend(replaced.into_iter().take(RETIRED));
    }
    Ok(all)
}

fn signer(purpose: Purpose, stored: &StoredKey, vault: &Vault) -> Result<Signer, AuthorityError> {
    let plain = stored.unseal(vault)?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &plain, &SystemRandom::new())
        .map_err(|error| unreadable(stored.kind, error))?;
    Ok(Signer { purpose, key, spki: spki_of_key(stored)?, certificate: stored.certificate.clone() })
}
