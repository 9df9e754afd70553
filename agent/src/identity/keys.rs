//! The four keys of a device, made here and never sent: TLS, Noise, sealing, signing.

use bytes::Bytes;
use muster_proto::auth::v1::NodeKeys;
use muster_wire::sealing::SealingKey;
use muster_wire::ticket::NodeTicket;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde::{Deserialize, Serialize};
use x25519_dalek::{PublicKey, StaticSecret};

/// What stands before the hash of a certificate request that a node's signing key proves itself on.
const ENROLLMENT_CONTEXT: &[u8] = b"muster enrollment v1";
/// The like for the proof of possession in a renewal.
const RENEWAL_CONTEXT: &[u8] = b"muster renewal v1";

/// Why keys cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the system gives no randomness")]
    NoRandomness,
    #[error("the kept {0} key is damaged")]
    Damaged(&'static str),
    #[error("no certificate request could be made: {0}")]
    Request(rcgen::Error),
}

/// The keys, ready for use. Neither printable nor comparable.
pub struct DeviceKeys {
    tls: KeyPair,
    tls_pkcs8: Vec<u8>,
    noise: StaticSecret,
    sealing: StaticSecret,
    signing: std::sync::Arc<Ed25519KeyPair>,
    signing_pkcs8: Vec<u8>,
}

/// The keys as they are kept.
#[derive(Serialize, Deserialize)]
pub(super) struct KeptKeys {
    tls: String,
    noise: String,
    sealing: String,
    signing: String,
}

impl DeviceKeys {
    /// Draws new keys.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let tls = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| KeyError::NoRandomness)?;
        let random = SystemRandom::new();
        let secret = || {
            let mut bytes = [0; 32];
            random.fill(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
            Ok(StaticSecret::from(bytes))
        };
        let signing_pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).map_err(|_| KeyError::NoRandomness)?;
        let signing =
            Ed25519KeyPair::from_pkcs8(signing_pkcs8.as_ref()).map_err(|_| KeyError::NoRandomness)?;
        Ok(Self {
            tls_pkcs8: tls.serialize_der(),
            tls,
            noise: secret()?,
            sealing: secret()?,
            signing: signing.into(),
            signing_pkcs8: signing_pkcs8.as_ref().to_vec(),
        })
    }

    pub(super) fn keep(&self) -> KeptKeys {
        let text = |bytes: &[u8]| data_encoding::BASE64.encode(bytes);
        KeptKeys {
            tls: text(&self.tls_pkcs8),
            noise: text(self.noise.as_bytes()),
            sealing: text(self.sealing.as_bytes()),
            signing: text(&self.signing_pkcs8),
        }
    }

    pub(super) fn take(kept: &KeptKeys) -> Result<Self, KeyError> {
        let bytes = |text: &str, name| {
            data_encoding::BASE64.decode(text.as_bytes()).map_err(|_| KeyError::Damaged(name))
        };
        let secret = |text: &str, name| {
            let bytes: [u8; 32] = bytes(text, name)?.try_into().map_err(|_| KeyError::Damaged(name))?;
            Ok::<_, KeyError>(StaticSecret::from(bytes))
        };
        let tls_pkcs8 = bytes(&kept.tls, "TLS")?;
        let signing_pkcs8 = bytes(&kept.signing, "signing")?;
        let tls = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(tls_pkcs8.as_slice()),
            &PKCS_ECDSA_P256_SHA256,
        );
        let signing = Ed25519KeyPair::from_pkcs8(&signing_pkcs8).map_err(|_| KeyError::Damaged("signing"))?;
        Ok(Self {
            tls: tls.map_err(|_| KeyError::Damaged("TLS"))?,
            noise: secret(&kept.noise, "Noise")?,
            sealing: secret(&kept.sealing, "sealing")?,
            signing: signing.into(),
            tls_pkcs8,
            signing_pkcs8,
        })
    }

    /// A DER PKCS#10 for the TLS key. Auth decides the name, so it carries none.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn certificate_request(&self) -> Result<Bytes, KeyError> {
        let request = CertificateParams::default().serialize_request(&self.tls).map_err(KeyError::Request)?;
        Ok(Bytes::copy_from_slice(request.der()))
    }

    /// The public halves of the other three keys, and the signing key's proof over `request`.
    pub fn node_keys(&self, request: &[u8]) -> NodeKeys {
        let message = [ENROLLMENT_CONTEXT, digest(&SHA256, request).as_ref()].concat();
        let copy = Bytes::copy_from_slice;
        NodeKeys {
            noise_key: copy(PublicKey::from(&self.noise).as_bytes()),
            sealing_key: copy(PublicKey::from(&self.sealing).as_bytes()),
            signing_key: copy(self.signing.public_key().as_ref()),
            signing_proof: copy(self.signing.sign(&message).as_ref()),
        }
    }

    /// The TLS key's proof of possession over a renewal's challenge and request.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn renewal_proof(&self, challenge: &[u8], request: &[u8]) -> Result<Bytes, KeyError> {
        let message = [RENEWAL_CONTEXT, challenge, digest(&SHA256, request).as_ref()].concat();
        self.tls.sign(&message).map(Bytes::from).map_err(KeyError::Request)
    }

    /// The signing key once more, for who wants one of its own.
    ///
    /// # Errors
    /// It is damaged, which would have shown before.
    pub fn signing_pair(&self) -> Result<Ed25519KeyPair, KeyError> {
        Ed25519KeyPair::from_pkcs8(&self.signing_pkcs8).map_err(|_| KeyError::Damaged("signing"))
    }

    /// Opens what was sealed to this device.
    pub fn sealing(&self) -> SealingKey {
        SealingKey::new(self.sealing.to_bytes())
    }

    /// The key behind sealed datagrams.
    pub(crate) fn noise_secret(&self) -> [u8; 32] {
        self.noise.to_bytes()
    }

    /// The key that signs reports, claims and attaches.
    pub fn signing(&self) -> std::sync::Arc<Ed25519KeyPair> {
        self.signing.clone()
    }

    pub fn tls_pkcs8(&self) -> &[u8] {
        &self.tls_pkcs8
    }

    /// The TLS key's uncompressed point.
    pub(super) fn tls_point(&self) -> &[u8] {
        self.tls.der_bytes()
    }

    pub(super) fn are_in(&self, ticket: &NodeTicket) -> bool {
        ticket.noise_key == *PublicKey::from(&self.noise).as_bytes()
            && ticket.sealing_key == *PublicKey::from(&self.sealing).as_bytes()
            && ticket.signing_key[..] == *self.signing.public_key().as_ref()
    }
}

impl std::fmt::Debug for DeviceKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceKeys(secret)")
    }
}
