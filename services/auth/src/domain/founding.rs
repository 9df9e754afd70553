//! The founding of a network: root, authorities, signers and the challenge key, made once, sealed at once.
//!
//! With a root elsewhere it comes in two steps: [`prepare`] makes the authorities' keys, whose requests are signed there; what
//! comes back completes the network ([`super::rotation::import`]).

use std::time::Duration;

use muster_types::{Identity, NetworkId, Role, RootKey, Timestamp};
use muster_wire::trust;
use rand::CryptoRng;
use rcgen::{
    BasicConstraints, CertificateParams, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber, SigningKey, SubjectPublicKeyInfo,
};

use super::authority::AuthorityError;
use super::custody::AuthorityKey;
use super::key::{KeyKind, StoredKey, label};
use super::leaf::{self, CLOCK_TOLERANCE, Serial, common_name, date, whole_seconds};
use super::request::PublicKey;
use super::signer::Purpose;
use super::vault::Vault;

/// A root outlives the devices that pin it.
const ROOT_LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 3_600);

/// An issuing authority outlives its signers' certificates by far.
const ISSUING_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// Under it are the names of all services and nodes.
const OUR_DOMAIN: &str = "muster";

/// Bytes of the key that authenticates renewal challenges.
const CHALLENGE_KEY_BYTES: usize = 32;

