//! Signed envelopes in the manner of DSSE: signatures cover the payload's bytes as sent and the purpose they serve.
//!
//! Source: <https://github.com/secure-systems-lab/dsse/blob/master/protocol.md>, without its JSON.

use bytes::Bytes;
use muster_proto::trust::v1::{Envelope, Signature};
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// Bytes of a key id.
pub const KEY_ID_BYTES: usize = 8;

/// Why an envelope was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("the envelope holds {actual:?}, not {expected:?}")]
    PayloadType { expected: &'static str, actual: String },
    #[error("no signer of this network made the signature (key ids: {0})")]
    UnknownSigner(String),
    #[error("key {0} was withdrawn: nothing counts that it signed")]
    Withdrawn(String),
    #[error("the signature by key {0} does not fit the payload")]
    BadSignature(String),
    #[error("the payload is no {0}: {1}")]
    Payload(&'static str, String),
}

/// The first 8 bytes of the SHA-256 of a public key in its customary encoding (specification of `Signature.key_id`).
pub fn key_id(public_key: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&digest::digest(&digest::SHA256, public_key).as_ref()[..KEY_ID_BYTES])
}

/// DSSE's pre-authentication encoding.
fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// Signs with a signer's P-256 key; `key_id` is that of its SubjectPublicKeyInfo.
///
/// # Errors
/// [`ring::error::Unspecified`] if the system has no randomness to give.
pub fn sign_p256(
    payload_type: &'static str,
    payload: Bytes,
    key: &EcdsaKeyPair,
    key_id: Bytes,
) -> Result<Envelope, ring::error::Unspecified> {
    let signature = key.sign(&SystemRandom::new(), &pre_authentication(payload_type, &payload))?;
    Ok(envelope(payload_type, payload, key_id, signature.as_ref()))
}

/// Signs with a node's Ed25519 key.
pub fn sign_ed25519(payload_type: &'static str, payload: Bytes, key: &Ed25519KeyPair) -> Envelope {
    let signature = key.sign(&pre_authentication(payload_type, &payload));
    envelope(payload_type, payload, key_id(key.public_key().as_ref()), signature.as_ref())
}

fn envelope(payload_type: &str, payload: Bytes, key_id: Bytes, signature: &[u8]) -> Envelope {
    let value = Bytes::copy_from_slice(signature);
    Envelope {
        payload_type: payload_type.to_owned(),
        payload,
        signatures: vec![Signature { key_id, value, ..Signature::default() }],
    }
}

/// Opens an envelope that the holder of `public_key` (Ed25519, 32 bytes) signed.
///
/// # Errors
/// The type is another, or no signature of it fits.
pub fn open_ed25519(
    envelope: &Envelope,
    expected: &'static str,
    public_key: &[u8],
) -> Result<Bytes, EnvelopeError> {
    let id = key_id(public_key);
    open(envelope, expected, |candidate| {
        (candidate == id).then(|| UnparsedPublicKey::new(&ED25519, public_key.to_vec()))
    })
}

/// Opens an envelope if one of its signatures is by a key that `find` knows, and fits.
pub(crate) fn open(
    envelope: &Envelope,
    expected: &'static str,
    find: impl Fn(&[u8]) -> Option<UnparsedPublicKey<Vec<u8>>>,
) -> Result<Bytes, EnvelopeError> {
    if envelope.payload_type != expected {
        return Err(EnvelopeError::PayloadType { expected, actual: envelope.payload_type.clone() });
    }
    let known = envelope.signatures.iter().find_map(|signature| Some((signature, find(&signature.key_id)?)));
    let Some((signature, key)) = known else {
        let ids: Vec<_> = envelope.signatures.iter().map(|signature| show(&signature.key_id)).collect();
        return Err(EnvelopeError::UnknownSigner(ids.join(", ")));
    };
    key.verify(&pre_authentication(expected, &envelope.payload), &signature.value)
        .map_err(|_| EnvelopeError::BadSignature(show(&signature.key_id)))?;
    Ok(envelope.payload.clone())
}

pub(crate) fn show(key_id: &[u8]) -> String {
    key_id.iter().take(KEY_ID_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use muster_proto::payload_type::{ATTACH, CLAIM};

    use super::*;

    fn node_key() -> Ed25519KeyPair {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()
    }

    #[test]
    fn what_a_node_signed_opens_with_its_key_and_no_other() {
        let key = node_key();
        let sealed = sign_ed25519(CLAIM, Bytes::from_static(b"mine"), &key);
        assert_eq!(open_ed25519(&sealed, CLAIM, key.public_key().as_ref()).unwrap(), "mine");
        let stranger = open_ed25519(&sealed, CLAIM, node_key().public_key().as_ref());
        assert!(matches!(stranger, Err(EnvelopeError::UnknownSigner(_))));
    }

    #[test]
    fn a_signature_for_one_purpose_does_not_serve_another() {
        let key = node_key();
        let mut sealed = sign_ed25519(CLAIM, Bytes::from_static(b"mine"), &key);
        sealed.payload_type = ATTACH.to_owned();
        let reused = open_ed25519(&sealed, ATTACH, key.public_key().as_ref());
        assert!(matches!(reused, Err(EnvelopeError::BadSignature(_))));
        let mistaken = open_ed25519(&sealed, CLAIM, key.public_key().as_ref());
        assert!(matches!(mistaken, Err(EnvelopeError::PayloadType { .. })));
    }

    #[test]
    fn a_changed_payload_does_not_open() {
        let key = node_key();
        let mut sealed = sign_ed25519(CLAIM, Bytes::from_static(b"mine"), &key);
        sealed.payload = Bytes::from_static(b"hers");
        let changed = open_ed25519(&sealed, CLAIM, key.public_key().as_ref());
        assert!(matches!(changed, Err(EnvelopeError::BadSignature(_))));
    }
}
