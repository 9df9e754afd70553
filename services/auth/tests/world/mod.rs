//! An auth service on loopback over real TLS, with a date that a test moves, and devices to enroll at it.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use muster_auth::bootstrap::{self, ServiceTls};
use muster_auth::crl::{self, Shelf};
use muster_auth::domain::label::Labels;
use muster_auth::domain::revocation::{Reason, Subject};
use muster_auth::service::{Revocation, RevocationRequest};
use muster_auth::{Auth, Clock, Config};
use muster_kit::connect::{AUTH, Master, MasterChannel};
use muster_kit::listen::Listener;
use muster_kit::shutdown::Shutdown;
use muster_kit::testing::postgres::Postgres;
use muster_kit::tls::{CallerCertificate, ClientTls, Material};
use muster_proto::auth::v1::enrollment_service_client::EnrollmentServiceClient;
use muster_proto::auth::v1::link_service_client::LinkServiceClient;
use muster_proto::auth::v1::{
    CreateRenewalChallengeRequest, Credentials, EnrollRequest, NodeKeys, RenewRequest,
};
use muster_types::{EnrollmentLink, Role, Timestamp};
use rcgen::{CertificateParams, KeyPair};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use tempfile::TempDir;
use tonic::Status;

pub mod token;

pub const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Where a world keeps its truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

pub struct World {
    pub auth: Arc<Auth>,
    pub config: Config,
    pub address: String,
    pub tls: ServiceTls,
    ahead: Arc<AtomicI64>,
    shutdown: Shutdown,
    // Dropped last: what the service stands on.
    _postgres: Option<Postgres>,
    pub folder: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

impl World {
    pub async fn start() -> Self {
        Self::start_on(Backend::Sqlite).await
    }

    pub async fn start_on(backend: Backend) -> Self {
        Self::start_with(backend, |_| {}).await
    }

    pub async fn start_with(backend: Backend, configure: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let postgres = (backend == Backend::Postgres).then(|| Postgres::start().unwrap());
        let mut listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut config = Config::embedded(folder.path(), vec![address.clone()]);
        config.database_url = postgres.as_ref().map(Postgres::url);
        configure(&mut config);
        let ahead = Arc::new(AtomicI64::new(0));
        let auth = muster_auth::init_at(&config, clock(&ahead)).await.unwrap();
        let shutdown = Shutdown::new();
        let tls =
            bootstrap::service_tls(&auth, "auth", CallerCertificate::Optional, &shutdown).await.unwrap();
        let incoming = listener.service(AUTH, tls.server.clone());
        let shelf = Shelf::new();
        let lists = shelf.clone();
        listener.serve_pages(move |path| lists.list(path).map(|list| (crl::CONTENT_TYPE, list)));
        shutdown.spawn(listener.run(shutdown.clone()));
        let (served, settings, ended) = (auth.clone(), config.clone(), shutdown.clone());
        shutdown.spawn(async move { muster_auth::run(served, &settings, incoming, shelf, ended).await });
        Self { auth, config, address, tls, ahead, shutdown, _postgres: postgres, folder }
    }

    /// Moves auth's date; TLS goes by the real one.
    pub fn pass(&self, span: Duration) {
        self.ahead.fetch_add(i64::try_from(span.as_micros()).unwrap(), Ordering::SeqCst);
    }

    pub fn pass_back(&self, span: Duration) {
        self.ahead.fetch_sub(i64::try_from(span.as_micros()).unwrap(), Ordering::SeqCst);
    }

    pub async fn node_link(&self) -> EnrollmentLink {
        bootstrap::node_link(&self.auth, Labels::from([("site".into(), "lab".into())])).await.unwrap()
    }

    /// The channel of whoever has no certificate.
    pub fn anonymous(&self) -> EnrollmentServiceClient<MasterChannel> {
        let tls = ClientTls::trusting(self.auth.authority().root_key()).unwrap();
        EnrollmentServiceClient::new(Master::new([self.address.clone()], tls).service(AUTH))
    }

    pub fn channel(&self, material: Material) -> MasterChannel {
        Master::new([self.address.clone()], ClientTls::new(material).unwrap()).service(AUTH)
    }

    pub async fn channel_of(&self, role: Role, name: &str) -> MasterChannel {
        self.channel(self.auth.issue(role, name).await.unwrap().material())
    }

    pub async fn operator(&self) -> LinkServiceClient<MasterChannel> {
        LinkServiceClient::new(self.channel_of(Role::Operator, "alice").await)
    }

    pub async fn admin(&self) -> LinkServiceClient<MasterChannel> {
        LinkServiceClient::new(self.channel_of(Role::Admin, "eve").await)
    }

