//! Certificates as auth makes them: one profile for each role, a random serial, a life of 14 days.

use muster_types::limits::CERTIFICATE_LIFETIME;
use muster_types::{Identity, Role, Timestamp};
use rand::CryptoRng;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose,
    SanType, SerialNumber, SigningKey, SubjectPublicKeyInfo,
};
use std::time::Duration;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::AuthorityError;
use super::request::{KeyHash, PublicKey};

/// Random bytes of a serial number: within the 20 octets of RFC 5280, section 4.1.2.2, beyond guessing and repetition.
const SERIAL_BYTES: usize = 16;

/// How far a holder's clock may lag behind ours: certificates begin that much before they are made.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(3_600);

/// A signer's certificate outlives any task (30 days) and any absence that renewal forgives (180 days); its
/// holder, auth, makes a new one when half of it is gone.
pub const SIGNER_LIFETIME: Duration = Duration::from_secs(400 * 24 * 3_600);

/// A certificate's serial number, big-endian, as it stands in the certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Serial(pub Vec<u8>);

impl Serial {
    /// A positive number of exactly [`SERIAL_BYTES`] bytes.
    pub(super) fn draw(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; SERIAL_BYTES];
        rng.fill_bytes(&mut bytes);
        bytes[0] = (bytes[0] & 0x7f) | 0x40;
        Self(bytes.to_vec())
    }
}

/// A certificate that auth issued, with what auth remembers of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    pub identity: Identity,
    /// Which authority signed it, as in `issuing/1`; empty of one that was read back.
    pub issuer: String,
    pub serial: Serial,
    pub key: KeyHash,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub der: Vec<u8>,
}

impl Leaf {
    /// Reads back what auth issued; `None` if it is no such certificate.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let micros = |seconds: i64| Timestamp::from_micros(seconds.saturating_mul(1_000_000));
        Some(Self {
            identity: muster_wire::trust::identity_of(&certificate).ok()?,
            issuer: String::new(),
            serial: Serial(certificate.raw_serial().to_vec()),
            key: PublicKey::from_spki(certificate.public_key().raw)?.hash(),
            not_before: micros(certificate.validity().not_before.timestamp()),
            not_after: micros(certificate.validity().not_after.timestamp()),
            der: der.to_vec(),
        })
    }
}

/// Makes the certificate of `identity` for `key` by `issuer`.
///
/// # Errors
/// The certificate could not be encoded or signed: our own fault, never the holder's.
pub(super) fn issue(
    issuer: &Issuer<'_, impl SigningKey>,
    issuer_name: &str,
    identity: &Identity,
    key: &PublicKey,
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<Leaf, AuthorityError> {
    let lifetime = if identity.role == Role::Signer { SIGNER_LIFETIME } else { CERTIFICATE_LIFETIME };
    let (not_before, not_after) = (whole_seconds(now - CLOCK_TOLERANCE), whole_seconds(now + lifetime));
    let serial = Serial::draw(rng);
    let mut params = CertificateParams::default();
    params.not_before = date(not_before)?;
    params.not_after = date(not_after)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial.0));
    params.distinguished_name = common_name(&identity.name);
    params.subject_alt_names = names(identity)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages(identity.role);
    params.use_authority_key_identifier_extension = true;
    let subject_key = SubjectPublicKeyInfo::from_der(&key.spki())?;
    let der = params.signed_by(&subject_key, issuer)?.der().to_vec();
    let issuer = issuer_name.to_owned();
    Ok(Leaf { identity: identity.clone(), issuer, serial, key: key.hash(), not_before, not_after, der })
}

/// What TLS and verifiers of signatures may accept the certificate for.
fn usages(role: Role) -> Vec<ExtendedKeyUsagePurpose> {
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

/// The URI that names the holder and, of those who serve, the host name that TLS verifies.
fn names(identity: &Identity) -> Result<Vec<SanType>, AuthorityError> {
    let mut names = vec![SanType::URI(Ia5String::try_from(identity.to_string())?)];
    if let Some(name) = identity.server_name() {
        names.push(SanType::DnsName(Ia5String::try_from(name)?));
    }
    Ok(names)
}

/// A subject that is one common name, as UTF8String.
pub(super) fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

/// X.509 dates know no fractions.
pub(super) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_micros(time.as_micros().div_euclid(1_000_000) * 1_000_000)
}

pub(super) fn date(time: Timestamp) -> Result<OffsetDateTime, AuthorityError> {
    OffsetDateTime::from_unix_timestamp(time.as_micros().div_euclid(1_000_000))
        .map_err(|_| AuthorityError::Clock(time))
}
