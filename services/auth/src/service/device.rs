//! Devices without our agent, as SCEP and EST bring them: a challenge is a link that their protocols can carry.

use muster_types::{Timestamp, Token};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Auth, AuthError, settle};
use crate::domain::Link;
use crate::domain::audit::{Action, Deed};
use crate::domain::device::{DeviceError, DeviceLeaf, DeviceRequest};
use crate::domain::leaf::Serial;
use crate::domain::link::{LinkRefusal, Presenter, Protocol, Redemption, Use};
use crate::domain::renewal::RenewalError;
use crate::domain::request::{KeyHash, sha256};
use crate::store::{Change, Write};

/// A device that asks.
#[derive(Debug, Clone)]
pub struct DeviceApplicant {
    pub request: DeviceRequest,
    /// The address it came from, for people.
    pub source: String,
}

/// The certificate that a device got, with its issuer's.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// DER
    pub certificate: Vec<u8>,
    /// DER, of the authority that signed it.
    pub issuer: Vec<u8>,
}

impl Auth {
    /// Gives a device the certificate that its challenge is for; repeats it to the key that lost it.
    ///
    /// # Errors
    /// The challenge does not enroll, the request asks for somebody else's name, an operator's word is missing, or the store
    /// does not answer.
    pub async fn enroll_device(
        &self,
        challenge: &Token,
        applicant: &DeviceApplicant,
    ) -> Result<Admitted, AuthError> {
        settle(|| self.try_enroll_device(challenge, applicant)).await
    }

    async fn try_enroll_device(
        &self,
        challenge: &Token,
        applicant: &DeviceApplicant,
    ) -> Result<Admitted, AuthError> {
        let now = self.now();
        let stored = self.store.link_by_token(&challenge.hash()).await?.ok_or(AuthError::UnknownToken)?;
        let link = &stored.record;
        let who = presenter(link, applicant.request.key());
        let usage = self.store.link_use(&link.id, who.key).await?;
        match link.redeem(usage.as_ref(), who, now) {
            Ok(Redemption::Repeated(usage)) => self.repeat_device(usage).await,
            Ok(Redemption::First) => {
                let checked = applicant.request.check(&link.terms.display_name, host_name(link));
                if let Err(error) = checked {
                    self.refuse_device(link, &error, &applicant.source, now).await?;
                    return Err(error.into());
                }
                self.approved(link, who, &applicant.source).await?;
                self.admit_device(link, &applicant.request, &applicant.source, now).await
            }
            Err(refusal) => {
                let source = format!("{} {}", applicant.source, applicant.request.common_name);
                self.refuse_link(stored, refusal, source, now).await?;
                Err(refusal.into())
            }
        }
    }

    /// The answer to a device whose enrollment waited for an operator's word. Its key is proven by whoever calls.
    ///
    /// # Errors
    /// It still waits, was denied, or never asked.
    pub async fn poll_device(&self, spki: &[u8], source: &str) -> Result<Admitted, AuthError> {
        settle(|| self.try_poll_device(spki, source)).await
    }

    async fn try_poll_device(&self, spki: &[u8], source: &str) -> Result<Admitted, AuthError> {
        let (now, key) = (self.now(), KeyHash(sha256(spki)));
        let approval = self.store.approval_by_key(key).await?;
        let approval = approval.ok_or_else(|| AuthError::NotFound("enrollment by this key".to_owned()))?;
        let stored = self.store.link(&approval.record.link).await?;
        let link = stored.ok_or(LinkRefusal::Expired)?.record;
        let usage = self.store.link_use(&link.id, key).await?;
        match link.redeem(usage.as_ref(), presenter(&link, key), now)? {
            Redemption::Repeated(usage) => self.repeat_device(usage).await,
            Redemption::First => {
                approval.record.check()?;
                let request = DeviceRequest::bare(&link.terms.display_name, spki)?;
                self.admit_device(&link, &request, source, now).await
            }
        }
    }

    async fn admit_device(
        &self,
        link: &Link,
        request: &DeviceRequest,
        source: &str,
        now: Timestamp,
    ) -> Result<Admitted, AuthError> {
        let leaf = request.issue(&self.authority(), now, &mut rand::rng())?;
        let usage =
            Use { time: now, key: leaf.key, enrolled: leaf.principal.clone(), certificate: leaf.der.clone() };
        let uses = Write::UseLink { link: link.id.clone(), usage };
        self.keep_device(leaf, Action::Enroll, link.resource_name(), source, vec![uses]).await
    }

