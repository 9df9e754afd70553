//! Auth's signing hand, without the rest of auth.

use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use muster_kit::testing::pki::Pki;
use muster_proto::trust::v1::{Envelope, TrustBundle};
use muster_topology::authority::{Authority, AuthorityError, Contact, Increments, Statement};
use muster_topology::domain::admission::{Admission, Admissions};
use muster_topology::domain::deed::Deed;
use muster_topology::domain::opaque::Opaque;
use muster_topology::grpc::authority::payload;
use muster_topology::store::WaitingDeed;
use muster_types::{NetworkId, NodeId, Role};
use muster_wire::TrustStore;
use muster_wire::envelope::{key_id, sign_p256};
use muster_wire::revocation::{self, Reason, Revocation};
use prost::Message;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

pub(crate) struct TestAuthority {
    network: NetworkId,
    key: EcdsaKeyPair,
    key_id: Bytes,
    bundle: TrustBundle,
    root: rustls_pki_types::CertificateDer<'static>,
    revocations: watch::Sender<Vec<Envelope>>,
    /// Its feed, from the beginning.
    pub(crate) admitted: Mutex<Vec<Admission>>,
    /// Its audit log.
    pub(crate) recorded: watch::Sender<Vec<Deed>>,
    /// What it had lost and nodes brought.
    pub(crate) adopted: watch::Sender<Vec<Envelope>>,
    /// It takes no deeds.
    pub(crate) deaf: std::sync::atomic::AtomicBool,
    /// What it was told of last.
    pub(crate) published: watch::Sender<Vec<Contact>>,
}

impl TestAuthority {
    pub(crate) fn new(pki: &Pki) -> Self {
        let material = pki.leaf(&pki.identity(Role::Signer, "signer"));
        let random = SystemRandom::new();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, material.key.secret_der(), &random);
        let (_, certificate) = X509Certificate::from_der(&material.chain[0]).unwrap();
        let bundle = TrustBundle {
            version: 1,
            roots: vec![pki.root_der().to_vec().into()],
            authorities: vec![pki.issuing_der().to_vec().into()],
            signers: vec![material.chain[0].to_vec().into()],
            withdrawals: Vec::new(),
        };
        let key_id = key_id(certificate.public_key().raw);
        let authority = Self {
            network: pki.network,
            key: key.unwrap(),
            key_id,
            bundle,
            root: pki.root_der(),
            revocations: watch::Sender::new(Vec::new()),
            admitted: Mutex::default(),
            recorded: watch::Sender::default(),
            adopted: watch::Sender::default(),
            deaf: std::sync::atomic::AtomicBool::default(),
            published: watch::Sender::default(),
        };
        authority.push(0, 0, &[]);
        authority
    }

    fn push(&self, base: u64, number: u64, revoked: &[Revocation]) {
        let list = revocation::encode(base, number, muster_kit::clock::wall(), revoked);
        let sealed = self.seal(muster_proto::payload_type::REVOCATION_LIST, list);
        self.revocations.send_modify(|lists| lists.push(sealed));
    }

    /// The next in the list.
    pub(crate) fn revoke(&self, node: NodeId, reason: Reason) {
        self.revoke_serial(Bytes::copy_from_slice(&node.as_bytes()[..8]), Some(node), reason);
    }

    pub(crate) fn revoke_serial(&self, serial: Bytes, node: Option<NodeId>, reason: Reason) {
        let before = self.revocations.borrow().len() as u64 - 1;
        let now = muster_kit::clock::wall();
        let revocation = Revocation {
            number: before + 1,
            serial,
            key: None,
            node,
            time: now,
            expires: now + muster_types::limits::CERTIFICATE_LIFETIME,
            reason,
        };
        self.push(before, before + 1, &[revocation]);
    }

    pub(crate) fn seal(&self, payload_type: &'static str, payload: Bytes) -> Envelope {
        sign_p256(payload_type, payload, &self.key, self.key_id.clone()).unwrap()
    }

    /// What a node believes.
    pub(crate) fn trust(&self) -> TrustStore {
        let mut store = TrustStore::new(self.network, std::slice::from_ref(&self.root)).unwrap();
        store.load(&self.bundle, muster_kit::clock::wall()).unwrap();
        store
    }
}

#[async_trait]
impl Authority for TestAuthority {
    async fn sign(&self, statements: &[Statement]) -> Result<Vec<Opaque>, AuthorityError> {
        statements
            .iter()
            .map(|statement| {
                use muster_proto::payload_type as types;
                let payload_type = match statement {
                    Statement::Order { .. } | Statement::Countersigned { .. } => types::TASK,
                    Statement::Cancellation { .. } => types::TASK_CANCELLATION,
                    Statement::Uptime { .. } => types::UPTIME_TICKET,
                    Statement::Receipt { .. } => types::PRESENCE_RECEIPT,
                };
                let payload = payload(self.network, statement)?.payload;
                Ok(Opaque(self.seal(payload_type, payload).encode_to_vec()))
            })
            .collect()
    }

    async fn admissions(&self, after: u64) -> Result<Admissions, AuthorityError> {
        let admitted = self.admitted.lock().unwrap();
        let read = usize::try_from(after).unwrap();
        Ok(Admissions { nodes: admitted[read..].to_vec(), last: admitted.len() as u64 })
    }

    async fn publish(&self, contacts: Vec<Contact>) -> Result<(), AuthorityError> {
        self.published.send_replace(contacts);
        Ok(())
    }

    async fn record(&self, deeds: Vec<WaitingDeed>) -> Result<(), AuthorityError> {
        if self.deaf.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(AuthorityError("deaf".to_owned()));
        }
        self.recorded.send_modify(|recorded| recorded.extend(deeds.into_iter().map(|it| it.deed)));
        Ok(())
    }

    async fn trust_bundle(&self) -> Result<TrustBundle, AuthorityError> {
        Ok(self.bundle.clone())
    }

    async fn adopt(&self, list: Envelope) -> Result<(), AuthorityError> {
        self.adopted.send_modify(|adopted| adopted.push(list));
        Ok(())
    }

    async fn revocations(&self, _: u64) -> Result<Increments, AuthorityError> {
        let state = (self.revocations.subscribe(), 0_usize);
        let next = |(mut lists, sent): (watch::Receiver<Vec<Envelope>>, usize)| async move {
            let list = lists.wait_for(|lists| lists.len() > sent).await.ok()?.get(sent)?.clone();
            Some((Ok(list), (lists, sent + 1)))
        };
        Ok(futures::stream::unfold(state, next).boxed())
    }
}
