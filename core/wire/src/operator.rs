//! The operators' own authority: a root made offline, pinned when a device enrolls, changed only by its own signature.
//! Auth cannot issue under it, so a network that requires it does not do what a compromised master says alone.

use std::time::Duration;

use bytes::Bytes;
use muster_proto::payload_type::OPERATOR_POLICY;
use muster_proto::trust::v1::{self, Envelope};
use muster_types::{NetworkId, Timestamp};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::envelope::{self, EnvelopeError};
use crate::error::WireError;
use crate::field;
use crate::trust::CODE_SIGNING;

/// Certificates that come with a signature: the operator's, and few above it.
const CHAIN: usize = 4;

/// Operators' keys that a policy withdraws.
const WITHDRAWN: usize = 1_000;

/// Why an operator's word does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error("the operators' policy: {0}")]
    Malformed(#[from] WireError),
    #[error("no operator signed it: there is no signature with a certificate")]
    Unsigned,
    #[error("the certificate of the operator's signature cannot be read: {0}")]
    Certificate(String),
    #[error("the operator {name} is not one of the pinned root's: {reason}")]
    Chain { name: String, reason: String },
    #[error("the key of the operator {0} is withdrawn")]
    Withdrawn(String),
}

/// What the operators' root says, as a node has pinned it.
#[derive(Debug, Clone)]
pub struct OperatorPolicy {
    version: u64,
    root: CertificateDer<'static>,
    /// The root's public key.
    point: Vec<u8>,
    root_key_id: Bytes,
    required: bool,
    withdrawn: Vec<Bytes>,
}

impl OperatorPolicy {
    /// Reads the first policy, that of a device's enrollment: it must be signed by the root that it names.
    ///
    /// # Errors
    /// It is malformed, another network's, or not signed by its own root.
    pub fn pin(sealed: &Envelope, network: NetworkId) -> Result<Self, OperatorError> {
        let policy = Self::parse(&sealed.payload, network)?;
        policy.open_by_root(sealed)?;
        Ok(policy)
    }

    /// A policy that this program once checked and kept.
    ///
    /// # Errors
    /// It is malformed, or another network's.
    pub fn restored(sealed: &Envelope, network: NetworkId) -> Result<Self, OperatorError> {
        Self::parse(&sealed.payload, network)
    }

    /// Reads a later policy, which only the pinned root can sign. `None`: it is not newer.
    ///
    /// # Errors
    /// It is malformed, another network's, or not signed by the pinned root.
    pub fn successor(&self, sealed: &Envelope, network: NetworkId) -> Result<Option<Self>, OperatorError> {
        let next = Self::parse(&sealed.payload, network)?;
        if next.version <= self.version {
            return Ok(None);
        }
        self.open_by_root(sealed)?;
        Ok(Some(next))
    }

    fn open_by_root(&self, sealed: &Envelope) -> Result<Bytes, OperatorError> {
        Ok(envelope::open(sealed, OPERATOR_POLICY, |id| {
            (id == self.root_key_id)
                .then(|| UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.point.clone()))
        })?)
    }

    fn parse(payload: &[u8], network: NetworkId) -> Result<Self, OperatorError> {
        let wire: v1::OperatorPolicy = field::parse("operator policy", payload)?;
        field::own_network("operator_policy.network_id", &wire.network_id, network)?;
        field::at_most("operator_policy.withdrawn_key_ids", &wire.withdrawn_key_ids, WITHDRAWN)?;
        let root = CertificateDer::from(wire.root.to_vec());
        let (_, parsed) = X509Certificate::from_der(&wire.root)
            .map_err(|error| OperatorError::Certificate(error.to_string()))?;
        let spki = parsed.public_key();
        Ok(Self {
            version: wire.version,
            point: spki.subject_public_key.data.to_vec(),
            root_key_id: envelope::key_id(spki.raw),
            root,
            required: wire.signature_required,
            withdrawn: wire.withdrawn_key_ids,
        })
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether tasks that only the master signed are refused.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// The name of the operator who signed this as well, at `now`.
    ///
    /// # Errors
    /// Nobody of the pinned root's did.
    pub fn operator_of(
        &self,
        sealed: &Envelope,
        expected: &'static str,
        now: Timestamp,
    ) -> Result<String, OperatorError> {
        let signed = sealed.signatures.iter().find(|signature| !signature.certificates.is_empty());
        let signature = signed.ok_or(OperatorError::Unsigned)?;
        field::at_most("signature.certificates", &signature.certificates, CHAIN)?;
        let chain: Vec<_> =
            signature.certificates.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let (name, key_id, point) = self.admit(&chain, now)?;
        if self.withdrawn.contains(&key_id) {
            return Err(OperatorError::Withdrawn(name));
        }
        envelope::open(sealed, expected, |id| {
            (id == key_id).then(|| UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point.clone()))
        })?;
        Ok(name)
    }

    fn admit(
        &self,
        chain: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<(String, Bytes, Vec<u8>), OperatorError> {
        let (leaf, above) = chain.split_first().ok_or(OperatorError::Unsigned)?;
        let (_, parsed) =
            X509Certificate::from_der(leaf).map_err(|error| OperatorError::Certificate(error.to_string()))?;
        let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let name = name.unwrap_or_default().to_owned();
        let refused =
            |reason: webpki::Error| OperatorError::Chain { name: name.clone(), reason: reason.to_string() };
        if !crate::trust::signs_code(&parsed) {
            let reason = "its certificate is not for signing".to_owned();
            return Err(OperatorError::Chain { name, reason });
        }
        let anchor = anchor_from_trusted_cert(&self.root).map_err(refused)?;
        let seconds = u64::try_from(now.as_micros() / 1_000_000).unwrap_or(0);
        EndEntityCert::try_from(leaf)
            .and_then(|certificate| {
                certificate
                    .verify_for_usage(
                        &[webpki::ring::ECDSA_P256_SHA256],
                        &[anchor],
                        above,
                        UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
                        KeyUsage::required_if_present(CODE_SIGNING),
                        None,
                        None,
                    )
                    .map(drop)
            })
            .map_err(refused)?;
        let spki = parsed.public_key();
        Ok((name, envelope::key_id(spki.raw), spki.subject_public_key.data.to_vec()))
    }
}
