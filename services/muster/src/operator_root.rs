//! `muster operator-root`: the operators' own authority, made and used on a computer that needs no network. Its policy is
//! pinned by devices when they enroll; what it signs, no master can.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use muster_kit::{clock, files};
use muster_proto::payload_type::OPERATOR_POLICY;
use muster_proto::trust::v1::{Envelope, OperatorPolicy};
use muster_types::{EnrollmentLink, NetworkId};
use muster_wire::envelope::{key_id, sign_p256};
use muster_wire::time::to_wire;
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

use crate::cli::{OperatorRootCommand, OperatorRootPolicy, OperatorRootSign, Place};
use crate::exit::{Exit, Failure};
use crate::signing::OperatorKey;

/// In the folder of an operators' root.
const KEY: &str = "operator-root.key.pem";
const CERTIFICATE: &str = "operator-root.pem";

/// In the data directory of a master, which hands it to devices.
pub const POLICY: &str = "operator-policy";

/// The root's own life: it changes by its own signature, not by running out.
const ROOT_YEARS: i32 = 30;

pub fn run(place: &Place, command: OperatorRootCommand) -> Result<Exit, Failure> {
    match command {
        OperatorRootCommand::Init { dir } => init(&dir),
        OperatorRootCommand::Sign(wanted) => sign(&wanted),
        OperatorRootCommand::Policy(wanted) => policy(&wanted),
        OperatorRootCommand::Install { policy } => install(place, &policy),
    }
}

fn failed(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> Failure {
    move |error| Failure::usage(what, error)
}

fn init(dir: &Path) -> Result<Exit, Failure> {
    let fail = failed("cannot make an operators' root");
    if dir.join(KEY).exists() {
        return Err(fail(&format!("{} has one already", dir.display())));
    }
    let key = KeyPair::generate().map_err(|error| fail(&error))?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Muster operators' root");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let today = OffsetDateTime::now_utc();
    params.not_before = today - Duration::from_secs(86_400);
    params.not_after = today.replace_year(today.year() + ROOT_YEARS).unwrap_or(today);
    let certificate = params.self_signed(&key).map_err(|error| fail(&error))?;
    files::create_private_dir(dir).map_err(|error| fail(&error))?;
    files::write_private(&dir.join(KEY), key.serialize_pem().as_bytes()).map_err(|error| fail(&error))?;
    files::write_private(&dir.join(CERTIFICATE), certificate.pem().as_bytes())
        .map_err(|error| fail(&error))?;
    eprintln!(
        "The operators' root is in {}. Keep it offline. Next:\n  \
         muster operator-root sign {} --name ada --out ada.pem\n  \
         muster operator-root policy {} --network LINK --require --out policy",
        dir.display(),
        dir.display(),
        dir.display()
    );
    Ok(Exit::Ok)
}

/// The root's key and certificate, from its folder.
fn open(dir: &Path) -> Result<(KeyPair, CertificateDer<'static>), Failure> {
    let fail = failed("cannot use the operators' root");
    let key = PrivateKeyDer::from_pem_file(dir.join(KEY)).map_err(|error| fail(&error))?;
    let key = KeyPair::try_from(&key).map_err(|error| fail(&error))?;
    let certificate = CertificateDer::from_pem_file(dir.join(CERTIFICATE)).map_err(|error| fail(&error))?;
    Ok((key, certificate))
}

fn sign(wanted: &OperatorRootSign) -> Result<Exit, Failure> {
    let fail = failed("cannot make an operator's key");
    let (root_key, root) = open(&wanted.dir)?;
    let issuer = Issuer::from_ca_cert_der(&root, root_key).map_err(|error| fail(&error))?;
    let key = KeyPair::generate().map_err(|error| fail(&error))?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, wanted.name.as_str());
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::from_secs(3_600);
    params.not_after = now + wanted.ttl;
    let certificate = params.signed_by(&key, &issuer).map_err(|error| fail(&error))?;
    let text = format!("{}{}", key.serialize_pem(), certificate.pem());
    files::write_private(&wanted.out, text.as_bytes()).map_err(|error| fail(&error))?;
    let id = data_encoding::HEXLOWER.encode(&key_id(&key.subject_public_key_info()));
    println!("{id}");
    eprintln!(
        "{} signs with {} (key id {id}): muster run --sign-with {} ...",
        wanted.name,
        wanted.out.display(),
        wanted.out.display()
    );
    Ok(Exit::Ok)
}

