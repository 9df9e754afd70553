//! Who holds the private key of an authority: we, sealed in the store, or a token (PKCS#11) that signs and never gives it away.
//!
//! What signs is an [`AuthorityKey`] in either case. At rest it is a PKCS#8 key or the key's name in the token; the vault
//! seals both alike.

use std::fmt;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use der::asn1::UintRef;
use der::{Encode, Sequence};
use rand::CryptoRng;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};
use ring::digest::{SHA256, digest};

use super::authority::AuthorityError;
use super::key::StoredKey;
use super::vault::Vault;

/// Bytes of a key's CKA_ID. Drawn, so that two replicas that make the same generation at once make two keys.
const ID_BYTES: usize = 16;

/// Bytes of an uncompressed P-256 point (SEC 1, section 2.3.3).
pub const POINT_BYTES: usize = 65;

/// What a key in a token is at rest, as RFC 7512 begins such names. No PKCS#8 begins so.
const SCHEME: &str = "pkcs11:id=";

/// Why a token does not do what it is there for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the PKCS#11 module {module} cannot be loaded: {reason}")]
    Module { module: String, reason: String },
    #[error("the module has no token labelled {wanted:?}; it has {found}")]
    NoToken { wanted: String, found: String },
    #[error("the module has {count} tokens labelled {wanted:?}: give ours a label of its own")]
    Ambiguous { wanted: String, count: usize },
    #[error("cannot read the token's PIN from {file}: {reason}")]
    PinFile { file: String, reason: String },
    #[error("the token refuses the PIN in {file}; it is not tried again before the file says another one")]
    WrongPin { file: String },
    #[error("the token's PIN is locked: its security officer has to set a new one")]
    PinLocked,
    #[error(
        "a wrong PIN was tried before, and one try is left: log in by hand with the right one, then start again"
    )]
    LastTry,
    #[error("the token has no key {0}: is it another token than the one in which the network was founded?")]
    NoKey(KeyId),
    #[error("the key {0} in the token is not EC P-256")]
    ForeignKey(KeyId),
    #[error("the token was busy for {seconds} s")]
    Busy { seconds: u64 },
    #[error("the token failed: {0}")]
    Failed(String),
    #[error(
        "the key is in a PKCS#11 token, and none is configured: --pkcs11-module, --pkcs11-token, --pkcs11-pin-file"
    )]
    NotConfigured,
}

/// A key's name in its token (CKA_ID).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub [u8; ID_BYTES]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl KeyId {
    fn draw(rng: &mut impl CryptoRng) -> Self {
        let mut id = [0; ID_BYTES];
        rng.fill_bytes(&mut id);
        Self(id)
    }

    /// The name that `plain` is, if it is no key itself.
    fn read(plain: &[u8]) -> Option<Self> {
        let digits = plain.strip_prefix(SCHEME.as_bytes())?;
        Some(Self(HEXLOWER.decode(digits).ok()?.try_into().ok()?))
    }
}

/// A token that makes EC P-256 keys and signs by them. Calls block.
pub trait Token: Send + Sync + fmt::Debug {
    /// Makes a key that cannot be taken out; says its public point, uncompressed. `label` is for people.
    ///
    /// # Errors
    /// The token is away or refuses.
    fn make(&self, id: KeyId, label: &str) -> Result<[u8; POINT_BYTES], TokenError>;

    /// The public point of a key.
    ///
    /// # Errors
    /// The token is away, or has no such key.
    fn point(&self, id: KeyId) -> Result<[u8; POINT_BYTES], TokenError>;

    /// ECDSA over a SHA-256: r and s, 32 bytes each.
    ///
    /// # Errors
    /// As [`Token::point`].
    fn sign(&self, id: KeyId, hash: &[u8]) -> Result<[u8; 64], TokenError>;

    /// Destroys a key.
    ///
    /// # Errors
    /// As [`Token::point`].
    fn destroy(&self, id: KeyId) -> Result<(), TokenError>;
}

/// The key of a root or of an authority below it, ready to sign.
pub enum AuthorityKey {
    Ours(KeyPair),
    Held { token: Arc<dyn Token>, id: KeyId, point: [u8; POINT_BYTES] },
}

impl fmt::Debug for AuthorityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(_) => f.write_str("AuthorityKey(ours)"),
            Self::Held { id, .. } => write!(f, "AuthorityKey({id} in the token)"),
        }
    }
}

