//! An operators' root of a test's own, and one operator under it.

use bytes::Bytes;
use muster_proto::payload_type::OPERATOR_POLICY;
use muster_proto::trust::v1::{Envelope, OperatorPolicy};
use muster_types::NetworkId;
use prost::Message;
use rcgen::{CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, KeyPair, PublicKeyData};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};

use super::{NOW, authority, key};
use crate::envelope::{key_id, sign_p256};
use crate::time;

pub struct TestOperators {
    root: CertifiedIssuer<'static, KeyPair>,
    operator: KeyPair,
    /// DER, the operator's.
    pub certificate: Bytes,
}

impl Default for TestOperators {
    fn default() -> Self {
        Self::new()
    }
}

impl TestOperators {
    pub fn new() -> Self {
        let root = CertifiedIssuer::self_signed(authority("operators"), key()).expect("a root");
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "ada");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let operator = key();
        let certificate = params.signed_by(&operator, &root).expect("a certificate");
        let certificate = Bytes::copy_from_slice(certificate.der());
        Self { root, operator, certificate }
    }

    /// What the root says, before it signs it.
    pub fn says(&self, network: NetworkId, version: u64, required: bool) -> OperatorPolicy {
        OperatorPolicy {
            network_id: Bytes::copy_from_slice(network.as_bytes()),
            version,
            root: Bytes::copy_from_slice(self.root.der()),
            signature_required: required,
            withdrawn_key_ids: vec![Bytes::from_static(&[9; 8])],
            issue_time: Some(time::to_wire(NOW)),
        }
    }

    /// Signed by the root.
    pub fn policy(&self, policy: &OperatorPolicy) -> Envelope {
        self.seal_policy(policy.encode_to_vec().into())
    }

    /// The same of any bytes.
    pub fn seal_policy(&self, payload: Bytes) -> Envelope {
        signed(self.root.key(), OPERATOR_POLICY, payload)
    }

    pub fn operator_key_id(&self) -> Bytes {
        key_id(&self.operator.subject_public_key_info())
    }

    /// Adds the operator's signature to those that an envelope has.
    pub fn countersign(&self, payload_type: &'static str, mut envelope: Envelope) -> Envelope {
        let mut own = signed(&self.operator, payload_type, envelope.payload.clone());
        for signature in &mut own.signatures {
            signature.certificates = vec![self.certificate.clone()];
        }
        envelope.signatures.extend(own.signatures);
        envelope
    }
}

fn signed(key: &KeyPair, payload_type: &'static str, payload: Bytes) -> Envelope {
    let document = key.serialize_der();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &document, &SystemRandom::new());
    let id = key_id(&key.subject_public_key_info());
    sign_p256(payload_type, payload, &pair.expect("its own key"), id).expect("randomness")
}
