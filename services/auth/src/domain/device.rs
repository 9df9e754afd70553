//! Devices without our agent: what SCEP and EST may ask for, and the certificate they get.
//!
//! Their certificates come from an authority of their own and name nobody of our network: they open nothing here.

use muster_types::Timestamp;
use muster_types::limits::CERTIFICATE_LIFETIME;
use rand::CryptoRng;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::authority::{Authority, AuthorityError};
use super::leaf::{CLOCK_TOLERANCE, Serial, common_name, date, whole_seconds};
use super::request::{KeyHash, sha256};

/// A PKCS#10 for an RSA key of 4,096 bits with a few names takes some 1,300 bytes.
pub const REQUEST_BYTES: usize = 8_192;

/// Bits of the smallest RSA key that gets a certificate.
const RSA_BITS: usize = 2_048;

/// Bits of the largest: what a server still verifies quickly.
const RSA_MOST_BITS: usize = 8_192;

/// Names that one request may have.
const NAMES: usize = 8;

/// Why a device's request is refused: always its sender's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    #[error("the request has {0} bytes; {REQUEST_BYTES} are the most")]
    TooLong(usize),
    #[error("the request is no DER PKCS#10 with one common name")]
    Malformed,
    #[error("the request's key is neither EC P-256 or P-384 nor RSA of {RSA_BITS} to {RSA_MOST_BITS} bits")]
    Algorithm,
    #[error("the request is not signed by the key it is for")]
    BadProof,
    #[error("the request is for {0:?}, which is not whom the challenge is for")]
    Subject(String),
    #[error("the request asks for the name {0:?}, which is not its own")]
    Name(String),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// What a device asks for, proven to hold its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRequest {
    pub common_name: String,
    /// DNS names it asks for.
    names: Vec<String>,
    /// It asks for a name of a kind that nobody gets.
    strange: Option<String>,
    /// DER
    spki: Vec<u8>,
    /// SCEP's challengePassword.
    pub challenge: Option<String>,
}

/// A certificate for a device without our agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceLeaf {
    pub serial: Serial,
    pub key: KeyHash,
    /// Resource name.
    pub principal: String,
    /// Which authority signed it, as in `devices/1`.
    pub issuer: String,
    pub not_after: Timestamp,
    pub der: Vec<u8>,
}

/// `devices/{common name}`
pub fn resource_name(common_name: &str) -> String {
    format!("devices/{common_name}")
}

impl DeviceRequest {
    /// Reads a DER PKCS#10 and checks its signature.
    ///
    /// # Errors
    /// Too long, malformed, a weak key, or not signed by it.
    pub fn parse(der: &[u8]) -> Result<Self, DeviceError> {
        if der.len() > REQUEST_BYTES {
            return Err(DeviceError::TooLong(der.len()));
        }
        let Ok(([], request)) = X509CertificationRequest::from_der(der) else {
            return Err(DeviceError::Malformed);
        };
        let info = &request.certification_request_info;
        check_key(&info.subject_pki)?;
        request.verify_signature().map_err(|_| DeviceError::BadProof)?;
        let mut names = info.subject.iter_common_name();
        let (Some(name), None) = (names.next(), names.next()) else { return Err(DeviceError::Malformed) };
        let mut read = Self {
            common_name: name.as_str().map_err(|_| DeviceError::Malformed)?.to_owned(),
            names: Vec::new(),
            strange: None,
            spki: info.subject_pki.raw.to_vec(),
            challenge: challenge(&request),
        };
        read.names(&request)?;
        Ok(read)
    }

