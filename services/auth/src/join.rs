//! The other side of enrollment, for whoever is no device: services in processes of their own, operators, CMDBs.
//!
//! link -> key, kept before anything is sent -> EnrollmentService -> chain, kept -> TLS, renewed in time.
//! A lost answer or a crash in between is made good by the same key.

use std::path::{Path, PathBuf};
use std::{fs, io};

use bytes::Bytes;
use muster_kit::connect::{AUTH, Master, MasterChannel};
use muster_kit::files::{FileError, create_private_dir, write_private};
use muster_kit::shutdown::Shutdown;
use muster_kit::tls::{CallerCertificate, ClientTls, Material, ServerTls, TlsError, root_key};
use muster_proto::auth::v1::enrollment_service_client::EnrollmentServiceClient;
use muster_proto::auth::v1::{CreateRenewalChallengeRequest, Credentials, EnrollRequest, RenewRequest};
use muster_types::link::LinkError;
use muster_types::{EnrollmentLink, Timestamp};
use muster_wire::roots;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::bootstrap::{RENEWAL_AGE, RENEWAL_LOOK, ServiceTls};
use crate::domain::leaf::Leaf;

pub mod pem;

/// Why somebody did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} holds no enrollment link: {source}", path.display())]
    Link { path: PathBuf, source: LinkError },
    #[error("{} holds no key with certificates", .0.display())]
    Credentials(PathBuf),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("a key could not be made: {0}")]
    Key(#[from] rcgen::Error),
    #[error("auth refuses: {}", .0.message())]
    Refused(#[from] Box<tonic::Status>),
    #[error("auth's answer is not what was asked for: {0}")]
    Answer(&'static str),
}

impl From<tonic::Status> for JoinError {
    fn from(status: tonic::Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// A key that is yet to be, or has been, admitted.
pub struct Key(KeyPair);

/// Credentials with what else auth's answer said.
#[derive(Debug, Clone)]
pub struct Joined {
    pub material: Material,
    /// Resource name.
    pub name: String,
    /// `host:port` of the master, best first.
    pub addresses: Vec<String>,
    /// Whose SRV records name the master; empty: none.
    pub discovery_domain: String,
}

impl Key {
    /// # Errors
    /// The system has no randomness.
    pub fn draw() -> Result<Self, JoinError> {
        Ok(Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    /// The key that an earlier attempt left at `path`, or a new one, kept there before anybody sees it.
    ///
    /// # Errors
    /// The file is no key, or cannot be written.
    pub fn kept(path: &Path) -> Result<Self, JoinError> {
        match fs::read_to_string(path) {
            Ok(text) => match pem::from_pem(&text) {
                Some(pem::State::Key(key)) => Self::read(&key),
                _ => Err(JoinError::Credentials(path.to_owned())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = Self::draw()?;
                if let Some(folder) = path.parent() {
                    create_private_dir(folder)?;
                }
                write_private(path, pem::key_to_pem(&key.der()).as_bytes())?;
                Ok(key)
            }
            Err(source) => Err(JoinError::Unreadable { path: path.to_owned(), source }),
        }
    }

    fn read(pkcs8: &PrivateKeyDer<'_>) -> Result<Self, JoinError> {
        Ok(Self(KeyPair::try_from(pkcs8.secret_der())?))
    }

    fn der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
    }

    /// A certificate request. Its subject says nothing: auth decides the name.
    fn request(&self) -> Result<Bytes, JoinError> {
        let request = CertificateParams::default().serialize_request(&self.0)?;
        Ok(Bytes::copy_from_slice(request.der()))
    }

    fn sign(&self, message: &[u8]) -> Result<Bytes, JoinError> {
        let random = SystemRandom::new();
        let broken = |_| JoinError::Answer("our own key does not sign");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, self.0.serialized_der(), &random)
            .map_err(|_| JoinError::Answer("our own key cannot be read"))?;
        Ok(Bytes::copy_from_slice(key.sign(&random, message).map_err(broken)?.as_ref()))
    }
}

/// Redeems a link of a person, a CMDB or a service. With the same key it may be repeated.
///
/// # Errors
/// The master cannot be reached, refuses, or answers with something else.
pub async fn enroll(link: &EnrollmentLink, key: &Key) -> Result<Joined, JoinError> {
    let tls = ClientTls::trusting(&link.root_key)?;
    let mut client = client(&Master::new([link.address.clone()], tls));
    let request = EnrollRequest {
        token: link.token.reveal(),
        certificate_request: key.request()?,
        software_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..EnrollRequest::default()
    };
    let answer = client.enroll(request).await?.into_inner();
    let bundle = answer.credentials.as_ref().and_then(|it| it.trust_bundle.clone()).unwrap_or_default();
    let mut joined = joined(answer.credentials, key)?;
    joined.material.roots.retain(|root| root_key(root).is_ok_and(|key| key == link.root_key));
    if joined.material.roots.is_empty() {
        return Err(JoinError::Answer("its root is not the link's"));
    }
    joined.material.roots = roots::believed(&joined.material.roots, &bundle, muster_kit::clock::wall());
    Ok(joined)
}

/// The next certificate for the key of `current`, which may have expired, from a master at `addresses`, or where the SRV
/// records of `domain` say, if there is one.
///
/// # Errors
/// The master cannot be reached, refuses, or answers with something else.
pub async fn renew(current: &Material, addresses: &[String], domain: &str) -> Result<Joined, JoinError> {
    let key = Key::read(&current.key)?;
    let tls = ClientTls::anonymous(&current.roots)?;
    let mut client = client(&Master::new(addresses.iter().cloned(), tls).found_by(domain));
    let challenge =
        client.create_renewal_challenge(CreateRenewalChallengeRequest {}).await?.into_inner().challenge;
    let certificate_request = key.request()?;
    let hash = digest(&SHA256, &certificate_request);
    let proof = key.sign(&[b"muster renewal v1", &challenge[..], hash.as_ref()].concat())?;
    let leaf = current.chain.first().ok_or(JoinError::Answer("we have no certificate"))?;
    let request = RenewRequest {
        certificate: Bytes::copy_from_slice(leaf),
        challenge,
        proof,
        certificate_request,
        node_keys: None,
    };
    let answer = client.renew(request).await?.into_inner();
    let bundle = answer.credentials.as_ref().and_then(|it| it.trust_bundle.clone()).unwrap_or_default();
    let mut joined = joined(answer.credentials, &key)?;
    // Roots change by the signature of one that is believed, never by an answer's word.
    joined.material.roots = roots::believed(&current.roots, &bundle, muster_kit::clock::wall());
    Ok(joined)
}

fn client(master: &Master) -> EnrollmentServiceClient<MasterChannel> {
    EnrollmentServiceClient::new(master.service(AUTH))
}

fn joined(credentials: Option<Credentials>, key: &Key) -> Result<Joined, JoinError> {
    let credentials = credentials.ok_or(JoinError::Answer("it is empty"))?;
    let der = |bytes: Bytes| CertificateDer::from(bytes.to_vec());
    let chain: Vec<_> = credentials.certificate_chain.into_iter().map(der).collect();
    let leaf = chain.first().and_then(|leaf| Leaf::read(leaf)).ok_or(JoinError::Answer("no certificate"))?;
    let ours = crate::domain::request::PublicKey::from_point(key.0.public_key_raw());
    if ours.map(|key| key.hash()) != Some(leaf.key) {
        return Err(JoinError::Answer("the certificate is not for our key"));
    }
    let roots = credentials.trust_bundle.unwrap_or_default().roots.into_iter().map(der).collect();
    Ok(Joined {
        material: Material { chain, key: key.der(), roots },
        name: credentials.name,
        addresses: credentials.master_addresses,
        discovery_domain: credentials.discovery_domain,
    })
}

/// Joins as a service with the link in `link_file`, or with what an earlier start left in `state_file`; kept until the
/// shutdown.
///
/// # Errors
/// There is neither state nor a good link, or the master cannot be reached.
pub async fn join(
    link_file: &Path,
    state_file: PathBuf,
    callers: CallerCertificate,
    shutdown: &Shutdown,
) -> Result<ServiceTls, JoinError> {
    let link = read_link(link_file)?;
    let material = admitted(&link, &state_file).await?;
    let tls = ServiceTls {
        server: ServerTls::new(material.clone(), callers)?,
        client: ClientTls::new(material.clone())?,
    };
    let kept = Kept { material, state_file, addresses: vec![link.address], tls: tls.clone() };
    shutdown.spawn(kept.keep(shutdown.clone()));
    Ok(tls)
}

fn read_link(path: &Path) -> Result<EnrollmentLink, JoinError> {
    let text =
        fs::read_to_string(path).map_err(|source| JoinError::Unreadable { path: path.to_owned(), source })?;
    text.parse().map_err(|source| JoinError::Link { path: path.to_owned(), source })
}

/// What is in the state file, completed if an earlier start came only as far as the key.
async fn admitted(link: &EnrollmentLink, state_file: &Path) -> Result<Material, JoinError> {
    // What cannot be read here is told by the attempt to read a key.
    let state = fs::read_to_string(state_file).ok().and_then(|text| pem::from_pem(&text));
    if let Some(pem::State::Admitted(material)) = state {
        if !is_due(&material) {
            return Ok(material);
        }
        let renewed = renew(&material, std::slice::from_ref(&link.address), "").await?.material;
        write_private(state_file, pem::to_pem(&renewed).as_bytes())?;
        return Ok(renewed);
    }
    let key = Key::kept(state_file)?;
    let material = enroll(link, &key).await?.material;
    write_private(state_file, pem::to_pem(&material).as_bytes())?;
    Ok(material)
}

/// Whether a third of the certificate's life is over.
fn is_due(material: &Material) -> bool {
    let made = material.chain.first().and_then(|leaf| Leaf::read(leaf)).map(|leaf| leaf.not_before);
    muster_kit::clock::wall().since(made.unwrap_or(Timestamp::from_micros(0))) >= RENEWAL_AGE
}

/// A joined service's credentials, wherever they are.
struct Kept {
    material: Material,
    state_file: PathBuf,
    addresses: Vec<String>,
    tls: ServiceTls,
}

impl Kept {
    async fn keep(mut self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.triggered() => return,
                () = tokio::time::sleep(RENEWAL_LOOK) => {}
            }
            if is_due(&self.material)
                && let Err(error) = self.renew().await
            {
                tracing::warn!(%error, "could not renew the service's certificate; trying again");
            }
        }
    }

    async fn renew(&mut self) -> Result<(), JoinError> {
        let renewed = renew(&self.material, &self.addresses, "").await?.material;
        write_private(&self.state_file, pem::to_pem(&renewed).as_bytes())?;
        self.tls.server.reload(renewed.clone())?;
        self.tls.client.reload(renewed.clone())?;
        self.material = renewed;
        Ok(())
    }
}