/// Makes every key of a new network.
///
/// # Errors
/// The system has no randomness, or a certificate could not be encoded.
pub fn found(
    vault: &Vault,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<Vec<StoredKey>, AuthorityError> {
    let root = root(AuthorityKey::make(&label(KeyKind::Root, 1), vault, rng)?, now, rng)?;
    let mut keys = vec![root.store(KeyKind::Root, 1, (vault, now), rng)?];
    for kind in KeyKind::AUTHORITIES {
        let key = AuthorityKey::make(&label(kind, 1), vault, rng)?;
        let made = subordinate(kind, key, &root.issuer, now, rng)?;
        keys.push(made.store(kind, 1, (vault, now), rng)?);
        if kind == KeyKind::Issuing {
            keys.extend(signers(&made.issuer, root_network(&root)?, (vault, now), rng)?);
        }
    }
    keys.push(challenge(vault, now, rng)?);
    Ok(keys)
}

/// The keys of a network whose root is elsewhere, as far as they can be made without it.
///
/// # Errors
/// As [`found`].
pub fn prepare(
    vault: &Vault,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<Vec<StoredKey>, AuthorityError> {
    let mut keys = vec![challenge(vault, now, rng)?];
    for kind in KeyKind::AUTHORITIES {
        keys.push(pending(kind, 1, vault, now, rng)?);
    }
    Ok(keys)
}

/// A new key for an authority, whose certificate is still to come.
pub(super) fn pending(
    kind: KeyKind,
    generation: u32,
    vault: &Vault,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<StoredKey, AuthorityError> {
    let key = AuthorityKey::make(&label(kind, generation), vault, rng)?;
    StoredKey::seal(kind, generation, &key.at_rest(), Vec::new(), (vault, now), rng)
}

/// The first signers of a network.
pub(super) fn signers(
    issuer: &Issuer<'_, AuthorityKey>,
    network: NetworkId,
    (vault, now): (&Vault, Timestamp),
    rng: &mut impl CryptoRng,
) -> Result<Vec<StoredKey>, AuthorityError> {
    let mut keys = Vec::new();
    for purpose in Purpose::ALL {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let spki = key.subject_public_key_info();
        let certificate = certify_signer(issuer, network, purpose, &spki, now, rng)?;
        let kind = KeyKind::Signer(purpose);
        keys.push(StoredKey::seal(kind, 1, key.serialized_der(), certificate, (vault, now), rng)?);
    }
    Ok(keys)
}

fn challenge(vault: &Vault, now: Timestamp, rng: &mut impl CryptoRng) -> Result<StoredKey, AuthorityError> {
    let mut challenge = [0; CHALLENGE_KEY_BYTES];
    rng.fill_bytes(&mut challenge);
    StoredKey::seal(KeyKind::Challenge, 1, &challenge, Vec::new(), (vault, now), rng)
}

/// An authority that has just been made.
pub struct Made {
    pub issuer: Issuer<'static, AuthorityKey>,
    /// DER
    pub certificate: Vec<u8>,
}

impl Made {
    pub(super) fn store(
        &self,
        kind: KeyKind,
        generation: u32,
        (vault, now): (&Vault, Timestamp),
        rng: &mut impl CryptoRng,
    ) -> Result<StoredKey, AuthorityError> {
        let plain = self.issuer.key().at_rest();
        StoredKey::seal(kind, generation, &plain, self.certificate.clone(), (vault, now), rng)
    }
}

fn root_network(root: &Made) -> Result<NetworkId, AuthorityError> {
    let spki = root.issuer.key().subject_public_key_info();
    Ok(RootKey::from_spki(&spki).map_err(|_| AuthorityError::Algorithm)?.network_id())
}

/// A new root of `key`. Its subject follows from the key, so that whoever has the key can make a trust anchor without the certificate.
///
/// # Errors
/// The certificate could not be encoded or signed.
pub fn root(key: AuthorityKey, now: Timestamp, rng: &mut impl CryptoRng) -> Result<Made, AuthorityError> {
    let params = root_params(&key.subject_public_key_info(), now, rng)?;
    let certificate = params.self_signed(&key)?.der().to_vec();
    Ok(Made { issuer: Issuer::new(params, key), certificate })
}

/// The certificate of one root's key by another root: whoever pins the signing one believes the other through it.
///
/// # Errors
/// The key is none of a root.
pub fn cross(
    spki: &[u8],
    by: &Issuer<'_, impl SigningKey>,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, AuthorityError> {
    let mut params = root_params(spki, now, rng)?;
    params.use_authority_key_identifier_extension = true;
    let key = SubjectPublicKeyInfo::from_der(spki)?;
    Ok(params.signed_by(&key, by)?.der().to_vec())
}

fn root_params(
    spki: &[u8],
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<CertificateParams, AuthorityError> {
    let key = RootKey::from_spki(spki).map_err(|_| AuthorityError::Algorithm)?;
    let mut params = authority(&key.common_name(), now, ROOT_LIFETIME, rng)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(params)
}

/// An authority of `kind` for `key`, signed by a root.
pub(super) fn subordinate(
    kind: KeyKind,
    key: AuthorityKey,
    root: &Issuer<'_, AuthorityKey>,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<Made, AuthorityError> {
    let params = subordinate_params(kind, now, rng)?;
    let certificate = params.signed_by(&key, root)?.der().to_vec();
    Ok(Made { issuer: Issuer::new(params, key), certificate })
}

/// As `subordinate`, for a request that came from a master whose root is here.
///
/// # Errors
/// The request's key is not EC P-256.
pub fn certify_authority(
    kind: KeyKind,
    spki: &[u8],
    root: &Issuer<'_, impl SigningKey>,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, AuthorityError> {
    PublicKey::from_spki(spki).ok_or(AuthorityError::Algorithm)?;
    let key = SubjectPublicKeyInfo::from_der(spki)?;
    Ok(subordinate_params(kind, now, rng)?.signed_by(&key, root)?.der().to_vec())
}

fn subordinate_params(
    kind: KeyKind,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = authority(kind.common_name(), now, ISSUING_LIFETIME, rng)?;
    // It signs leaves, and no further authority (RFC 5280, section 4.2.1.9).
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.use_authority_key_identifier_extension = true;
    if kind == KeyKind::Devices {
        // Whatever it signs is none of ours: no service and no node has such a name.
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: Vec::new(),
            excluded_subtrees: vec![GeneralSubtree::DnsName(OUR_DOMAIN.to_owned())],
        });
    }
    Ok(params)
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
    issuer: &Issuer<'_, AuthorityKey>,
    network: NetworkId,
    purpose: Purpose,
    spki: &[u8],
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, AuthorityError> {
    signer_named(issuer, network, purpose.as_str().to_owned(), spki, now, rng)
}

/// The certificate that withdraws the key `withdrawn` (its id). It is one for the key in its place, `spki`, which signs anyway.
pub(super) fn certify_withdrawal(
    issuer: &Issuer<'_, AuthorityKey>,
    network: NetworkId,
    withdrawn: &[u8],
    spki: &[u8],
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, AuthorityError> {
    signer_named(issuer, network, trust::withdrawal_name(withdrawn), spki, now, rng)
}

fn signer_named(
    issuer: &Issuer<'_, AuthorityKey>,
    network: NetworkId,
    name: String,
    spki: &[u8],
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, AuthorityError> {
    let identity = Identity { network, role: Role::Signer, name };
    let public_key = PublicKey::from_spki(spki).ok_or(AuthorityError::Algorithm)?;
    Ok(leaf::issue(issuer, "", &identity, &public_key, now, rng)?.der)
}
