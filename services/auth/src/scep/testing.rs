//! A client of SCEP, for whoever tests the parser or the service.

use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::ContentInfo;
use cms::revocation::RevocationInfoChoice;
use cms::signed_data::SignedData;
use const_oid::db::rfc8894::{
    ID_FAIL_INFO, ID_MESSAGE_TYPE, ID_PKI_STATUS, ID_SENDER_NONCE, ID_TRANSACTION_ID,
};
use der::asn1::{OctetString, PrintableString};
use der::{Decode, Encode};
use rcgen::{CertificateParams, DnType, KeyPair};
use rsa::RsaPrivateKey;
use rsa::pkcs8::{EncodePrivateKey, LineEnding};
use x509_cert::Certificate;

use super::message::{attribute, check_signature, open, signer};
use super::reply::{envelope, one, sign};

/// Bits of the client's key.
const RSA_BITS: usize = 2_048;

/// A device with an RSA key and a certificate that it made itself.
pub struct Client {
    key: RsaPrivateKey,
    pair: KeyPair,
    certificate: Vec<u8>,
}

/// What a CertRep brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// pkiStatus: "0", "2" or "3".
    pub status: String,
    /// failInfo, if it failed.
    pub failure: Option<String>,
    /// DER
    pub certificates: Vec<Vec<u8>>,
    /// DER
    pub revocation_lists: Vec<Vec<u8>>,
}

#[allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "only tests come here")]
impl Client {
    #[must_use]
    pub fn new(common_name: &str) -> Self {
        let key = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, RSA_BITS).unwrap();
        let pem = key.to_pkcs8_pem(LineEnding::LF).unwrap();
        let pair = KeyPair::from_pkcs8_pem_and_sign_algo(&pem, &rcgen::PKCS_RSA_SHA256).unwrap();
        let certificate = named(common_name).self_signed(&pair).unwrap().der().to_vec();
        Self { key, pair, certificate }
    }

    /// A message of this type (RFC 8894, section 3.2.1.2), its content enveloped for `to` (DER).
    #[must_use]
    pub fn message(&self, kind: &str, content: &[u8], to: &[u8]) -> Vec<u8> {
        let sealed = envelope(content, &Certificate::from_der(to).unwrap(), false).unwrap();
        let attributes = vec![
            one(ID_MESSAGE_TYPE, &PrintableString::new(kind).unwrap()).unwrap(),
            one(ID_TRANSACTION_ID, &PrintableString::new("1234").unwrap()).unwrap(),
            one(ID_SENDER_NONCE, &OctetString::new([7; 16]).unwrap()).unwrap(),
        ];
        sign(&sealed, attributes, &self.key, &self.certificate).unwrap()
    }

    /// PKCS#10 with a challenge password.
    #[must_use]
    pub fn request(&self, common_name: &str, challenge: &str) -> Vec<u8> {
        use der::asn1::Utf8StringRef;
        let value = Utf8StringRef::new(challenge).unwrap().to_der().unwrap();
        let challenge = rcgen::Attribute {
            // challengePassword (RFC 2985, section 5.4.1)
            oid: &[1, 2, 840, 113_549, 1, 9, 7],
            values: [&[0x31, u8::try_from(value.len()).unwrap()][..], &value].concat(),
        };
        let request = named(common_name).serialize_request_with_attributes(&self.pair, vec![challenge]);
        request.unwrap().der().to_vec()
    }

    /// Verifies an answer by the certificate that comes with it, and opens it.
    #[must_use]
    pub fn read(&self, der: &[u8], registration: &[u8]) -> Answer {
        let signed: SignedData = ContentInfo::from_der(der).unwrap().content.decode_as().unwrap();
        let info = &signed.signer_infos.0.as_slice()[0];
        let by = signer(&signed, info).unwrap();
        assert_eq!(by.to_der().unwrap(), registration, "somebody else answers");
        let content = signed.encap_content_info.econtent.as_ref().unwrap();
        let content = content.decode_as::<OctetString>().unwrap();
        let attributes = info.signed_attrs.as_ref().unwrap();
        check_signature(info, attributes, &by, content.as_bytes()).unwrap();
        let text = |oid| {
            let value = attribute(attributes, oid).ok()?.decode_as::<PrintableString>().ok()?;
            Some(value.as_str().to_owned())
        };
        let status = text(ID_PKI_STATUS).unwrap();
        let mut answer = Answer { status, failure: text(ID_FAIL_INFO), ..Answer::default() };
        if answer.status == "0" {
            self.unpack(content.as_bytes(), &mut answer);
        }
        answer
    }

    fn unpack(&self, content: &[u8], answer: &mut Answer) {
        let sealed = ContentInfo::from_der(content).unwrap().content.decode_as().unwrap();
        let inner = open(&sealed, &self.key).unwrap();
        let carried: SignedData = ContentInfo::from_der(&inner).unwrap().content.decode_as().unwrap();
        for choice in carried.certificates.iter().flat_map(|all| all.0.as_slice()) {
            if let CertificateChoices::Certificate(certificate) = choice {
                answer.certificates.push(certificate.to_der().unwrap());
            }
        }
        for choice in carried.crls.iter().flat_map(|all| all.0.as_slice()) {
            if let RevocationInfoChoice::Crl(list) = choice {
                answer.revocation_lists.push(list.to_der().unwrap());
            }
        }
    }
}

/// How GetCert and GetCRL name a certificate (RFC 8894, section 3.3.4): by its issuer and serial number.
///
/// # Panics
/// It is no certificate.
#[must_use]
#[allow(clippy::unwrap_used, reason = "only tests come here")]
pub fn name_of(certificate: &[u8]) -> Vec<u8> {
    let tbs = Certificate::from_der(certificate).unwrap().tbs_certificate;
    IssuerAndSerialNumber { issuer: tbs.issuer, serial_number: tbs.serial_number }.to_der().unwrap()
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// A PKCSReq, signed by a key that was just made and enveloped for itself.
#[must_use]
pub fn message() -> Vec<u8> {
    let client = Client::new("a device");
    client.message("19", &client.request("a device", "once"), &client.certificate)
}

#[cfg(test)]
mod tests {
    use super::super::is_message;
    use super::*;

    #[test]
    fn a_message_is_whole_or_nothing() {
        let good = message();
        assert!(is_message(&good));
        for end in (0..good.len()).step_by(31) {
            assert!(!is_message(&good[..end]));
        }
        for at in (0..good.len()).step_by(53) {
            let mut changed = good.clone();
            changed[at] ^= 0x41;
            // What is changed in the certificate is not covered by the message's signature; nothing here may panic.
            let _ = is_message(&changed);
        }
    }
}