    pub async fn enroll(&self, link: &EnrollmentLink, device: &Device) -> Result<Credentials, Status> {
        let answer = self.anonymous().enroll(device.enroll_request(&link.token.reveal())).await?;
        Ok(answer.into_inner().credentials.unwrap())
    }

    pub async fn revoke(&self, name: &str, reason: Reason) -> Revocation {
        let subject = Subject::Name(name.to_owned());
        let request = RevocationRequest { subject, reason, comment: "stolen".into(), validate_only: false };
        self.auth.revoke("operators/alice", &request).await.unwrap()
    }

    /// As a device does that pins this root.
    pub async fn renew_pinning(
        &self,
        root: &[u8],
        device: &Device,
        certificate: &[u8],
    ) -> Result<Credentials, Status> {
        let root = rustls_pki_types::CertificateDer::from(root.to_vec());
        let tls = ClientTls::trusting(&muster_kit::tls::root_key(&root).unwrap()).unwrap();
        let client = EnrollmentServiceClient::new(Master::new([self.address.clone()], tls).service(AUTH));
        Self::renew_by(client, device, certificate).await
    }

    pub async fn renew(&self, device: &Device, certificate: &[u8]) -> Result<Credentials, Status> {
        Self::renew_by(self.anonymous(), device, certificate).await
    }

    async fn renew_by(
        mut client: EnrollmentServiceClient<MasterChannel>,
        device: &Device,
        certificate: &[u8],
    ) -> Result<Credentials, Status> {
        let challenge = client.create_renewal_challenge(CreateRenewalChallengeRequest {}).await?;
        let request = device.renew_request(certificate, challenge.into_inner().challenge, &device.key);
        Ok(client.renew(request).await?.into_inner().credentials.unwrap())
    }
}

fn clock(ahead: &Arc<AtomicI64>) -> Clock {
    let ahead = ahead.clone();
    Arc::new(move || {
        let real = muster_kit::clock::wall().as_micros();
        Timestamp::from_micros(real + ahead.load(Ordering::SeqCst))
    })
}

/// A device before its enrollment: keys and nothing else.
pub struct Device {
    pub key: KeyPair,
    pub signing: Ed25519KeyPair,
}

impl Device {
    pub fn new() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let signing = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        Self { key: KeyPair::generate().unwrap(), signing }
    }

    pub fn certificate_request(&self) -> Bytes {
        let request = CertificateParams::default().serialize_request(&self.key).unwrap();
        Bytes::copy_from_slice(request.der())
    }

    pub fn node_keys(&self, request: &[u8]) -> NodeKeys {
        let message = [b"muster enrollment v1".as_slice(), digest(&SHA256, request).as_ref()].concat();
        NodeKeys {
            noise_key: Bytes::from_static(&[1; 32]),
            sealing_key: Bytes::from_static(&[2; 32]),
            signing_key: Bytes::copy_from_slice(self.signing.public_key().as_ref()),
            signing_proof: Bytes::copy_from_slice(self.signing.sign(&message).as_ref()),
        }
    }

    pub fn enroll_request(&self, token: &str) -> EnrollRequest {
        let certificate_request = self.certificate_request();
        EnrollRequest {
            token: token.to_owned(),
            node_keys: Some(self.node_keys(&certificate_request)),
            certificate_request,
            host_name: "host.example.org".to_owned(),
            software_version: "1.2.3".to_owned(),
            ..EnrollRequest::default()
        }
    }

    /// A renewal of `certificate` for this device's key, proven by `prover`.
    pub fn renew_request(&self, certificate: &[u8], challenge: Bytes, prover: &KeyPair) -> RenewRequest {
        let certificate_request = self.certificate_request();
        let hash = digest(&SHA256, &certificate_request);
        let message = [b"muster renewal v1".as_slice(), &challenge, hash.as_ref()].concat();
        RenewRequest {
            certificate: Bytes::copy_from_slice(certificate),
            challenge,
            proof: sign(prover, &message),
            certificate_request,
            node_keys: None,
        }
    }

    pub fn material(&self, credentials: &Credentials) -> Material {
        use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
        let der = |bytes: &Bytes| CertificateDer::from(bytes.to_vec());
        Material {
            chain: credentials.certificate_chain.iter().map(der).collect(),
            key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der())),
            roots: credentials.trust_bundle.as_ref().unwrap().roots.iter().map(der).collect(),
        }
    }
}

pub fn sign(key: &KeyPair, message: &[u8]) -> Bytes {
    let random = SystemRandom::new();
    let key =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key.serialize_der(), &random).unwrap();
    Bytes::copy_from_slice(key.sign(&random, message).unwrap().as_ref())
}

/// The reason in a refusal's ErrorInfo.
pub fn reason(refused: &Status) -> String {
    muster_kit::status::reason(refused).unwrap_or_else(|| format!("no reason: {refused:?}"))
}
