//! Certificates of servers that are no services of ours: EST's, for the names by which it is dialled, and SCEP's registration
//! authority. They name nobody of our network.

use std::net::IpAddr;

use muster_types::Timestamp;
use muster_types::limits::CERTIFICATE_LIFETIME;
use rand::CryptoRng;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};

use super::authority::{Authority, AuthorityError};
use super::device::DeviceLeaf;
use super::leaf::{CLOCK_TOLERANCE, SIGNER_LIFETIME, Serial, common_name, date, whole_seconds};
use super::request::{KeyHash, sha256};

/// The subject of SCEP's registration authority.
const REGISTRATION: &str = "Muster registration authority";

/// The certificate of the server `name` at `hosts`, for the key `spki`.
///
/// # Errors
/// A host's name cannot stand in a certificate.
pub fn issue(
    authority: &Authority,
    name: &str,
    hosts: &[String],
    spki: &[u8],
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<DeviceLeaf, AuthorityError> {
    let issuing = &authority.issuing()[0];
    let serial = Serial::draw(rng);
    let not_after = whole_seconds(now + CERTIFICATE_LIFETIME);
    let mut params = params(name, &serial, now, not_after)?;
    for host in hosts {
        params.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(Ia5String::try_from(host.as_str())?),
        });
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = SubjectPublicKeyInfo::from_der(spki)?;
    let der = params.signed_by(&key, &issuing.issuer)?.der().to_vec();
    let principal = format!("servers/{name}");
    Ok(DeviceLeaf {
        serial,
        key: KeyHash(sha256(spki)),
        principal,
        issuer: issuing.name.clone(),
        not_after,
        der,
    })
}

/// The certificate of SCEP's registration authority, by the authority for devices.
///
/// # Errors
/// There is no such authority.
pub fn registration(
    authority: &Authority,
    spki: &[u8],
    now: Timestamp,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, AuthorityError> {
    let devices = authority.device_authority()?;
    let mut params = params(REGISTRATION, &Serial::draw(rng), now, whole_seconds(now + SIGNER_LIFETIME))?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    let key = SubjectPublicKeyInfo::from_der(spki)?;
    Ok(params.signed_by(&key, &devices.issuer)?.der().to_vec())
}

fn params(
    name: &str,
    serial: &Serial,
    now: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.not_before = date(whole_seconds(now - CLOCK_TOLERANCE))?;
    params.not_after = date(not_after)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial.0));
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}