    fn names(&mut self, request: &X509CertificationRequest<'_>) -> Result<(), DeviceError> {
        for extension in request.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(name) => self.names.push((*name).to_owned()),
                    other => self.strange = Some(other.to_string()),
                }
            }
        }
        if self.names.len() > NAMES { Err(DeviceError::Malformed) } else { Ok(()) }
    }

    /// DER
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    pub fn key(&self) -> KeyHash {
        KeyHash(sha256(&self.spki))
    }

    /// A request without names for a key that was proven otherwise.
    ///
    /// # Errors
    /// The key is too weak, or of a kind that gets no certificate.
    pub fn bare(common_name: &str, spki: &[u8]) -> Result<Self, DeviceError> {
        let (_, parsed) =
            x509_parser::x509::SubjectPublicKeyInfo::from_der(spki).map_err(|_| DeviceError::Malformed)?;
        check_key(&parsed)?;
        Ok(Self {
            common_name: common_name.to_owned(),
            names: Vec::new(),
            strange: None,
            spki: spki.to_vec(),
            challenge: None,
        })
    }

    /// Checks that it asks for what is granted to `common_name` and nothing else; of DNS names for that one and `others`.
    ///
    /// # Errors
    /// It asks for somebody else's name.
    pub fn check<'a>(
        &self,
        common_name: &'a str,
        others: impl IntoIterator<Item = &'a str> + Clone,
    ) -> Result<(), DeviceError> {
        if self.common_name != common_name {
            return Err(DeviceError::Subject(self.common_name.clone()));
        }
        if let Some(name) = &self.strange {
            return Err(DeviceError::Name(name.clone()));
        }
        let own = |name: &&String| {
            let mut granted = others.clone().into_iter().chain([common_name]);
            granted.any(|granted| name.eq_ignore_ascii_case(granted))
        };
        match self.names.iter().find(|name| !own(name)) {
            Some(name) => Err(DeviceError::Name(name.clone())),
            None => Ok(()),
        }
    }

    /// The certificate for what [`Self::check`] let pass.
    ///
    /// # Errors
    /// It could not be encoded or signed, or there is no authority for devices.
    pub fn issue(
        &self,
        authority: &Authority,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<DeviceLeaf, DeviceError> {
        let subordinate = authority.device_authority()?;
        let serial = Serial::draw(rng);
        let not_after = whole_seconds(now + CERTIFICATE_LIFETIME);
        let mut params = CertificateParams::default();
        params.not_before = date(whole_seconds(now - CLOCK_TOLERANCE))?;
        params.not_after = date(not_after)?;
        params.serial_number = Some(SerialNumber::from_slice(&serial.0));
        params.distinguished_name = common_name(&self.common_name);
        let encoding = |error: rcgen::Error| DeviceError::Authority(error.into());
        for name in &self.names {
            params
                .subject_alt_names
                .push(SanType::DnsName(Ia5String::try_from(name.as_str()).map_err(encoding)?));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = SubjectPublicKeyInfo::from_der(&self.spki).map_err(|_| DeviceError::Algorithm)?;
        let der = params.signed_by(&key, &subordinate.issuer).map_err(encoding)?.der().to_vec();
        let principal = resource_name(&self.common_name);
        Ok(DeviceLeaf {
            serial,
            key: self.key(),
            principal,
            issuer: subordinate.name.clone(),
            not_after,
            der,
        })
    }
}

fn check_key(spki: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> Result<(), DeviceError> {
    use x509_parser::public_key::PublicKey;
    let good = match spki.parsed() {
        Ok(PublicKey::RSA(key)) => (RSA_BITS..=RSA_MOST_BITS).contains(&key.key_size()),
        Ok(PublicKey::EC(point)) => matches!(point.key_size(), 256 | 384),
        _ => false,
    };
    if good { Ok(()) } else { Err(DeviceError::Algorithm) }
}

/// SCEP's password (PKCS#9 challengePassword, RFC 2985, section 5.4.1).
fn challenge(request: &X509CertificationRequest<'_>) -> Option<String> {
    use x509_parser::cri_attributes::ParsedCriAttribute;
    request.certification_request_info.iter_attributes().find_map(|attribute| {
        match attribute.parsed_attribute() {
            ParsedCriAttribute::ChallengePassword(password) => Some(password.0.clone()),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{DnType, KeyPair};

    use super::*;

    fn request(common_name: &str, names: &[&str]) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn check(common_name: &str, names: &[&str]) -> Result<(), DeviceError> {
        DeviceRequest::parse(&request(common_name, names))
            .unwrap()
            .check("printer-3", ["printer-3.example.org"])
    }

    #[test]
    fn a_device_gets_its_own_names_and_nobody_elses() {
        assert_eq!(check("printer-3", &[]), Ok(()));
        assert_eq!(check("printer-3", &["printer-3", "Printer-3.example.org"]), Ok(()));
        assert!(matches!(check("printer-4", &[]), Err(DeviceError::Subject(_))));
        for name in ["auth.muster", "printer-4.example.org", "10.0.0.1"] {
            assert!(matches!(check("printer-3", &[name]), Err(DeviceError::Name(_))), "{name}");
        }
    }

    #[test]
    fn what_is_no_request_or_is_not_signed_by_its_key_is_refused() {
        let good = request("printer-3", &[]);
        assert!(DeviceRequest::parse(&good[..good.len() - 1]).is_err());
        assert_eq!(
            DeviceRequest::parse(&[0; REQUEST_BYTES + 1]),
            Err(DeviceError::TooLong(REQUEST_BYTES + 1))
        );
        let mut forged = good.clone();
        let at = forged.windows(9).position(|window| window == b"printer-3").unwrap();
        forged[at + 8] = b'4';
        assert_eq!(DeviceRequest::parse(&forged), Err(DeviceError::BadProof));
    }
}