    async fn keep_device(
        &self,
        leaf: DeviceLeaf,
        action: Action,
        actor: String,
        source: &str,
        mut writes: Vec<Write>,
    ) -> Result<Admitted, AuthError> {
        let serial = data_encoding::HEXLOWER.encode(&leaf.serial.0);
        let deed = Deed {
            time: self.now(),
            action,
            actor,
            subject: leaf.principal.clone(),
            detail: format!("serial {serial}, from {source}"),
        };
        writes.push(Write::AddDeviceCertificate(leaf.clone()));
        self.store.commit(Change { writes, deed }).await?;
        tracing::info!(device = leaf.principal, action = action.as_str(), "gave a device its certificate");
        Ok(self.admitted(leaf.der))
    }

    async fn repeat_device(&self, usage: &Use) -> Result<Admitted, AuthError> {
        if self.is_revoked(&usage.certificate).await? {
            return Err(RenewalError::Revoked.into());
        }
        Ok(self.admitted(usage.certificate.clone()))
    }

    fn admitted(&self, certificate: Vec<u8>) -> Admitted {
        let authority = self.authority();
        let signer = authority.devices().iter().find(|one| one.signed(&certificate));
        let issuer = signer.or(authority.devices().first()).map(|one| one.certificate.clone());
        Admitted { certificate, issuer: issuer.unwrap_or_default() }
    }

    /// Whether a certificate (DER) was revoked, or is none that we know.
    async fn is_revoked(&self, der: &[u8]) -> Result<bool, AuthError> {
        let Ok((_, parsed)) = X509Certificate::from_der(der) else { return Ok(true) };
        let known = self.store.certificate(&Serial(parsed.raw_serial().to_vec())).await?;
        Ok(known.is_none_or(|known| known.revoke_time.is_some()))
    }

    /// The next certificate of a device that proved (by TLS or CMS) to hold the key of `current` (DER).
    ///
    /// # Errors
    /// The present certificate is none of ours, has expired or was revoked, or the request is for somebody else.
    pub async fn renew_device(
        &self,
        current: &[u8],
        request: &DeviceRequest,
        source: &str,
    ) -> Result<Admitted, AuthError> {
        let now = self.now();
        let (_, parsed) = X509Certificate::from_der(current).map_err(|_| RenewalError::Certificate)?;
        if !self.authority().signed_device(&parsed) {
            return Err(RenewalError::Certificate.into());
        }
        let expiry =
            Timestamp::from_micros(parsed.validity().not_after.timestamp().saturating_mul(1_000_000));
        if now > expiry {
            return Err(RenewalError::TooLate.into());
        }
        if self.is_revoked(current).await? {
            return Err(RenewalError::Revoked.into());
        }
        let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let name = name.ok_or(RenewalError::Certificate)?;
        request.check(name, dns_names(&parsed))?;
        let leaf = request.issue(&self.authority(), now, &mut rand::rng())?;
        let actor = leaf.principal.clone();
        self.keep_device(leaf, Action::Renew, actor, source, Vec::new()).await
    }

    async fn refuse_device(
        &self,
        link: &Link,
        error: &DeviceError,
        source: &str,
        now: Timestamp,
    ) -> Result<(), AuthError> {
        let deed = Deed {
            time: now,
            action: Action::Refuse,
            actor: format!("sources/{source}"),
            subject: link.resource_name(),
            detail: error.to_string(),
        };
        self.store.commit(Change { writes: Vec::new(), deed }).await?;
        Ok(())
    }

    /// A device's certificate by its serial number, DER.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn device_certificate(&self, serial: &[u8]) -> Result<Option<Vec<u8>>, AuthError> {
        Ok(self.store.certificate(&Serial(serial.to_vec())).await?.and_then(|known| known.der))
    }
}

/// A device says nothing of itself but its key; whom the challenge is for was checked by the request's own names.
fn presenter(link: &Link, key: KeyHash) -> Presenter<'_> {
    let host_name = &link.terms.binding.host_name;
    Presenter { key, host_name, hardware_serial: "", protocol: Protocol::Challenge }
}

/// The DNS name that a challenge grants beside its common name.
fn host_name(link: &Link) -> Option<&str> {
    Some(link.terms.binding.host_name.as_str()).filter(|name| !name.is_empty())
}

fn dns_names<'a>(certificate: &'a X509Certificate<'_>) -> Vec<&'a str> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.into_iter().flat_map(|names| &names.value.general_names);
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
        .collect()
}
