//! A valid request as a client sends it, for whoever tests the parser.

use const_oid::db::rfc8894::{ID_MESSAGE_TYPE, ID_SENDER_NONCE, ID_TRANSACTION_ID};
use der::Decode;
use der::asn1::{OctetString, PrintableString};
use rcgen::{CertificateParams, KeyPair};
use rsa::RsaPrivateKey;
use rsa::pkcs8::{EncodePrivateKey, LineEnding};
use x509_cert::Certificate;

use super::reply::{envelope, one, sign};

/// Bits of the client's key.
const RSA_BITS: usize = 2_048;

/// A PKCSReq, signed by a key that was just made and enveloped for itself.
///
/// # Panics
/// The system has no randomness.
#[must_use]
#[allow(clippy::unwrap_used, reason = "only tests come here")]
pub fn message() -> Vec<u8> {
    let key = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, RSA_BITS).unwrap();
    let pem = key.to_pkcs8_pem(LineEnding::LF).unwrap();
    let pair = KeyPair::from_pkcs8_pem_and_sign_algo(&pem, &rcgen::PKCS_RSA_SHA256).unwrap();
    let certificate = CertificateParams::default().self_signed(&pair).unwrap();
    let request = CertificateParams::default().serialize_request(&pair).unwrap();
    let to = Certificate::from_der(certificate.der()).unwrap();
    let sealed = envelope(request.der(), &to, false).unwrap();
    let attributes = vec![
        one(ID_MESSAGE_TYPE, &PrintableString::new("19").unwrap()).unwrap(),
        one(ID_TRANSACTION_ID, &PrintableString::new("1234").unwrap()).unwrap(),
        one(ID_SENDER_NONCE, &OctetString::new([7; 16]).unwrap()).unwrap(),
    ];
    sign(&sealed, attributes, &key, certificate.der()).unwrap()
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
