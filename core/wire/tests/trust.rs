//! Whom a trust store believes, with certificates made here.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use bytes::Bytes;
use muster_proto::payload_type::{NODE_TICKET, TASK};
use muster_proto::trust::v1::{Envelope, NodeTicket, TrustBundle};
use muster_types::{Identity, NetworkId, NodeId, Role, Timestamp};
use muster_wire::envelope::{key_id, sign_p256};
use muster_wire::testing::TestNetwork;
use muster_wire::trust::TrustError;
use muster_wire::{EnvelopeError, TrustStore};
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PublicKeyData, SanType,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls_pki_types::CertificateDer;

const NETWORK: NetworkId = NetworkId([7; 16]);
const NOW: Timestamp = Timestamp::from_micros(1_795_000_000_000_000);

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

struct Signer {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn signer(&self, role: Role, usage: ExtendedKeyUsagePurpose) -> Signer {
        let identity = Identity { network: NETWORK, role, name: "tasks".to_owned() };
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into().unwrap())];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Signer { certificate: certificate.der().clone(), key }
    }

    fn store(&self) -> TrustStore {
        TrustStore::new(NETWORK, &[self.issuer.der().clone()]).unwrap()
    }
}

impl Signer {
    fn sign(&self, payload_type: &'static str, payload: impl Into<Bytes>) -> Envelope {
        let document = self.key.serialize_der();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &document, &SystemRandom::new())
            .unwrap();
        sign_p256(payload_type, payload.into(), &key, key_id(&self.key.subject_public_key_info())).unwrap()
    }

    fn bundle(&self) -> TrustBundle {
        let signers = vec![Bytes::copy_from_slice(&self.certificate)];
        TrustBundle { version: 1, signers, ..TrustBundle::default() }
    }
}

#[test]
fn a_signer_under_the_pinned_root_is_believed_once_its_bundle_is_loaded() {
    let authority = Authority::new();
    let signer = authority.signer(Role::Signer, ExtendedKeyUsagePurpose::CodeSigning);
    let sealed = signer.sign(TASK, "do it");
    let mut store = authority.store();
    assert!(matches!(store.open(&sealed, TASK), Err(EnvelopeError::UnknownSigner(_))));
    store.load(&signer.bundle(), NOW).unwrap();
    assert_eq!(store.open(&sealed, TASK).unwrap(), "do it");
}

#[test]
fn a_signer_under_another_root_is_refused_and_the_store_stays_as_it_was() {
    let authority = Authority::new();
    let good = authority.signer(Role::Signer, ExtendedKeyUsagePurpose::CodeSigning);
    let stranger = Authority::new().signer(Role::Signer, ExtendedKeyUsagePurpose::CodeSigning);
    let mut store = authority.store();
    store.load(&good.bundle(), NOW).unwrap();
    assert!(matches!(store.load(&stranger.bundle(), NOW), Err(TrustError::Chain { .. })));
    assert!(store.open(&good.sign(TASK, "do it"), TASK).is_ok());
}

#[test]
fn a_nodes_certificate_makes_no_signer_and_a_tls_certificate_signs_nothing() {
    let authority = Authority::new();
    let operator = authority.signer(Role::Operator, ExtendedKeyUsagePurpose::CodeSigning);
    let tls = authority.signer(Role::Signer, ExtendedKeyUsagePurpose::ClientAuth);
    let mut store = authority.store();
    assert!(matches!(store.load(&operator.bundle(), NOW), Err(TrustError::Stranger(_))));
    assert!(matches!(store.load(&tls.bundle(), NOW), Err(TrustError::Usage(_))));
}

#[test]
fn a_ticket_is_good_for_its_time_only() {
    let authority = Authority::new();
    let signer = authority.signer(Role::Signer, ExtendedKeyUsagePurpose::CodeSigning);
    let mut store = authority.store();
    store.load(&signer.bundle(), NOW).unwrap();
    let day = std::time::Duration::from_secs(86_400);
    let key = Bytes::from_static(&[1; 32]);
    let ticket = NodeTicket {
        node_id: Bytes::from_static(&[5; 20]),
        noise_key: key.clone(),
        sealing_key: key.clone(),
        signing_key: key,
        not_before_time: Some(muster_wire::time::to_wire(NOW)),
        not_after_time: Some(muster_wire::time::to_wire(NOW + day)),
        ..NodeTicket::default()
    };
    let sealed = signer.sign(NODE_TICKET, ticket.encode_to_vec());
    assert_eq!(muster_wire::NodeTicket::open(&sealed, &store, NOW).unwrap().node, NodeId([5; 20]));
    assert!(muster_wire::NodeTicket::open(&sealed, &store, NOW + day * 2).is_err());
    assert!(muster_wire::NodeTicket::open(&sealed, &store, NOW - day).is_err());
}

#[test]
fn what_a_withdrawn_key_signed_counts_nowhere_and_an_older_bundle_does_not_bring_it_back() {
    let mut network = TestNetwork::new();
    let (mut store, before) = (network.trust(), network.bundle());
    let leaked = network.sign(TASK, Bytes::from_static(b"do it"));
    assert!(store.open(&leaked, TASK).is_ok());
    let after = network.withdraw_signer();
    store.load(&after, NOW).unwrap();
    assert!(matches!(store.open(&leaked, TASK), Err(EnvelopeError::Withdrawn(_))));
    assert!(store.open(&network.sign(TASK, Bytes::from_static(b"do it")), TASK).is_ok());
    // Whoever passes bundles on may keep the withdrawal back, or name the old key beside it: it stays withdrawn.
    store.load(&before, NOW).unwrap();
    assert!(matches!(store.open(&leaked, TASK), Err(EnvelopeError::Withdrawn(_))));
    store
        .load(&TrustBundle { signers: [&before.signers[..], &after.signers].concat(), ..after }, NOW)
        .unwrap();
    assert!(matches!(store.open(&leaked, TASK), Err(EnvelopeError::Withdrawn(_))));
    let mut heir = TrustStore::new(network.id, &[network.root()]).unwrap();
    heir.load(&before, NOW).unwrap();
    assert!(heir.open(&leaked, TASK).is_ok());
    heir.inherit(&store);
    assert!(matches!(heir.open(&leaked, TASK), Err(EnvelopeError::Withdrawn(_))));
}

#[test]
fn nobody_but_the_authority_withdraws_a_key_and_a_withdrawal_is_no_signer() {
    let (mut network, mut stranger) = (TestNetwork::new(), TestNetwork::new());
    let (mut store, ours) = (network.trust(), network.bundle());
    let theirs = stranger.withdraw_signer();
    store.load(&TrustBundle { withdrawals: theirs.withdrawals, ..ours }, NOW).unwrap();
    assert_eq!(store.withdrawals().count(), 0);
    let after = network.withdraw_signer();
    let posed = TrustBundle { signers: after.withdrawals.clone(), ..after };
    assert!(matches!(store.load(&posed, NOW), Err(TrustError::Stranger(_))));
}
