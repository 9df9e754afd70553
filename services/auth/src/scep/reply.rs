//! SCEP's answer (RFC 8894, section 3.3): what was issued, enveloped for the asker's key, signed by the RA.

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockEncryptMut, KeyIvInit};
use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::enveloped_data::{
    EncryptedContentInfo, EnvelopedData, KeyTransRecipientInfo, RecipientIdentifier, RecipientInfo,
    RecipientInfos,
};
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5911::{
    ID_AES_128_CBC, ID_AES_256_CBC, ID_CONTENT_TYPE, ID_DATA, ID_ENVELOPED_DATA, ID_MESSAGE_DIGEST,
    ID_SIGNED_DATA,
};
use const_oid::db::rfc5912::{ID_SHA_256, RSA_ENCRYPTION};
use const_oid::db::rfc8894::{
    ID_FAIL_INFO, ID_MESSAGE_TYPE, ID_PKI_STATUS, ID_RECIPIENT_NONCE, ID_SENDER_NONCE, ID_TRANSACTION_ID,
};
use der::asn1::{Null, OctetString, PrintableString, SetOfVec};
use der::{Any, Decode, Encode, EncodeValue, Tagged};
use rand::RngCore;
use rsa::pkcs1v15::SigningKey;
use rsa::pkcs8::DecodePublicKey;
use rsa::signature::{SignatureEncoding, Signer};
use rsa::{Pkcs1v15Encrypt, RsaPrivateKey, RsaPublicKey};
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::attr::{Attribute, Attributes};
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::message::Message;

/// messageType of an answer.
const CERT_REP: &str = "3";

/// Bytes of a nonce (RFC 8894, section 3.2.1.5).
const NONCE_BYTES: usize = 16;

/// Why a request failed (RFC 8894, section 3.2.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "the names are the RFC's")]
pub(crate) enum Failure {
    BadAlg = 0,
    BadMessageCheck = 1,
    BadRequest = 2,
    BadCertId = 4,
}

/// What the asker is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Certificates or a revocation list, as CMS.
    Success(Vec<u8>),
    Failure(Failure),
    /// An operator's word is awaited: the asker polls.
    Pending,
}

/// The answer to `message`, DER.
///
/// # Errors
/// The asker's key cannot be encrypted to, or something could not be encoded.
pub(crate) fn reply(
    message: &Message,
    verdict: &Verdict,
    key: &RsaPrivateKey,
    certificate: &[u8],
) -> Result<Vec<u8>, ReplyError> {
    let (status, content) = match verdict {
        Verdict::Success(inner) => ("0", envelope(inner, &message.signer, message.long_keys)?),
        Verdict::Failure(_) => ("2", Vec::new()),
        Verdict::Pending => ("3", Vec::new()),
    };
    let mut nonce = [0; NONCE_BYTES];
    rand::rng().fill_bytes(&mut nonce);
    let mut attributes = vec![
        one(ID_MESSAGE_TYPE, &PrintableString::new(CERT_REP)?)?,
        one(ID_PKI_STATUS, &PrintableString::new(status)?)?,
        one(ID_TRANSACTION_ID, &message.transaction)?,
        one(ID_SENDER_NONCE, &OctetString::new(nonce)?)?,
        one(ID_RECIPIENT_NONCE, &message.sender_nonce)?,
    ];
    if let Verdict::Failure(failure) = verdict {
        attributes.push(one(ID_FAIL_INFO, &PrintableString::new(&(*failure as u8).to_string())?)?);
    }
    sign(&content, attributes, key, certificate)
}

/// Why an answer could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplyError {
    #[error("the answer cannot be encoded: {0}")]
    Encoding(#[from] der::Error),
    #[error("the asker's key cannot be encrypted to")]
    Key,
}

pub(super) fn one<T: Tagged + EncodeValue>(oid: ObjectIdentifier, value: &T) -> der::Result<Attribute> {
    Ok(Attribute { oid, values: SetOfVec::try_from(vec![Any::encode_from(value)?])? })
}

