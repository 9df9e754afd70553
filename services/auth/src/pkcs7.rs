//! CMS (RFC 5652) as SCEP and EST use it to carry certificates: SignedData that nobody signed.

use cms::cert::CertificateChoices;
use cms::content_info::{CmsVersion, ContentInfo};
use cms::revocation::{RevocationInfoChoice, RevocationInfoChoices};
use cms::signed_data::{CertificateSet, EncapsulatedContentInfo, SignedData, SignerInfos};
use const_oid::db::rfc5911::{ID_DATA, ID_SIGNED_DATA};
use der::asn1::SetOfVec;
use der::{Any, Decode, Encode};
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;

/// Certificates (DER), and nothing else.
///
/// # Errors
/// One of them is no certificate.
pub(crate) fn certificates(ders: &[&[u8]]) -> der::Result<Vec<u8>> {
    bag(ders, None)
}

/// A revocation list (DER), and nothing else.
///
/// # Errors
/// It is none.
pub(crate) fn revocation_list(der: &[u8]) -> der::Result<Vec<u8>> {
    bag(&[], Some(der))
}

fn bag(ders: &[&[u8]], crl: Option<&[u8]>) -> der::Result<Vec<u8>> {
    let certificates =
        ders.iter().map(|der| Ok(CertificateChoices::Certificate(Certificate::from_der(der)?)));
    let certificates = certificates.collect::<der::Result<Vec<_>>>()?;
    let crls = match crl {
        Some(der) => {
            let list = RevocationInfoChoice::Crl(CertificateList::from_der(der)?);
            Some(RevocationInfoChoices::try_from(vec![list])?)
        }
        None => None,
    };
    let signed = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::default(),
        encap_content_info: EncapsulatedContentInfo { econtent_type: ID_DATA, econtent: None },
        certificates: (!certificates.is_empty())
            .then(|| CertificateSet::try_from(certificates))
            .transpose()?,
        crls,
        signer_infos: SignerInfos(SetOfVec::default()),
    };
    ContentInfo { content_type: ID_SIGNED_DATA, content: Any::encode_from(&signed)? }.to_der()
}
