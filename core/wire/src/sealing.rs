//! What only one holder of a key may read, whoever carries it: HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256),
//! HKDF-SHA256, ChaCha20-Poly1305. What it is for goes into `info`, what it belongs to into `aad`: nothing that was sealed
//! for one purpose or place opens in another.

use bytes::Bytes;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use muster_proto::trust::v1::Sealed;
use muster_types::{NetworkId, NodeId};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::envelope::key_id;

/// Bytes of X25519 keys, secret and public.
pub const KEY_BYTES: usize = 32;

/// Arguments of one task, for one node.
pub const ARGUMENTS: &str = "muster task arguments v1";
/// What a node reports of one task, for the master or a CMDB.
pub const REPORTS: &str = "muster task reports v1";
/// Where a node is, for one that it calls.
pub const CALLS: &str = "muster call v1";
/// What one node writes to another.
pub const LETTERS: &str = "muster letter v1";

type Private = <X25519HkdfSha256 as Kem>::PrivateKey;
type Public = <X25519HkdfSha256 as Kem>::PublicKey;
type Encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey;

/// Why nothing was sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealingError {
    #[error("the key to seal to is no X25519 key")]
    Key,
    #[error("it is not sealed to this key, or was changed, or belongs elsewhere")]
    NotForUs,
}

/// The secret half of a sealing key. Cannot be printed.
#[derive(Clone)]
pub struct SealingKey {
    secret: StaticSecret,
    public: [u8; KEY_BYTES],
}

impl SealingKey {
    pub fn new(secret: [u8; KEY_BYTES]) -> Self {
        let secret = StaticSecret::from(secret);
        Self { public: *PublicKey::from(&secret).as_bytes(), secret }
    }

    /// What others seal to.
    pub fn public(&self) -> &[u8; KEY_BYTES] {
        &self.public
    }

    /// Opens what was sealed to this key, for this purpose and this place.
    ///
    /// # Errors
    /// It was not.
    pub fn open(&self, purpose: &str, place: &[u8], sealed: &Sealed) -> Result<Bytes, SealingError> {
        if sealed.key_id != key_id(&self.public) {
            return Err(SealingError::NotForUs);
        }
        let not_ours = |_| SealingError::NotForUs;
        let private = Private::from_bytes(self.secret.as_bytes()).map_err(not_ours)?;
        let encapsulated = Encapsulated::from_bytes(&sealed.encapsulated_key).map_err(not_ours)?;
        let opened = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &private,
            &encapsulated,
            purpose.as_bytes(),
            &sealed.ciphertext,
            place,
        );
        opened.map(Bytes::from).map_err(not_ours)
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey(secret)")
    }
}

/// Seals to the holder of `public`.
///
/// # Errors
/// It is no usable key.
pub fn seal(public: &[u8], purpose: &str, place: &[u8], plain: &[u8]) -> Result<Sealed, SealingError> {
    let recipient = Public::from_bytes(public).map_err(|_| SealingError::Key)?;
    let (encapsulated, ciphertext) =
        hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &recipient,
            purpose.as_bytes(),
            plain,
            place,
        )
        .map_err(|_| SealingError::Key)?;
    Ok(Sealed {
        key_id: key_id(public),
        encapsulated_key: Bytes::copy_from_slice(&encapsulated.to_bytes()),
        ciphertext: ciphertext.into(),
    })
}

/// The place of one task on one node.
pub fn place_of_task(network: NetworkId, task: &[u8], node: NodeId) -> Vec<u8> {
    [network.as_bytes(), task, node.as_bytes()].concat()
}

/// The place of one report of one task on one node.
pub fn place_of_report(task: &[u8], occurrence: &str, node: NodeId, sequence: u64) -> Vec<u8> {
    [task, node.as_bytes(), &sequence.to_be_bytes(), occurrence.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_key_purpose_and_place_alone() {
        let (ours, theirs) = (SealingKey::new([7; KEY_BYTES]), SealingKey::new([8; KEY_BYTES]));
        let sealed = seal(ours.public(), ARGUMENTS, b"here", b"a secret").unwrap();
        assert!(!sealed.ciphertext.windows(6).any(|window| window == b"secret"));
        assert_eq!(ours.open(ARGUMENTS, b"here", &sealed).unwrap(), "a secret");
        assert_eq!(theirs.open(ARGUMENTS, b"here", &sealed), Err(SealingError::NotForUs));
        assert_eq!(ours.open(REPORTS, b"here", &sealed), Err(SealingError::NotForUs));
        assert_eq!(ours.open(ARGUMENTS, b"there", &sealed), Err(SealingError::NotForUs));
        let mut changed = sealed.clone();
        changed.ciphertext = [&sealed.ciphertext[..1], b"x", &sealed.ciphertext[2..]].concat().into();
        assert_eq!(ours.open(ARGUMENTS, b"here", &changed), Err(SealingError::NotForUs));
    }

    #[test]
    fn the_same_plain_text_is_sealed_differently_each_time() {
        let key = SealingKey::new([7; KEY_BYTES]);
        let seal = || seal(key.public(), ARGUMENTS, b"", b"again").unwrap();
        assert_ne!(seal(), seal());
    }

    #[test]
    fn the_keys_are_those_that_tickets_name() {
        let secret = [9; KEY_BYTES];
        assert_eq!(SealingKey::new(secret).public(), PublicKey::from(&StaticSecret::from(secret)).as_bytes());
    }
}
