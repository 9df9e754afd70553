//! New generations of root and authorities, beside the old ones: both are trusted until the old ones run out.
//!
//! A new root and the one before it sign each other's keys. Who pins the old one believes what the new one signs by the
//! certificate that leaves bring along; who pins the new one learns of the old one from the trust bundle.

use std::collections::BTreeSet;

use bytes::Bytes;
use muster_types::{NetworkId, RootKey, Timestamp};
use muster_wire::envelope::key_id;
use muster_wire::trust::withdrawn_by;
use rand::CryptoRng;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::{AuthorityError, issuer, key_of, spki_of};
use super::custody::AuthorityKey;
use super::founding::{self, cross, pending, subordinate};
use super::key::{KeyKind, StoredKey, generations, label, newest, next_generation};
use super::leaf::{SIGNER_LIFETIME, common_name};
use super::request::PublicKey;
use super::signer::Purpose;
use super::vault::Vault;

/// Why certificates that were signed elsewhere are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    #[error("a certificate cannot be read: {0}")]
    Unreadable(String),
    #[error(
        "the root's subject is {found:?} and must be {expected:?}, which follows from its key: devices make their trust anchor of the key alone"
    )]
    RootSubject { found: String, expected: String },
    #[error("{0:?} is no authority's certificate: basicConstraints must say CA")]
    NoAuthority(String),
    #[error("{0:?} is signed by no root of this network, and by none that comes with it")]
    Stranger(String),
    #[error("{0:?} is for a key that waits for no certificate here: export the requests again")]
    NotAsked(String),
    #[error("there is no issuing authority among the certificates, and none here yet")]
    Incomplete,
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// The next issuing authority (and that of devices), signed by the root; or, where the root is elsewhere, their keys alone.
///
/// # Errors
/// A key is missing or damaged.
pub fn rotate_issuing(
    keys: &[StoredKey],
    vault: &Vault,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<Vec<StoredKey>, AuthorityError> {
    let root = newest(keys, KeyKind::Root)?;
    KeyKind::AUTHORITIES
        .into_iter()
        .map(|kind| {
            let generation = next_generation(keys, kind);
            if !root.is_here() {
                return pending(kind, generation, vault, now, rng);
            }
            let key = AuthorityKey::make(&label(kind, generation), vault, rng)?;
            subordinate(kind, key, &issuer(root, vault)?, now, rng)?.store(
                kind,
                generation,
                (vault, now),
                rng,
            )
        })
        .collect()
}

/// New keys to sign with in the master's name, for every purpose.
///
/// # Errors
/// The issuing authority is missing or damaged.
pub fn rotate_signers(
    keys: &[StoredKey],
    vault: &Vault,
    network: NetworkId,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<Vec<StoredKey>, AuthorityError> {
    let issuing = issuer(newest(keys, KeyKind::Issuing)?, vault)?;
    Purpose::ALL
        .into_iter()
        .map(|purpose| {
            let kind = KeyKind::Signer(purpose);
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let spki = key.subject_public_key_info();
            let certificate = founding::certify_signer(&issuing, network, purpose, &spki, now, rng)?;
            let generation = next_generation(keys, kind);
            StoredKey::seal(kind, generation, &key.serialize_der(), certificate, (vault, now), rng)
        })
        .collect()
}

/// New keys for these purposes, and withdrawals of every earlier one whose certificate is still good: whoever has such a key
/// could otherwise show it with that.
///
/// # Errors
/// The issuing authority is missing or damaged.
pub fn withdraw_signers(
    keys: &[StoredKey],
    vault: &Vault,
    purposes: &[Purpose],
    network: NetworkId,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<Vec<StoredKey>, AuthorityError> {
    let issuing = issuer(newest(keys, KeyKind::Issuing)?, vault)?;
    let mut made = rotate_signers(keys, vault, network, now, rng)?;
    made.retain(|key| purposes.iter().any(|purpose| key.kind == KeyKind::Signer(*purpose)));
    let mut withdrawn = withdrawn(keys);
    let mut generation = next_generation(keys, KeyKind::Withdrawal);
    for successor in made.clone() {
        let spki = spki_of(&successor.certificate)?;
        let good = |key: &&StoredKey| now.since(key.create_time) < SIGNER_LIFETIME;
        for earlier in generations(keys, successor.kind).into_iter().filter(good) {
            let id = key_id(&spki_of(&earlier.certificate)?);
            if withdrawn.insert(id.clone()) {
                let certificate = founding::certify_withdrawal(&issuing, network, &id, &spki, now, rng)?;
                made.push(StoredKey::elsewhere(KeyKind::Withdrawal, generation, certificate, now));
                generation += 1;
            }
        }
    }
    Ok(made)
}

/// Ids of the keys that were withdrawn.
pub(super) fn withdrawn(keys: &[StoredKey]) -> BTreeSet<Bytes> {
    let withdrawals = generations(keys, KeyKind::Withdrawal).into_iter();
    withdrawals.filter_map(|key| withdrawn_by(&key.certificate)).collect()
}

/// A new root with new authorities below it, and the two roots' certificates for each other.
///
/// # Errors
/// The present root's key is elsewhere.
pub fn rotate_root(
    keys: &[StoredKey],
    vault: &Vault,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<Vec<StoredKey>, AuthorityError> {
    let old = newest(keys, KeyKind::Root)?;
    let old_issuer = issuer(old, vault)?;
    let next_root = next_generation(keys, KeyKind::Root);
    let key = AuthorityKey::make(&label(KeyKind::Root, next_root), vault, rng)?;
    let new = founding::root(key, now, rng)?;
    let generation = next_generation(keys, KeyKind::Cross);
    let forth = cross(&new.issuer.key().subject_public_key_info(), &old_issuer, now, rng)?;
    let back = cross(&spki_of(&old.certificate)?, &new.issuer, now, rng)?;
    let mut made = vec![
        new.store(KeyKind::Root, next_root, (vault, now), rng)?,
        StoredKey::elsewhere(KeyKind::Cross, generation, forth, now),
        StoredKey::elsewhere(KeyKind::Cross, generation + 1, back, now),
    ];
    for kind in KeyKind::AUTHORITIES {
        let generation = next_generation(keys, kind);
        let key = AuthorityKey::make(&label(kind, generation), vault, rng)?;
        let authority = subordinate(kind, key, &new.issuer, now, rng)?;
        made.push(authority.store(kind, generation, (vault, now), rng)?);
    }
    Ok(made)
}

/// The requests (DER PKCS#10) of authorities whose certificates are still to come.
///
/// # Errors
/// A key is damaged.
pub fn requests(keys: &[StoredKey], vault: &Vault) -> Result<Vec<(KeyKind, Vec<u8>)>, AuthorityError> {
    let mut requests = Vec::new();
    for kind in KeyKind::AUTHORITIES {
        let Some(key) = waiting(keys, kind) else { continue };
        let pair = key_of(key, vault)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(kind.common_name());
        requests.push((kind, params.serialize_request(&pair)?.der().to_vec()));
    }
    Ok(requests)
}

/// The newest key of a kind, if it has no certificate.
fn waiting(keys: &[StoredKey], kind: KeyKind) -> Option<&StoredKey> {
    generations(keys, kind).first().copied().filter(|key| key.certificate.is_empty())
}

/// Takes in what was signed elsewhere: a root, roots' certificates for each other, authorities' certificates. Completes a
/// network that was only prepared.
///
/// # Errors
/// A certificate does not fit; nothing is taken then.
pub fn import(
    keys: &[StoredKey],
    certificates: &[Vec<u8>],
    vault: &Vault,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<Vec<StoredKey>, ImportError> {
    let mut roots: Vec<Vec<u8>> =
        generations(keys, KeyKind::Root).iter().map(|root| root.certificate.clone()).collect();
    let mut all = keys.to_vec();
    let mut made = Vec::new();
    let (own, others): (Vec<_>, Vec<_>) =
        certificates.iter().partition(|der| parse(der).is_ok_and(|it| it.subject() == it.issuer()));
    for der in own {
        check_root(der)?;
        if !roots.contains(der) {
            roots.push(der.clone());
            let generation = next_generation(&all, KeyKind::Root);
            push(&mut all, &mut made, StoredKey::elsewhere(KeyKind::Root, generation, der.clone(), now));
        }
    }
    for der in others {
        let key = place(&all, der, &roots, vault, now, rng)?;
        push(&mut all, &mut made, key);
    }
    let issuing = newest(&all, KeyKind::Issuing).map_err(|_| ImportError::Incomplete)?;
    let first = generations(&all, KeyKind::Root).last().copied().ok_or(ImportError::Incomplete)?;
    if newest(&all, KeyKind::Signer(super::signer::Purpose::Tasks)).is_err() {
        let network = root_key(&first.certificate)?.network_id();
        made.extend(founding::signers(&issuer(issuing, vault)?, network, (vault, now), rng)?);
    }
    Ok(made)
}

fn push(all: &mut Vec<StoredKey>, made: &mut Vec<StoredKey>, key: StoredKey) {
    all.push(key.clone());
    made.push(key);
}

/// What a certificate that is not self-signed is here: a cross certificate, or that of a waiting authority.
fn place(
    keys: &[StoredKey],
    der: &[u8],
    roots: &[Vec<u8>],
    vault: &Vault,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<StoredKey, ImportError> {
    let certificate = parse(der)?;
    let name = certificate.subject().to_string();
    if !certificate.is_ca() {
        return Err(ImportError::NoAuthority(name));
    }
    if !roots.iter().any(|root| signed_by(&certificate, root)) {
        return Err(ImportError::Stranger(name));
    }
    let spki = certificate.public_key().raw;
    if roots.iter().any(|root| spki_of(root).is_ok_and(|of_root| of_root == spki)) {
        let generation = next_generation(keys, KeyKind::Cross);
        return Ok(StoredKey::elsewhere(KeyKind::Cross, generation, der.to_vec(), now));
    }
    for kind in KeyKind::AUTHORITIES {
        let Some(key) = waiting(keys, kind) else { continue };
        if key_of(key, vault)?.subject_public_key_info() == spki {
            let (plain, generation) = (key.unseal(vault)?, key.generation + 1);
            return Ok(StoredKey::seal(kind, generation, &plain, der.to_vec(), (vault, now), rng)?);
        }
    }
    Err(ImportError::NotAsked(name))
}

fn check_root(der: &[u8]) -> Result<(), ImportError> {
    let certificate = parse(der)?;
    let found = certificate.subject().to_string();
    if !certificate.is_ca() {
        return Err(ImportError::NoAuthority(found));
    }
    let expected = format!("CN={}", root_key(der)?.common_name());
    if found != expected {
        return Err(ImportError::RootSubject { found, expected });
    }
    if signed_by(&certificate, der) { Ok(()) } else { Err(ImportError::Stranger(found)) }
}

fn root_key(der: &[u8]) -> Result<RootKey, ImportError> {
    RootKey::from_spki(&spki_of(der)?).map_err(|_| ImportError::Authority(AuthorityError::Algorithm))
}

fn signed_by(certificate: &X509Certificate<'_>, by: &[u8]) -> bool {
    let key = spki_of(by).ok().and_then(|spki| PublicKey::from_spki(&spki));
    key.is_some_and(|key| {
        key.verifies(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data)
    })
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, ImportError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(ImportError::Unreadable("bytes follow it".to_owned())),
        Err(error) => Err(ImportError::Unreadable(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use muster_types::NetworkId;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::domain::Authority;
    use crate::domain::founding::certify_authority;

    const NOW: Timestamp = Timestamp::from_micros(1_795_000_000_000_000);

    fn vault(rng: &mut StdRng) -> Vault {
        Vault::open(&Vault::draw(rng)).unwrap()
    }

    #[test]
    fn a_root_elsewhere_signs_requests_and_its_answers_complete_the_network() {
        let mut rng = StdRng::seed_from_u64(1);
        let vault = vault(&mut rng);
        let mut keys = founding::prepare(&vault, NOW, &mut rng).unwrap();
        assert!(Authority::unseal(&keys, &vault).is_err());
        let root = founding::root(AuthorityKey::draw().unwrap(), NOW, &mut rng).unwrap();
        let mut answer = vec![root.certificate.clone()];
        for (kind, request) in requests(&keys, &vault).unwrap() {
            let (_, parsed) =
                x509_parser::certification_request::X509CertificationRequest::from_der(&request).unwrap();
            let spki = parsed.certification_request_info.subject_pki.raw;
            answer.push(certify_authority(kind, spki, &root.issuer, NOW, &mut rng).unwrap());
        }
        let stranger = founding::root(AuthorityKey::draw().unwrap(), NOW, &mut rng).unwrap();
        let refused = import(&keys, &[stranger.certificate, answer[1].clone()], &vault, NOW, &mut rng);
        assert!(matches!(refused, Err(ImportError::Stranger(_))));
        let refused = import(&keys, &answer[..1], &vault, NOW, &mut rng);
        assert_eq!(refused, Err(ImportError::Incomplete));
        keys.extend(import(&keys, &answer, &vault, NOW, &mut rng).unwrap());
        let authority = Authority::unseal(&keys, &vault).unwrap();
        assert_eq!(authority.root(), root.certificate);
        assert!(matches!(rotate_root(&keys, &vault, NOW, &mut rng), Err(AuthorityError::Elsewhere(_))));
        let again = import(&keys, &answer, &vault, NOW, &mut rng);
        assert!(matches!(again, Err(ImportError::NotAsked(_))));
    }

    #[test]
    fn withdrawn_signers_count_nowhere_and_others_go_on() {
        let mut rng = StdRng::seed_from_u64(3);
        let vault = vault(&mut rng);
        let mut keys = founding::found(&vault, NOW, &mut rng).unwrap();
        let network = Authority::unseal(&keys, &vault).unwrap().network();
        keys.extend(rotate_signers(&keys, &vault, network, NOW, &mut rng).unwrap());
        let before = Authority::unseal(&keys, &vault).unwrap();
        assert_eq!(before.signers(NOW).count(), 6);
        let tasks = [Purpose::Tasks];
        for _ in 0..2 {
            keys.extend(withdraw_signers(&keys, &vault, &tasks, network, NOW, &mut rng).unwrap());
        }
        let after = Authority::unseal(&keys, &vault).unwrap();
        // Tasks: the present one alone; tickets and receipts: each with the one that it replaced.
        assert_eq!((after.signers(NOW).count(), after.withdrawals(NOW).count()), (5, 3));
        assert_ne!(after.signer(Purpose::Tasks).spki, before.signer(Purpose::Tasks).spki);
        assert_eq!(after.signer(Purpose::Tickets).spki, before.signer(Purpose::Tickets).spki);
        assert!(after.version() > before.version());
        assert_eq!(after.withdrawals(NOW + SIGNER_LIFETIME).count(), 0);
    }

    #[test]
    fn a_rotated_network_keeps_its_name_and_trusts_both_roots() {
        let mut rng = StdRng::seed_from_u64(2);
        let vault = vault(&mut rng);
        let mut keys = founding::found(&vault, NOW, &mut rng).unwrap();
        let before = Authority::unseal(&keys, &vault).unwrap();
        keys.extend(rotate_issuing(&keys, &vault, NOW, &mut rng).unwrap());
        let issuing = Authority::unseal(&keys, &vault).unwrap();
        assert_eq!(issuing.root(), before.root());
        assert_eq!((issuing.issuing().len(), issuing.chain().len()), (2, 1));
        keys.extend(rotate_root(&keys, &vault, NOW, &mut rng).unwrap());
        let after = Authority::unseal(&keys, &vault).unwrap();
        assert_eq!(after.network(), before.network());
        assert_ne!(after.network(), NetworkId::default());
        assert_eq!(after.roots().len(), 2);
        assert_eq!(after.roots()[1], before.root());
        assert_eq!((after.crosses().len(), after.chain().len()), (2, 2));
        assert!(after.version() > issuing.version() && issuing.version() > before.version());
    }
}