fn policy(wanted: &OperatorRootPolicy) -> Result<Exit, Failure> {
    let fail = failed("cannot sign the policy");
    let (key, root) = open(&wanted.dir)?;
    let withdrawn = wanted.withdraw.iter().map(|id| {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(id.as_bytes());
        bytes
            .map(Bytes::from)
            .map_err(|_| Failure::usage("cannot withdraw a key", format!("{id:?} is no key id")))
    });
    let policy = OperatorPolicy {
        network_id: Bytes::copy_from_slice(network(&wanted.network)?.as_bytes()),
        // Later policies have higher numbers without anybody counting.
        version: u64::try_from(clock::wall().as_micros()).unwrap_or_default(),
        root: Bytes::copy_from_slice(&root),
        signature_required: wanted.require,
        withdrawn_key_ids: withdrawn.collect::<Result<_, _>>()?,
        issue_time: Some(to_wire(clock::wall())),
    };
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key.serialize_der(), &SystemRandom::new());
    let id = key_id(&key.subject_public_key_info());
    let sealed =
        sign_p256(OPERATOR_POLICY, policy.encode_to_vec().into(), &pair.map_err(|error| fail(&error))?, id);
    let sealed = sealed.map_err(|error| fail(&error))?;
    files::write_private(&wanted.out, &sealed.encode_to_vec()).map_err(|error| fail(&error))?;
    eprintln!("On each master: muster operator-root install {}", wanted.out.display());
    Ok(Exit::Ok)
}

/// An id in hexadecimal, or any enrollment link of the network: it carries the root's key, and that the id.
fn network(text: &str) -> Result<NetworkId, Failure> {
    let by_link = || text.parse::<EnrollmentLink>().ok().map(|link| link.root_key.network_id());
    text.parse::<NetworkId>().ok().or_else(by_link).ok_or_else(|| {
        Failure::usage(
            "the network is not understood",
            format!("{text:?} is neither its id nor one of its links"),
        )
    })
}

/// Puts a policy where the master of this host finds it. Devices that enroll from now on pin it.
fn install(place: &Place, policy: &PathBuf) -> Result<Exit, Failure> {
    let fail = failed("cannot install the policy");
    let data_dir = match &place.data_dir {
        Some(folder) => folder.clone(),
        None => muster_kit::dirs::master_data_dir().map_err(|error| fail(&error))?,
    };
    let bytes = std::fs::read(policy).map_err(|error| fail(&error))?;
    let sealed = Envelope::decode(&bytes[..]).map_err(|error| fail(&error))?;
    let network = OperatorPolicy::decode(&sealed.payload[..]).map_err(|error| fail(&error))?.network_id;
    let network = NetworkId::try_from(&network[..]).map_err(|error| fail(&error))?;
    muster_wire::OperatorPolicy::pin(&sealed, network).map_err(|error| fail(&error))?;
    files::write_private(&data_dir.join(POLICY), &bytes).map_err(|error| fail(&error))?;
    eprintln!(
        "Devices that enroll from now on pin this policy; those that pinned an earlier one take it over."
    );
    Ok(Exit::Ok)
}

impl OperatorKey {
    /// An operator's key with its certificates, as `operator-root sign` wrote it.
    pub fn open(file: &Path) -> Result<Self, Failure> {
        let fail = |error: &dyn std::fmt::Display| {
            Failure::usage(format!("cannot sign with {}", file.display()), error)
                .next("muster operator-root sign DIR --name NAME --out FILE")
        };
        let key = PrivateKeyDer::from_pem_file(file).map_err(|error| fail(&error))?;
        let pair = KeyPair::try_from(&key).map_err(|error| fail(&error))?;
        let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
            .map_err(|error| fail(&error))?
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| fail(&error))?;
        let random = SystemRandom::new();
        let signing =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pair.serialize_der(), &random);
        Ok(Self {
            key_id: key_id(&pair.subject_public_key_info()),
            key: signing.map_err(|error| fail(&error))?,
            certificates: certificates.iter().map(|der| Bytes::copy_from_slice(der)).collect(),
        })
    }
}
