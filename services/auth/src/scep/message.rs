//! A SCEP request (RFC 8894, section 3): SignedData around EnvelopedData, verified, then opened with the RA's key.

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, KeyIvInit};
use cms::cert::CertificateChoices;
use cms::content_info::ContentInfo;
use cms::enveloped_data::{EnvelopedData, RecipientInfo};
use cms::signed_data::{SignedData, SignerIdentifier, SignerInfo};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5911::{
    ID_AES_128_CBC, ID_AES_256_CBC, ID_ENVELOPED_DATA, ID_MESSAGE_DIGEST, ID_SIGNED_DATA,
};
use const_oid::db::rfc5912::{ID_SHA_256, ID_SHA_384, ID_SHA_512, RSA_ENCRYPTION};
use const_oid::db::rfc8894::{ID_MESSAGE_TYPE, ID_SENDER_NONCE, ID_TRANSACTION_ID};
use der::asn1::{OctetString, PrintableString};
use der::{Any, Decode, Encode, Tag, Tagged};
use rand::RngCore;
use ring::digest::{SHA256, SHA384, SHA512, digest};
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
};
use rsa::{Pkcs1v15Encrypt, RsaPrivateKey};
use x509_cert::Certificate;
use x509_cert::attr::Attributes;

/// Bytes of a request; see the HTTP body's bound.
const MESSAGE_BYTES: usize = 64 * 1024;

/// Certificates that come along; a client sends its own, and perhaps its issuer's.
const CERTIFICATES: usize = 8;

/// Characters of a transaction id: clients use a hash of their key.
const TRANSACTION_CHARS: usize = 128;

/// Bytes of a nonce (RFC 8894, section 3.2.1.5, says 16).
const NONCE_BYTES: usize = 64;

/// What is asked (RFC 8894, section 3.2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    RenewalReq,
    PkcsReq,
    CertPoll,
    GetCert,
    GetCrl,
}

/// Why a message is not answered, or answered with a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("the message is no SCEP message: {0}")]
    Malformed(&'static str),
    #[error("the message uses an algorithm that we do not: {0}")]
    Algorithm(&'static str),
    #[error("the message's signature does not fit")]
    Signature,
    /// Whatever the reason: who could tell them apart could decrypt with our key.
    #[error("the message's content cannot be opened")]
    Closed,
}

/// A message whose signature holds. By whose key says `signer`; what that is worth is for the caller to judge.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) transaction: PrintableString,
    pub(crate) sender_nonce: OctetString,
    pub(crate) signer: Certificate,
    pub(crate) signer_der: Vec<u8>,
    /// Whether the client can do better than AES-128.
    pub(crate) long_keys: bool,
    envelope: EnvelopedData,
}

fn malformed<E>(what: &'static str) -> impl Fn(E) -> MessageError {
    move |_| MessageError::Malformed(what)
}

impl Message {
    /// Reads a message (DER) and verifies its signature.
    ///
    /// # Errors
    /// It is malformed, uses another algorithm, or its signature does not fit.
    pub(crate) fn verify(der: &[u8]) -> Result<Self, MessageError> {
        if der.len() > MESSAGE_BYTES {
            return Err(MessageError::Malformed("it is too long"));
        }
        let outer = ContentInfo::from_der(der).map_err(malformed("no CMS"))?;
        if outer.content_type != ID_SIGNED_DATA {
            return Err(MessageError::Malformed("it is not signed"));
        }
        let signed: SignedData = outer.content.decode_as().map_err(malformed("no SignedData"))?;
        let [info] = signed.signer_infos.0.as_slice() else {
            return Err(MessageError::Malformed("it has not one signer"));
        };
        let signer = signer(&signed, info)?;
        let content =
            signed.encap_content_info.econtent.as_ref().ok_or(MessageError::Malformed("it is empty"))?;
        let content = content.decode_as::<OctetString>().map_err(malformed("no octets"))?;
        let attributes = info.signed_attrs.as_ref().ok_or(MessageError::Malformed("no attributes"))?;
        check_signature(info, attributes, &signer, content.as_bytes())?;
        let inner = ContentInfo::from_der(content.as_bytes()).map_err(malformed("no CMS inside"))?;
        if inner.content_type != ID_ENVELOPED_DATA {
            return Err(MessageError::Malformed("its content is not enveloped"));
        }
        let envelope: EnvelopedData = inner.content.decode_as().map_err(malformed("no EnvelopedData"))?;
        let long_keys = envelope.encrypted_content.content_enc_alg.oid == ID_AES_256_CBC;
        Ok(Self {
            kind: kind(attributes)?,
            transaction: transaction(attributes)?,
            sender_nonce: nonce(attributes)?,
            signer_der: signer.to_der().map_err(malformed("no certificate"))?,
            signer,
            long_keys,
            envelope,
        })
    }

