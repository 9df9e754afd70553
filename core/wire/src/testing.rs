//! A whole network in memory, for tests: root, issuing authority, signer, and nodes with certificates and tickets.
//! Everything is drawn anew; nothing is stored.

#![allow(clippy::expect_used, clippy::missing_panics_doc, reason = "in a test a panic is the report")]

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use muster_overlay::standing::Uptime;
use muster_proto::payload_type::{NODE_TICKET, REVOCATION_LIST, UPTIME_TICKET};
use muster_proto::trust::v1::{self, Envelope, TrustBundle};
use muster_types::{Identity, NetworkId, NodeId, Role, Timestamp, limits};
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PublicKeyData, SanType, SerialNumber,
};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use rustls_pki_types::CertificateDer;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::datagram;
use crate::envelope::{key_id, sign_p256};
use crate::hello::{Hello, Host};
use crate::revocation::{self, Reason, Revocation};
use crate::signer::Signer;
use crate::ticket::NodeTicket;
use crate::time;
use crate::trust::{self, TrustStore};

pub mod operators;

/// The date on which all of it is valid: tests pass it wherever a date is asked for.
pub const NOW: Timestamp = Timestamp::from_micros(1_795_000_000_000_000);

/// One deployment with its own root.
pub struct TestNetwork {
    pub id: NetworkId,
    root: CertifiedIssuer<'static, KeyPair>,
    authority: CertifiedIssuer<'static, KeyPair>,
    signer: KeyPair,
    signer_certificate: CertificateDer<'static>,
    serials: AtomicU8,
}

/// One enrolled node: its certificate under the network's root, and the keys in its ticket.
pub struct TestNode {
    pub id: NodeId,
    pub serial: Bytes,
    /// The node's certificate, then the issuing authority's.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS #8
    pub tls_key: Vec<u8>,
    /// PKCS #8
    pub signing_key: Vec<u8>,
    /// X25519
    pub noise_secret: [u8; 32],
    pub ticket: Envelope,
    pub network: NetworkId,
}

impl Default for TestNetwork {
    fn default() -> Self {
        Self::new()
    }
}

impl TestNetwork {
    pub fn new() -> Self {
        let root = CertifiedIssuer::self_signed(authority("Muster root"), key()).expect("a root");
        let authority = CertifiedIssuer::signed_by(authority("Muster issuing"), key(), &root).expect("a CA");
        let hash = digest(&SHA256, &root.key().subject_public_key_info());
        let id = NetworkId::try_from(&hash.as_ref()[..NetworkId::LEN]).expect("16 bytes");
        let signer = key();
        let identity = Identity { network: id, role: Role::Signer, name: "tickets".to_owned() };
        let params = leaf(&identity, &[ExtendedKeyUsagePurpose::CodeSigning]);
        let signer_certificate = params.signed_by(&signer, &authority).expect("a certificate").der().clone();
        Self { id, root, authority, signer, signer_certificate, serials: AtomicU8::new(1) }
    }

