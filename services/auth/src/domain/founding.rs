//! The founding of a network: root, issuing authority, signers and the challenge key, made once, sealed at once.

use std::time::Duration;

use muster_types::{Identity, NetworkId, Role, RootKey, Timestamp};
use rand::CryptoRng;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SerialNumber,
};

use super::authority::AuthorityError;
use super::leaf::{self, CLOCK_TOLERANCE, Serial, common_name, date, whole_seconds};
use super::request::PublicKey;
use super::signer::Purpose;
use super::vault::Vault;

/// A root outlives the devices that pin it.
const ROOT_LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 3_600);

/// An issuing authority outlives its signers' certificates by far.
const ISSUING_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// Bytes of the key that authenticates renewal challenges.
const CHALLENGE_KEY_BYTES: usize = 32;

/// What a stored key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyKind {
    Root,
    Issuing,
    Signer(Purpose),
    /// HMAC over renewal challenges; shared by all replicas.
    Challenge,
}

impl KeyKind {
    pub const ALL: [Self; 6] = [
        Self::Root,
        Self::Issuing,
        Self::Signer(Purpose::Tasks),
        Self::Signer(Purpose::Tickets),
        Self::Signer(Purpose::Receipts),
        Self::Challenge,
    ];

    /// Its name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Issuing => "issuing",
            Self::Signer(Purpose::Tasks) => "signer-tasks",
            Self::Signer(Purpose::Tickets) => "signer-tickets",
            Self::Signer(Purpose::Receipts) => "signer-receipts",
            Self::Challenge => "challenge",
        }
    }
}

/// One of the authority's keys as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    pub kind: KeyKind,
    /// Counts from 1; the highest is in use.
    pub generation: u32,
    /// The private key, sealed by the vault for this kind and generation.
    pub sealed: Vec<u8>,
    /// DER; empty for a key without certificate.
    pub certificate: Vec<u8>,
    pub create_time: Timestamp,
}

impl StoredKey {
    pub(super) fn seal(
        kind: KeyKind,
        generation: u32,
        plain: &[u8],
        certificate: Vec<u8>,
        (vault, now): (&Vault, Timestamp),
        rng: &mut impl CryptoRng,
    ) -> Result<Self, AuthorityError> {
        let sealed = vault.seal(&label(kind, generation), plain, rng)?;
        Ok(Self { kind, generation, sealed, certificate, create_time: now })
    }

    pub(super) fn unseal(&self, vault: &Vault) -> Result<Vec<u8>, AuthorityError> {
        Ok(vault.unseal(&label(self.kind, self.generation), &self.sealed)?)
    }
}

fn label(kind: KeyKind, generation: u32) -> String {
    format!("{}/{generation}", kind.as_str())
}

/// Makes every key of a new network.
///
/// # Errors
/// The system has no randomness, or a certificate could not be encoded.
pub fn found(
    vault: &Vault,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<Vec<StoredKey>, AuthorityError> {
    let root = root(now, rng)?;
    let issuing = issuing(&root, now, rng)?;
    let mut keys = Vec::with_capacity(KeyKind::ALL.len());
    for (kind, made) in [(KeyKind::Root, &root), (KeyKind::Issuing, &issuing)] {
        let plain = made.issuer.key().serialized_der();
        keys.push(StoredKey::seal(kind, 1, plain, made.certificate.clone(), (vault, now), rng)?);
    }
    for purpose in Purpose::ALL {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = certify_signer(&issuing.issuer, root.network, purpose, &key, now, rng)?;
        let kind = KeyKind::Signer(purpose);
        keys.push(StoredKey::seal(kind, 1, key.serialized_der(), certificate, (vault, now), rng)?);
    }
    let mut challenge = [0; CHALLENGE_KEY_BYTES];
    rng.fill_bytes(&mut challenge);
    keys.push(StoredKey::seal(KeyKind::Challenge, 1, &challenge, Vec::new(), (vault, now), rng)?);
    Ok(keys)
}

/// An authority that has just been made.
struct Made {
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
    network: NetworkId,
}

fn root(now: Timestamp, rng: &mut impl CryptoRng) -> Result<Made, AuthorityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let root_key =
        RootKey::from_spki(&key.subject_public_key_info()).map_err(|_| AuthorityError::Algorithm)?;
    // The subject follows from the key, so that whoever has the key can make a trust anchor without the certificate.
    let mut params = authority(&root_key.common_name(), now, ROOT_LIFETIME, rng)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key)?.der().to_vec();
    Ok(Made { issuer: Issuer::new(params, key), certificate, network: root_key.network_id() })
}

fn issuing(root: &Made, now: Timestamp, rng: &mut impl CryptoRng) -> Result<Made, AuthorityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = authority("Muster issuing authority", now, ISSUING_LIFETIME, rng)?;
    // It signs leaves, and no further authority (RFC 5280, section 4.2.1.9).
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &root.issuer)?.der().to_vec();
    Ok(Made { issuer: Issuer::new(params, key), certificate, network: root.network })
}

fn authority(
    name: &str,
    now: Timestamp,
    lifetime: Duration,
    rng: &mut impl CryptoRng,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.not_before = date(whole_seconds(now - CLOCK_TOLERANCE))?;
    params.not_after = date(whole_seconds(now + lifetime))?;
    params.serial_number = Some(SerialNumber::from_slice(&Serial::draw(rng).0));
    params.distinguished_name = common_name(name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// The certificate of a signer's key; also when an old one runs out.
pub(super) fn certify_signer(
    issuer: &Issuer<'_, KeyPair>,
    network: NetworkId,
    purpose: Purpose,
    key: &KeyPair,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, AuthorityError> {
    let identity = Identity { network, role: Role::Signer, name: purpose.as_str().to_owned() };
    let spki = key.subject_public_key_info();
    let public_key = PublicKey::from_spki(&spki).ok_or(AuthorityError::Algorithm)?;
    Ok(leaf::issue(issuer, &identity, &public_key, now, rng)?.der)
}
