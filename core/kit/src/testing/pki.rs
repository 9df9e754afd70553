//! A certificate authority that lives as long as a test: root, issuing authority, leaves of every role.

use std::time::{Duration, SystemTime};

use muster_types::{EnrollmentLink, Identity, NetworkId, Role, RootKey, Token};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::tls::Material;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A root and an issuing authority, in the shape that auth gives them.
pub struct Pki {
    pub network: NetworkId,
    pub root_key: RootKey,
    root: Certificate,
    issuing: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

impl Pki {
    pub fn new() -> Self {
        let key = new_key();
        let root_key =
            RootKey::from_point(key.public_key_raw()).expect("rcgen writes P-256 points uncompressed");
        let params = authority(&root_key.common_name());
        let root = params.self_signed(&key).expect("a root's parameters are complete");
        let root_issuer = Issuer::new(params, key);

        let key = new_key();
        let params = authority("Muster issuing authority");
        let issuing = params.signed_by(&key, &root_issuer).expect("an authority's parameters are complete");
        let issuer = Issuer::new(params, key);
        Self { network: root_key.network_id(), root_key, root, issuing, issuer }
    }

    pub fn root_der(&self) -> CertificateDer<'static> {
        self.root.der().clone()
    }

    pub fn issuing_der(&self) -> CertificateDer<'static> {
        self.issuing.der().clone()
    }

    /// The identity of a service, an operator or another, in this network.
    pub fn identity(&self, role: Role, name: &str) -> Identity {
        Identity { network: self.network, role, name: name.to_owned() }
    }

    /// A certificate for the next 14 days.
    pub fn leaf(&self, identity: &Identity) -> Material {
        let now = SystemTime::now();
        self.leaf_valid(identity, now - DAY, now + 14 * DAY)
    }

    /// A certificate with the dates of one's choice.
    pub fn leaf_valid(&self, identity: &Identity, from: SystemTime, until: SystemTime) -> Material {
        let key = new_key();
        let mut params = named(&identity.resource_name());
        params.subject_alt_names = subject_alt_names(identity);
        params.extended_key_usages = purposes(identity.role);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.not_before = from.into();
        params.not_after = until.into();
        let leaf = params.signed_by(&key, &self.issuer).expect("a leaf's parameters are complete");
        Material {
            chain: vec![leaf.der().clone(), self.issuing_der()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            roots: vec![self.root_der()],
        }
    }

    /// A link to a master at `address` with a token of its own choice.
    pub fn link(&self, address: &str, token: [u8; 16]) -> EnrollmentLink {
        EnrollmentLink {
            address: address.to_owned(),
            token: Token::from_bytes(token),
            root_key: self.root_key,
        }
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("the system has randomness")
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn authority(common_name: &str) -> CertificateParams {
    let mut params = named(common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn subject_alt_names(identity: &Identity) -> Vec<SanType> {
    let uri = identity.to_string().try_into().expect("an identity is ASCII");
    let host = identity.server_name().map(|name| name.try_into().expect("a server name is ASCII"));
    std::iter::once(SanType::URI(uri)).chain(host.map(SanType::DnsName)).collect()
}

fn purposes(role: Role) -> Vec<ExtendedKeyUsagePurpose> {
    match role {
        Role::Node | Role::Service => {
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth]
        }
        Role::Admin | Role::Operator | Role::Auditor | Role::Cmdb => {
            vec![ExtendedKeyUsagePurpose::ClientAuth]
        }
        Role::Signer => vec![ExtendedKeyUsagePurpose::CodeSigning],
    }
}