impl AuthorityKey {
    /// A new key of our own.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn draw() -> Result<Self, AuthorityError> {
        Ok(Self::Ours(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    /// A new key, in the vault's token if it has one.
    ///
    /// # Errors
    /// The token refuses, or the system has no randomness.
    pub(super) fn make(label: &str, vault: &Vault, rng: &mut impl CryptoRng) -> Result<Self, AuthorityError> {
        let Some(token) = vault.token() else { return Self::draw() };
        let id = KeyId::draw(rng);
        Ok(Self::Held { token: token.clone(), id, point: token.make(id, label)? })
    }

    /// The key that is `plain` at rest.
    ///
    /// # Errors
    /// It is damaged, or in a token that is away, another one, or not configured.
    pub(super) fn open(plain: &[u8], vault: &Vault) -> Result<Self, AuthorityError> {
        let Some(id) = KeyId::read(plain) else { return Ok(Self::Ours(KeyPair::try_from(plain)?)) };
        let token = vault.token().ok_or(TokenError::NotConfigured)?;
        Ok(Self::Held { token: token.clone(), id, point: token.point(id)? })
    }

    /// What is sealed of it: the key itself (PKCS#8 DER), or its name in the token.
    pub fn at_rest(&self) -> Vec<u8> {
        match self {
            Self::Ours(pair) => pair.serialize_der(),
            Self::Held { id, .. } => format!("{SCHEME}{id}").into_bytes(),
        }
    }
}

impl PublicKeyData for AuthorityKey {
    fn der_bytes(&self) -> &[u8] {
        match self {
            Self::Ours(pair) => pair.der_bytes(),
            Self::Held { point, .. } => point,
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for AuthorityKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match self {
            Self::Ours(pair) => pair.sign(message),
            Self::Held { token, id, .. } => {
                let hash = digest(&SHA256, message);
                let signature = token.sign(*id, hash.as_ref()).map_err(|_| rcgen::Error::RemoteKeyError)?;
                encode(&signature).map_err(|_| rcgen::Error::RemoteKeyError)
            }
        }
    }
}

/// ECDSA-Sig-Value (RFC 3279, section 2.2.3).
#[derive(Sequence)]
struct Signature<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

fn encode(signature: &[u8; 64]) -> der::Result<Vec<u8>> {
    let (r, s) = signature.split_at(32);
    Signature { r: UintRef::new(r)?, s: UintRef::new(s)? }.to_der()
}

/// Destroys what was made in the token for `made` and did not get into the store, where `stored` is.
///
/// # Errors
/// The token is away: the keys stay, and nobody uses them.
pub fn discard(made: &[StoredKey], stored: &[StoredKey], vault: &Vault) -> Result<usize, AuthorityError> {
    let Some(token) = vault.token() else { return Ok(0) };
    let ids = |keys: &[StoredKey]| -> Result<Vec<KeyId>, AuthorityError> {
        let here = keys.iter().filter(|key| key.is_here());
        let plain = here.map(|key| key.unseal(vault)).collect::<Result<Vec<_>, _>>()?;
        Ok(plain.iter().filter_map(|plain| KeyId::read(plain)).collect())
    };
    let kept = ids(stored)?;
    let orphans: Vec<_> = ids(made)?.into_iter().filter(|id| !kept.contains(id)).collect();
    for id in &orphans {
        token.destroy(*id)?;
    }
    Ok(orphans.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_token_and_a_key_are_told_apart() {
        let id = KeyId([7; ID_BYTES]);
        assert_eq!(KeyId::read(format!("{SCHEME}{id}").as_bytes()), Some(id));
        let AuthorityKey::Ours(pair) = AuthorityKey::draw().unwrap() else { panic!("it is ours") };
        assert_eq!(KeyId::read(&pair.serialize_der()), None);
        assert_eq!(KeyId::read(b"pkcs11:id=07"), None);
    }

    #[test]
    fn a_signature_is_der_whatever_its_numbers_begin_with() {
        for (first, length) in [(0x00, 31), (0x7f, 32), (0x80, 33)] {
            let mut raw = [0x11; 64];
            (raw[0], raw[32]) = (first, first);
            let der = encode(&raw).unwrap();
            assert_eq!((der[0], usize::from(der[3])), (0x30, length), "{first:#x}");
            assert_eq!(der.len(), 2 + 2 * (2 + length));
        }
    }
}