/// Signs `content` with `attributes` by the RA, whose certificate goes along. Also for the next authority's certificate.
///
/// # Errors
/// Something could not be encoded.
pub(crate) fn sign(
    content: &[u8],
    mut attributes: Vec<Attribute>,
    key: &RsaPrivateKey,
    certificate: &[u8],
) -> Result<Vec<u8>, ReplyError> {
    let certificate = Certificate::from_der(certificate)?;
    attributes.push(one(ID_CONTENT_TYPE, &ID_DATA)?);
    attributes.push(one(ID_MESSAGE_DIGEST, &OctetString::new(Sha256::digest(content).to_vec())?)?);
    let attributes: Attributes = SetOfVec::try_from(attributes)?;
    let signature = SigningKey::<Sha256>::new(key.clone()).sign(&attributes.to_der()?);
    let digest = AlgorithmIdentifierOwned { oid: ID_SHA_256, parameters: None };
    let info = SignerInfo {
        version: CmsVersion::V1,
        sid: SignerIdentifier::IssuerAndSerialNumber(name_of(&certificate)),
        digest_alg: digest.clone(),
        signed_attrs: Some(attributes),
        // Clients up to strongSwan 5.9.10 know no other name for RSA with the digest above; RFC 3370, section 3.2, has it.
        signature_algorithm: rsa_encryption()?,
        signature: OctetString::new(signature.to_vec())?,
        unsigned_attrs: None,
    };
    let signed = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::try_from(vec![digest])?,
        // An empty content is there too: the digest would else cover nothing that a client finds.
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: ID_DATA,
            econtent: Some(Any::encode_from(&OctetString::new(content)?)?),
        },
        certificates: Some(CertificateSet::try_from(vec![CertificateChoices::Certificate(certificate)])?),
        crls: None,
        signer_infos: SignerInfos::try_from(vec![info])?,
    };
    Ok(ContentInfo { content_type: ID_SIGNED_DATA, content: Any::encode_from(&signed)? }.to_der()?)
}

/// Envelopes `content` for the key of `to`.
pub(super) fn envelope(content: &[u8], to: &Certificate, long_keys: bool) -> Result<Vec<u8>, ReplyError> {
    let spki = to.tbs_certificate.subject_public_key_info.to_der()?;
    let public = RsaPublicKey::from_public_key_der(&spki).map_err(|_| ReplyError::Key)?;
    let mut key = vec![0; if long_keys { 32 } else { 16 }];
    let mut iv = [0; 16];
    rand::rng().fill_bytes(&mut key);
    rand::rng().fill_bytes(&mut iv);
    let sealed_key =
        public.encrypt(&mut rsa::rand_core::OsRng, Pkcs1v15Encrypt, &key).map_err(|_| ReplyError::Key)?;
    let (oid, sealed) = encrypt(&key, &iv, content)?;
    let recipient = KeyTransRecipientInfo {
        version: CmsVersion::V0,
        rid: RecipientIdentifier::IssuerAndSerialNumber(name_of(to)),
        key_enc_alg: rsa_encryption()?,
        enc_key: OctetString::new(sealed_key)?,
    };
    let enveloped = EnvelopedData {
        version: CmsVersion::V0,
        originator_info: None,
        recip_infos: RecipientInfos::try_from(vec![RecipientInfo::Ktri(recipient)])?,
        encrypted_content: EncryptedContentInfo {
            content_type: ID_DATA,
            content_enc_alg: AlgorithmIdentifierOwned {
                oid,
                parameters: Some(Any::encode_from(&OctetString::new(iv)?)?),
            },
            encrypted_content: Some(OctetString::new(sealed)?),
        },
        unprotected_attrs: None,
    };
    Ok(ContentInfo { content_type: ID_ENVELOPED_DATA, content: Any::encode_from(&enveloped)? }.to_der()?)
}

fn encrypt(key: &[u8], iv: &[u8], content: &[u8]) -> Result<(ObjectIdentifier, Vec<u8>), ReplyError> {
    if key.len() == 16 {
        let cipher = cbc::Encryptor::<aes::Aes128>::new_from_slices(key, iv).map_err(|_| ReplyError::Key)?;
        return Ok((ID_AES_128_CBC, cipher.encrypt_padded_vec_mut::<Pkcs7>(content)));
    }
    let cipher = cbc::Encryptor::<aes::Aes256>::new_from_slices(key, iv).map_err(|_| ReplyError::Key)?;
    Ok((ID_AES_256_CBC, cipher.encrypt_padded_vec_mut::<Pkcs7>(content)))
}

fn rsa_encryption() -> der::Result<AlgorithmIdentifierOwned> {
    Ok(AlgorithmIdentifierOwned { oid: RSA_ENCRYPTION, parameters: Some(Any::encode_from(&Null)?) })
}

fn name_of(certificate: &Certificate) -> IssuerAndSerialNumber {
    let tbs = &certificate.tbs_certificate;
    IssuerAndSerialNumber { issuer: tbs.issuer.clone(), serial_number: tbs.serial_number.clone() }
}