    /// Opens what is inside with the RA's key.
    ///
    /// # Errors
    /// An algorithm is another, or it cannot be opened: it does not say why.
    pub(crate) fn open(&self, key: &RsaPrivateKey) -> Result<Vec<u8>, MessageError> {
        open(&self.envelope, key)
    }
}

pub(super) fn open(envelope: &EnvelopedData, key: &RsaPrivateKey) -> Result<Vec<u8>, MessageError> {
    let [RecipientInfo::Ktri(recipient)] = envelope.recip_infos.0.as_slice() else {
        return Err(MessageError::Malformed("its content is not for one RSA key"));
    };
    if recipient.key_enc_alg.oid != RSA_ENCRYPTION {
        return Err(MessageError::Algorithm("key transport other than RSA PKCS #1 v1.5"));
    }
    let sealed = &envelope.encrypted_content;
    let key_bytes = match sealed.content_enc_alg.oid {
        ID_AES_128_CBC => 16,
        ID_AES_256_CBC => 32,
        _ => {
            return Err(MessageError::Algorithm("content encryption other than AES-128-CBC and AES-256-CBC"));
        }
    };
    let iv = sealed.content_enc_alg.parameters.as_ref().and_then(|iv| iv.decode_as::<OctetString>().ok());
    let iv = iv.filter(|iv| iv.as_bytes().len() == 16).ok_or(MessageError::Malformed("no vector"))?;
    let data = sealed.encrypted_content.as_ref().ok_or(MessageError::Malformed("no content"))?;
    // A key that does not decrypt is replaced by one drawn at random, so that nobody learns from us whether it did
    // (RFC 3218, section 2.3.2).
    let mut random = vec![0; key_bytes];
    rand::rng().fill_bytes(&mut random);
    let opened =
        key.decrypt_blinded(&mut rsa::rand_core::OsRng, Pkcs1v15Encrypt, recipient.enc_key.as_bytes());
    let content_key = opened.ok().filter(|key| key.len() == key_bytes).unwrap_or(random);
    decrypt(&content_key, iv.as_bytes(), data.as_bytes())
}

fn decrypt(key: &[u8], iv: &[u8], data: &[u8]) -> Result<Vec<u8>, MessageError> {
    let opened = match key.len() {
        16 => cbc::Decryptor::<aes::Aes128>::new_from_slices(key, iv)
            .map_err(|_| MessageError::Closed)?
            .decrypt_padded_vec_mut::<Pkcs7>(data),
        _ => cbc::Decryptor::<aes::Aes256>::new_from_slices(key, iv)
            .map_err(|_| MessageError::Closed)?
            .decrypt_padded_vec_mut::<Pkcs7>(data),
    };
    opened.map_err(|_| MessageError::Closed)
}

