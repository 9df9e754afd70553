//! Whom a verifier believes: the pinned root, and the signers whose certificates lead to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_proto::trust::v1::{Envelope, Signature, TrustBundle};
use muster_types::{Identity, NetworkId, Role, Timestamp};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::envelope::{self, EnvelopeError};
use crate::revocation::{RevocationError, Revocations};
use crate::roots;

/// id-kp-codeSigning, 1.3.6.1.5.5.7.3.3 (RFC 5280, section 4.2.1.12), in DER: signers have it and nobody else.
pub(crate) const CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];

/// Signers that one store keeps, and authorities that may lead to them; a network has a handful.
const SIGNERS: usize = 32;

/// Withdrawn keys that a bundle names: every key that a network ever had, had all of them leaked.
pub const WITHDRAWALS: usize = 64;

/// What the name of a withdrawal begins with; the key's id in hexadecimal follows.
const WITHDRAWN: &str = "withdrawn-";

/// The name in the certificate that withdraws a key.
pub fn withdrawal_name(key_id: &[u8]) -> String {
    format!("{WITHDRAWN}{}", envelope::show(key_id))
}

/// The key that a certificate (DER) withdraws, if that is what it does. Whether it may is another question.
pub fn withdrawn_by(certificate: &[u8]) -> Option<Bytes> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let identity = identity_of(&parsed).ok().filter(|identity| identity.role == Role::Signer)?;
    let digits = identity.name.strip_prefix(WITHDRAWN)?.as_bytes();
    data_encoding::HEXLOWER.decode(digits).ok().map(Bytes::from)
}

/// Why a trust bundle was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    #[error("the root certificate cannot be read: {0}")]
    Root(String),
    #[error("a signer's certificate cannot be read: {0}")]
    Certificate(String),
    #[error("the certificate of signer {name} does not lead to this network's root: {reason}")]
    Chain { name: String, reason: String },
    #[error("the certificate of signer {0} is not for signing")]
    Usage(String),
    #[error("{0} is no signer of this network")]
    Stranger(String),
    #[error(
        "the bundle has {0} certificates of a kind; {SIGNERS}, and {WITHDRAWALS} withdrawals, are the most"
    )]
    TooMany(usize),
}

/// The pinned roots, the signers that proved themselves against them, and who is not believed any more.
#[derive(Debug, Clone)]
pub struct TrustStore {
    network: NetworkId,
    pinned: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    signers: HashMap<Bytes, Signer>,
    /// Keys that count no longer, whatever a bundle says, each with the certificate (DER) that withdraws it.
    withdrawn: BTreeMap<Bytes, Bytes>,
    revocations: Arc<Revocations>,
}

#[derive(Debug, Clone)]
struct Signer {
    point: Vec<u8>,
}

impl TrustStore {
    /// A store that believes nobody but the holders of `roots`, yet.
    ///
    /// # Errors
    /// A root's certificate cannot be read.
    pub fn new(network: NetworkId, roots: &[CertificateDer<'_>]) -> Result<Self, TrustError> {
        let pinned = roots.iter().map(|root| root.clone().into_owned()).collect();
        let anchors = anchors(roots)?;
        let (signers, withdrawn) = (HashMap::new(), BTreeMap::new());
        Ok(Self { network, pinned, anchors, signers, withdrawn, revocations: Arc::default() })
    }

    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// Who is not admitted any more, as far as this store knows.
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// Takes over a list that another store of this network verified.
    pub fn set_revocations(&mut self, revocations: Arc<Revocations>) {
        self.revocations = revocations;
        self.doubt_revocations();
    }

    /// Takes over what another store of this network knew: who is revoked, and which keys were withdrawn.
    pub fn inherit(&mut self, before: &Self) {
        self.withdrawn.extend(before.withdrawn.clone());
        self.signers.retain(|id, _| !self.withdrawn.contains_key(id));
        self.set_revocations(before.revocations.clone());
    }

    /// Certificates (DER) that withdraw keys.
    pub fn withdrawals(&self) -> impl Iterator<Item = &Bytes> {
        self.withdrawn.values()
    }

    /// What a withdrawn key may have made up: a whole list by another one takes its place, whatever its number.
    fn doubt_revocations(&mut self) {
        if self.revocations.is_by(|key| self.withdrawn.contains_key(key)) {
            self.revocations = Arc::new(self.revocations.doubted());
        }
    }

    /// Takes in increments from any source, as far as they go; says whether one of them was news.
    ///
    /// # Errors
    /// The first increment that was not believed, or that does not follow what is known.
    pub fn revoke<'a>(
        &mut self,
        increments: impl IntoIterator<Item = &'a Envelope>,
    ) -> Result<bool, RevocationError> {
        let before = self.revocations.number();
        for increment in increments {
            if let Some(longer) = self.revocations.with(increment, self)? {
                self.revocations = Arc::new(longer);
            }
        }
        Ok(self.revocations.number() > before)
    }