    pub fn root(&self) -> CertificateDer<'static> {
        self.root.der().clone()
    }

    /// Believes this network's root and its signer.
    pub fn trust(&self) -> TrustStore {
        let mut store = TrustStore::new(self.id, &[self.root()]).expect("a readable root");
        store.load(&self.bundle(), NOW).expect("a bundle under this root");
        store
    }

    pub fn bundle(&self) -> TrustBundle {
        TrustBundle {
            version: 1,
            roots: vec![Bytes::copy_from_slice(self.root.der())],
            authorities: vec![Bytes::copy_from_slice(self.authority.der())],
            signers: vec![Bytes::copy_from_slice(&self.signer_certificate)],
            withdrawals: Vec::new(),
        }
    }

    /// The same network after its signer's key was withdrawn and replaced: what the old one signed is none of it.
    pub fn withdraw_signer(&mut self) -> TrustBundle {
        let old = key_id(&self.signer.subject_public_key_info());
        let signer = key();
        let certified = |name: String| {
            let identity = Identity { network: self.id, role: Role::Signer, name };
            let params = leaf(&identity, &[ExtendedKeyUsagePurpose::CodeSigning]);
            params.signed_by(&signer, &self.authority).expect("a certificate").der().clone()
        };
        let withdrawal = certified(trust::withdrawal_name(&old));
        self.signer_certificate = certified("tickets".to_owned());
        self.signer = signer;
        let withdrawals = vec![Bytes::copy_from_slice(&withdrawal)];
        TrustBundle { version: 2, withdrawals, ..self.bundle() }
    }

    /// Enrolls a node under an id of the test's choice.
    pub fn node(&self, id: NodeId) -> TestNode {
        let key = key();
        let serial = Bytes::from(vec![self.serials.fetch_add(1, Ordering::Relaxed), 0x17]);
        let usages = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let mut params = leaf(&Identity::node(self.id, id), &usages);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let certificate = params.signed_by(&key, &self.authority).expect("a certificate");
        let signing_key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("randomness");
        let signing_key = signing_key.as_ref().to_vec();
        let public = Ed25519KeyPair::from_pkcs8(&signing_key).expect("its own key");
        let noise_secret = noise_secret();
        let ticket = self.ticket(id, &serial, public.public_key().as_ref(), &noise_secret);
        let chain = vec![certificate.der().clone(), self.authority.der().clone()];
        let (tls_key, network) = (key.serialize_der(), self.id);
        TestNode { id, serial, chain, tls_key, signing_key, noise_secret, ticket, network }
    }

    fn ticket(&self, id: NodeId, serial: &Bytes, signing_key: &[u8], noise_secret: &[u8; 32]) -> Envelope {
        let noise_key = PublicKey::from(&StaticSecret::from(*noise_secret));
        let ticket = v1::NodeTicket {
            node_id: Bytes::copy_from_slice(id.as_bytes()),
            certificate_serial: serial.clone(),
            noise_key: Bytes::copy_from_slice(noise_key.as_bytes()),
            sealing_key: Bytes::from_static(&[2; 32]),
            signing_key: Bytes::copy_from_slice(signing_key),
            not_before_time: Some(time::to_wire(NOW - Duration::from_secs(60))),
            not_after_time: Some(time::to_wire(NOW + limits::CERTIFICATE_LIFETIME)),
            ..v1::NodeTicket::default()
        };
        self.sign(NODE_TICKET, ticket.encode_to_vec().into())
    }

    /// Topology's word on a node's uptime, good for a day.
    pub fn uptime(&self, node: NodeId, uptime: Uptime) -> Envelope {
        let ticket = v1::UptimeTicket {
            node_id: Bytes::copy_from_slice(node.as_bytes()),
            uptime_basis_points: uptime.0.into(),
            issue_time: Some(time::to_wire(NOW)),
            expire_time: Some(time::to_wire(NOW + Duration::from_secs(86_400))),
        };
        self.sign(UPTIME_TICKET, ticket.encode_to_vec().into())
    }

    /// An increment of the list of revocations, as auth makes it.
    pub fn revocations(&self, base: u64, number: u64, revoked: &[Revocation]) -> Envelope {
        self.sign(REVOCATION_LIST, revocation::encode(base, number, NOW, revoked))
    }

    /// Signs as the master does.
    pub fn sign(&self, payload_type: &'static str, payload: Bytes) -> Envelope {
        let document = self.signer.serialize_der();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &document, &SystemRandom::new());
        let id = key_id(&self.signer.subject_public_key_info());
        sign_p256(payload_type, payload, &key.expect("its own key"), id).expect("randomness")
    }
}

impl TestNode {
    /// The node's hand in a run of its agent with this boot nonce.
    pub fn signer(&self, boot_nonce: u64) -> Signer {
        let key = Ed25519KeyPair::from_pkcs8(&self.signing_key).expect("its own key");
        Signer::new(self.network, self.id, key, self.ticket.clone(), boot_nonce)
    }

    /// The end of this node's admission, as number `number` of the list.
    pub fn revocation(&self, number: u64, reason: Reason) -> Revocation {
        Revocation {
            number,
            serial: self.serial.clone(),
            key: None,
            node: Some(self.id),
            time: NOW,
            expires: NOW + limits::CERTIFICATE_LIFETIME,
            reason,
        }
    }

    /// The node's end of sealed datagrams.
    pub fn own(&self) -> datagram::Own {
        datagram::Own::new(self.network, self.id, self.noise_secret, &self.ticket)
    }

    /// What others know of this node after its Hello.
    pub fn hello(&self, boot_nonce: u64, trust: &TrustStore) -> Hello {
        Hello {
            protocol: muster_types::version::PROTOCOL,
            software: "0.1.0".parse().expect("a version"),
            capabilities: Vec::new(),
            ticket: NodeTicket::open(&self.ticket, trust, NOW).expect("this network's ticket"),
            sealed_ticket: self.ticket.clone(),
            boot_nonce,
            host: Host::default(),
            known_revocation: 0,
        }
    }
}

fn noise_secret() -> [u8; 32] {
    let mut secret = [0; 32];
    SystemRandom::new().fill(&mut secret).expect("randomness");
    secret
}

fn key() -> KeyPair {
    KeyPair::generate().expect("randomness")
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn leaf(identity: &Identity, usages: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::from_iter(identity.server_name())).expect("DNS names");
    let uri = identity.to_string().try_into().expect("an ASCII URI");
    params.subject_alt_names.push(SanType::URI(uri));
    params.extended_key_usages = usages.to_vec();
    params
}