/// The certificate that the signer is named by.
pub(super) fn signer(signed: &SignedData, info: &SignerInfo) -> Result<Certificate, MessageError> {
    let all = signed.certificates.as_ref().map_or(&[][..], |all| all.0.as_slice());
    if all.len() > CERTIFICATES {
        return Err(MessageError::Malformed("too many certificates"));
    }
    let named = |certificate: &&Certificate| match &info.sid {
        SignerIdentifier::IssuerAndSerialNumber(by) => {
            let tbs = &certificate.tbs_certificate;
            tbs.issuer == by.issuer && tbs.serial_number == by.serial_number
        }
        SignerIdentifier::SubjectKeyIdentifier(_) => all.len() == 1,
    };
    let mut certificates = all.iter().filter_map(|choice| match choice {
        CertificateChoices::Certificate(certificate) => Some(certificate),
        CertificateChoices::Other(_) => None,
    });
    certificates.find(named).cloned().ok_or(MessageError::Malformed("its signer's certificate is missing"))
}

pub(super) fn check_signature(
    info: &SignerInfo,
    attributes: &Attributes,
    signer: &Certificate,
    content: &[u8],
) -> Result<(), MessageError> {
    let (hash, verifier) = match info.digest_alg.oid {
        ID_SHA_256 => (&SHA256, &RSA_PKCS1_2048_8192_SHA256),
        ID_SHA_384 => (&SHA384, &RSA_PKCS1_2048_8192_SHA384),
        ID_SHA_512 => (&SHA512, &RSA_PKCS1_2048_8192_SHA512),
        _ => return Err(MessageError::Algorithm("digest other than SHA-256, SHA-384 and SHA-512")),
    };
    let expected: OctetString = attribute(attributes, ID_MESSAGE_DIGEST)?
        .decode_as()
        .map_err(malformed("its digest is no octets"))?;
    if digest(hash, content).as_ref() != expected.as_bytes() {
        return Err(MessageError::Signature);
    }
    let spki = &signer.tbs_certificate.subject_public_key_info;
    if spki.algorithm.oid != RSA_ENCRYPTION {
        return Err(MessageError::Algorithm("signature other than RSA"));
    }
    // Signed is the encoding as a SET (RFC 5652, section 5.4).
    let signed = attributes.to_der().map_err(malformed("its attributes"))?;
    UnparsedPublicKey::new(verifier, spki.subject_public_key.raw_bytes())
        .verify(&signed, info.signature.as_bytes())
        .map_err(|_| MessageError::Signature)
}

/// The one value of an attribute.
pub(super) fn attribute(attributes: &Attributes, oid: ObjectIdentifier) -> Result<&Any, MessageError> {
    let mut found = attributes.iter().filter(|attribute| attribute.oid == oid);
    match (found.next().map(|attribute| attribute.values.as_slice()), found.next()) {
        (Some([value]), None) => Ok(value),
        _ => Err(MessageError::Malformed("an attribute is missing or there twice")),
    }
}

fn kind(attributes: &Attributes) -> Result<Kind, MessageError> {
    let number: PrintableString =
        attribute(attributes, ID_MESSAGE_TYPE)?.decode_as().map_err(malformed("its type"))?;
    Ok(match number.as_str() {
        "17" => Kind::RenewalReq,
        "19" => Kind::PkcsReq,
        "20" => Kind::CertPoll,
        "21" => Kind::GetCert,
        "22" => Kind::GetCrl,
        _ => return Err(MessageError::Malformed("its type is none that a client sends")),
    })
}

fn transaction(attributes: &Attributes) -> Result<PrintableString, MessageError> {
    let value = attribute(attributes, ID_TRANSACTION_ID)?;
    if value.tag() != Tag::PrintableString || value.value().len() > TRANSACTION_CHARS {
        return Err(MessageError::Malformed("its transaction id"));
    }
    value.decode_as().map_err(malformed("its transaction id"))
}

fn nonce(attributes: &Attributes) -> Result<OctetString, MessageError> {
    let nonce: OctetString =
        attribute(attributes, ID_SENDER_NONCE)?.decode_as().map_err(malformed("its nonce"))?;
    if nonce.as_bytes().len() > NONCE_BYTES { Err(MessageError::Malformed("its nonce")) } else { Ok(nonce) }
}
