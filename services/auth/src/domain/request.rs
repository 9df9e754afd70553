//! Certificate requests as they arrive: checked for what they prove, read for the public key and nothing else.

use std::fmt;

use muster_types::RootKey;
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

/// A PKCS#10 for a P-256 key takes some 250 bytes; nobody needs sixteen times as much.
const REQUEST_BYTES: usize = 4_096;

/// What a node's Ed25519 key signs at enrollment, before the request's hash.
const ENROLLMENT_CONTEXT: &[u8] = b"muster enrollment v1";

/// Length of X25519 and Ed25519 public keys.
pub const NODE_KEY_BYTES: usize = 32;

/// Why a request was refused: always its sender's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("the certificate request has {0} bytes; {REQUEST_BYTES} are the most")]
    TooLong(usize),
    #[error("the certificate request is no DER PKCS#10")]
    Malformed,
    #[error("the certificate request is not for an EC P-256 key")]
    Algorithm,
    #[error("the certificate request is not signed by the key it is for")]
    BadProof,
    #[error("a node sends its three other keys; there are none")]
    NoNodeKeys,
    #[error("only a node has node_keys")]
    ForeignNodeKeys,
    #[error("{0} is no key of 32 bytes")]
    NodeKey(&'static str),
    #[error("signing_proof is not by signing_key over this request")]
    BadSigningProof,
}

impl RequestError {
    /// Whether the sender failed to prove that it holds a key.
    pub fn is_bad_proof(self) -> bool {
        matches!(self, Self::BadProof | Self::BadSigningProof)
    }
}

/// SHA-256 of a SubjectPublicKeyInfo: how auth knows a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({:02x}{:02x}{:02x}{:02x})", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

/// Somebody's P-256 key: an uncompressed point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(RootKey);

impl PublicKey {
    /// `None` if it is not a P-256 key.
    pub fn from_spki(spki: &[u8]) -> Option<Self> {
        RootKey::from_spki(spki).ok().map(Self)
    }

    /// `None` if it is no uncompressed point.
    pub fn from_point(point: &[u8]) -> Option<Self> {
        RootKey::from_point(point).ok().map(Self)
    }

    pub fn spki(&self) -> Vec<u8> {
        self.0.spki()
    }

    pub fn hash(&self) -> KeyHash {
        KeyHash(sha256(&self.spki()))
    }

    /// Whether `signature` (ASN.1, SHA-256) by this key covers `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.0.point());
        key.verify(message, signature).is_ok()
    }
}

/// A request whose sender holds the key it names. Its subject and extensions are never looked at.
#[derive(Debug, Clone, Copy)]
pub struct CertificateRequest {
    key: PublicKey,
    hash: [u8; 32],
}

impl CertificateRequest {
    /// Reads a DER PKCS#10 and checks its signature.
    ///
    /// # Errors
    /// Too long, malformed, another algorithm, or not signed by its own key.
    pub fn parse(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > REQUEST_BYTES {
            return Err(RequestError::TooLong(der.len()));
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| RequestError::Malformed)?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed);
        }
        let info = &request.certification_request_info;
        let key = PublicKey::from_spki(info.subject_pki.raw).ok_or(RequestError::Algorithm)?;
        if !key.verifies(info.raw, &request.signature_value.data) {
            return Err(RequestError::BadProof);
        }
        Ok(Self { key, hash: sha256(der) })
    }

    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// SHA-256 of the request as sent.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

/// A node's keys beside the one of its certificate; its ticket binds them to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeKeys {
    /// X25519
    pub noise: [u8; NODE_KEY_BYTES],
    /// X25519
    pub sealing: [u8; NODE_KEY_BYTES],
    /// Ed25519
    pub signing: [u8; NODE_KEY_BYTES],
}

impl NodeKeys {
    /// Reads the keys and checks the proof that the sender of `request` holds the signing key.
    ///
    /// # Errors
    /// A key has another length or is all zeros; the proof does not fit.
    pub fn proven(
        noise: &[u8],
        sealing: &[u8],
        signing: &[u8],
        proof: &[u8],
        request: &CertificateRequest,
    ) -> Result<Self, RequestError> {
        let keys = Self {
            noise: node_key(noise, "noise_key")?,
            sealing: node_key(sealing, "sealing_key")?,
            signing: node_key(signing, "signing_key")?,
        };
        let message = [ENROLLMENT_CONTEXT, request.hash()].concat();
        UnparsedPublicKey::new(&ED25519, &keys.signing)
            .verify(&message, proof)
            .map_err(|_| RequestError::BadSigningProof)?;
        Ok(keys)
    }
}

fn node_key(bytes: &[u8], field: &'static str) -> Result<[u8; NODE_KEY_BYTES], RequestError> {
    let key: [u8; NODE_KEY_BYTES] = bytes.try_into().map_err(|_| RequestError::NodeKey(field))?;
    if key == [0; NODE_KEY_BYTES] { Err(RequestError::NodeKey(field)) } else { Ok(key) }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}