    /// Takes in a bundle's signers, in place of those known before. Of its roots those count that a pinned one vouches for:
    /// roots change by the old root's signature only.
    ///
    /// # Errors
    /// A certificate does not lead to a pinned root, or is not a signer's; the store is then as before.
    pub fn load(&mut self, bundle: &TrustBundle, now: Timestamp) -> Result<(), TrustError> {
        let (most, withdrawals) =
            (bundle.signers.len().max(bundle.authorities.len()), bundle.withdrawals.len());
        if most > SIGNERS || withdrawals > WITHDRAWALS {
            return Err(TrustError::TooMany(most.max(withdrawals)));
        }
        let authorities: Vec<_> =
            bundle.authorities.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let believed = anchors(&roots::believed(&self.pinned, bundle, now))?;
        let before = std::mem::replace(&mut self.anchors, believed);
        let admitted = bundle
            .signers
            .iter()
            .map(|der| self.admit(&CertificateDer::from(der.to_vec()), &authorities, now))
            .collect::<Result<HashMap<_, _>, _>>();
        // They count also where the rest of the bundle does not.
        self.withdraw(&bundle.withdrawals, &authorities, now);
        self.signers = admitted.inspect_err(|_| self.anchors = before)?;
        self.signers.retain(|id, _| !self.withdrawn.contains_key(id));
        Ok(())
    }

    /// Believes these keys no longer. What does not prove itself withdraws nothing.
    fn withdraw(&mut self, withdrawals: &[Bytes], authorities: &[CertificateDer<'_>], now: Timestamp) {
        for der in withdrawals {
            let Some(key) = withdrawn_by(der) else { continue };
            let known = self.withdrawn.contains_key(&key) || self.withdrawn.len() >= WITHDRAWALS;
            if !known && self.verify(&CertificateDer::from(der.to_vec()), authorities, now).is_ok() {
                self.signers.remove(&key);
                self.withdrawn.insert(key, der.clone());
            }
        }
        self.doubt_revocations();
    }

    fn admit(
        &self,
        certificate: &CertificateDer<'_>,
        authorities: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<(Bytes, Signer), TrustError> {
        if let Some(key) = withdrawn_by(certificate) {
            return Err(TrustError::Stranger(withdrawal_name(&key)));
        }
        self.verify(certificate, authorities, now)
    }

    /// Whether a certificate is a signer's, of this network, and leads to a pinned root.
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        authorities: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<(Bytes, Signer), TrustError> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| TrustError::Certificate(error.to_string()))?;
        let identity = identity_of(&parsed).map_err(TrustError::Certificate)?;
        if identity.role != Role::Signer || identity.network != self.network {
            return Err(TrustError::Stranger(identity.to_string()));
        }
        let chain = |reason: webpki::Error| TrustError::Chain {
            name: identity.name.clone(),
            reason: reason.to_string(),
        };
        if !signs_code(&parsed) {
            return Err(TrustError::Usage(identity.name.clone()));
        }
        let end_entity = EndEntityCert::try_from(certificate).map_err(chain)?;
        let seconds = u64::try_from(now.as_micros() / 1_000_000).unwrap_or(0);
        end_entity
            .verify_for_usage(
                &[webpki::ring::ECDSA_P256_SHA256],
                &self.anchors,
                authorities,
                UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
                // webpki asks this of issuing authorities too, which name no purpose; the signer's own is checked above.
                KeyUsage::required_if_present(CODE_SIGNING),
                None,
                None,
            )
            .map_err(chain)?;
        let spki = parsed.public_key();
        let point = spki.subject_public_key.data.to_vec();
        Ok((envelope::key_id(spki.raw), Signer { point }))
    }

    /// Whether one of its signatures is by a signer that this store knows.
    pub fn knows_signer(&self, sealed: &Envelope) -> bool {
        sealed.signatures.iter().any(|signature| self.signers.contains_key(&signature.key_id))
    }

    /// Whether a key that was withdrawn signed it, and none that counts.
    pub fn is_withdrawn(&self, sealed: &Envelope) -> bool {
        let withdrawn = |signature: &Signature| self.withdrawn.contains_key(&signature.key_id);
        !self.knows_signer(sealed) && sealed.signatures.iter().any(withdrawn)
    }

    /// Opens an envelope that a signer of this network signed.
    ///
    /// # Errors
    /// The type is another, the signer is unknown or withdrawn, or the signature does not fit.
    pub fn open(&self, sealed: &Envelope, expected: &'static str) -> Result<Bytes, EnvelopeError> {
        if self.is_withdrawn(sealed) {
            let keys = sealed.signatures.iter().map(|signature| envelope::show(&signature.key_id));
            return Err(EnvelopeError::Withdrawn(keys.collect::<Vec<_>>().join(", ")));
        }
        envelope::open(sealed, expected, |id| {
            let signer = self.signers.get(id)?;
            Some(UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, signer.point.clone()))
        })
    }
}

fn anchors(roots: &[CertificateDer<'_>]) -> Result<Vec<TrustAnchor<'static>>, TrustError> {
    roots.iter().map(|root| Ok(anchor_from_trusted_cert(root).map_err(root_error)?.to_owned())).collect()
}

pub(crate) fn signs_code(certificate: &X509Certificate<'_>) -> bool {
    matches!(certificate.extended_key_usage(), Ok(Some(usage)) if usage.value.code_signing)
}

fn root_error(error: webpki::Error) -> TrustError {
    TrustError::Root(error.to_string())
}

/// The one identity that a certificate names in its URI subject alternative name.
///
/// # Errors
/// It names none, more than one, or something else; the text says which.
pub fn identity_of(certificate: &X509Certificate<'_>) -> Result<Identity, String> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| error.to_string())?
        .ok_or("it has no subject alternative name")?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next().ok_or("it names no URI")?;
    if uris.next().is_some() {
        return Err("it names more than one URI".to_owned());
    }
    uri.parse::<Identity>().map_err(|error| error.to_string())
}
