//! Redeeming a link.

use muster_kit::crash;
use muster_types::{Timestamp, Token};

use super::{Admission, Auth, AuthError, settle};
use crate::domain::Link;
use crate::domain::audit::{Action, Deed};
use crate::domain::enrollment::{self, Applicant, Enrollment, EnrollmentError, KeyHolder};
use crate::domain::leaf::Leaf;
use crate::domain::link::{LinkRefusal, Redemption, Use};
use crate::domain::request::KeyHash;
use crate::store::{Change, Revision, StoreError, Stored, Write};

impl Auth {
    /// Enrolls whoever presents a link's token and proves a key; repeats the answer to the key that lost it.
    ///
    /// # Errors
    /// The link does not enroll, the applicant's request or key is refused, an operator's word is missing, or the store does
    /// not answer.
    pub async fn enroll(&self, token: &Token, applicant: &Applicant) -> Result<Admission, AuthError> {
        settle(|| self.try_enroll(token, applicant)).await
    }

    async fn try_enroll(&self, token: &Token, applicant: &Applicant) -> Result<Admission, AuthError> {
        let now = self.now();
        let who = applicant.presenter();
        let stored = self.store.link_by_token(&token.hash()).await?.ok_or(AuthError::UnknownToken)?;
        let usage = self.store.link_use(&stored.record.id, who.key).await?;
        let link = &stored.record;
        match link.redeem(usage.as_ref(), who, now) {
            Ok(Redemption::Repeated(usage)) => self.repeat(usage, now).await,
            Ok(Redemption::First) => {
                applicant.check(link.terms.role)?;
                self.approved(link, applicant.presenter(), &applicant.source).await?;
                self.admit(link, applicant, now).await
            }
            Err(refusal) => {
                let source = format!("{} {}", applicant.source, applicant.host_name);
                self.refuse_link(stored, refusal, source, now).await?;
                Err(refusal.into())
            }
        }
    }

    /// Whoever presents a link in vain held it: that stands in the log, and if others used it up, at the link as well.
    pub(super) async fn refuse_link(
        &self,
        stored: Stored<Link>,
        refusal: LinkRefusal,
        source: String,
        now: Timestamp,
    ) -> Result<(), AuthError> {
        let Stored { record: mut link, revision } = stored;
        let deed = Deed {
            time: now,
            action: Action::Refuse,
            actor: format!("sources/{}", source.split(' ').next().unwrap_or_default()),
            subject: link.resource_name(),
            detail: format!("{refusal}; presented by {}", source.trim()),
        };
        let mut writes = Vec::new();
        if refusal == LinkRefusal::Used {
            let enrolled = link.last_use.as_ref().map(|usage| usage.enrolled.clone()).unwrap_or_default();
            tracing::warn!(
                link = link.id,
                source,
                enrolled,
                "a used link was presented by another key: one of the two should not have it"
            );
            link.contested(source, now);
            writes.push(Write::ReplaceLink { link, expected: revision });
        }
        match self.store.commit(Change { writes, deed: deed.clone() }).await {
            // Many race for one link: that it is contested says whoever comes through.
            Err(StoreError::Conflict) => self.store.commit(Change { writes: Vec::new(), deed }).await?,
            committed => committed?,
        };
        Ok(())
    }

    async fn admit(
        &self,
        link: &Link,
        applicant: &Applicant,
        now: Timestamp,
    ) -> Result<Admission, AuthError> {
        let authority = self.authority();
        let holder = self.key_holder(applicant.request.key().hash()).await?;
        let identity = enrollment::grant(link, holder.as_ref(), &authority, &mut rand::rng())?;
        let before = self.store.principal(&identity.resource_name()).await?;
        let (expected, before): (Option<Revision>, _) =
            before.map(|stored| (stored.revision, stored.record)).unzip();
        let Enrollment { usage, principal, leaf } = enrollment::enroll(
            link,
            applicant,
            identity,
            before.as_ref(),
            &authority,
            now,
            &mut rand::rng(),
        )?;
        let deed = Deed {
            time: now,
            action: Action::Enroll,
            actor: link.resource_name(),
            subject: principal.resource_name(),
            detail: format!("{}, from {}", serial(&leaf), applicant.source),
        };
        let writes = vec![
            Write::UseLink { link: link.id.clone(), usage },
            Write::PutPrincipal { principal: principal.clone(), expected },
            Write::AddCertificate(leaf.clone()),
        ];
        crash::point("auth.enroll.before-commit");
        self.store.commit(Change { writes, deed }).await?;
        crash::point("auth.enroll.after-commit");
        tracing::info!(principal = principal.resource_name(), host = principal.host_name, "enrolled");
        Ok(self.admission(principal, leaf, now))
    }

    /// The answer of an enrollment that was done, from what was stored.
    async fn repeat(&self, usage: &Use, now: Timestamp) -> Result<Admission, AuthError> {
        let principal = self.store.principal(&usage.enrolled).await?.ok_or(LinkRefusal::Used)?.record;
        let leaf = Leaf::read(&usage.certificate)
            .ok_or_else(|| StoreError::Corrupt(format!("the certificate of {}", usage.enrolled)))?;
        let certificate = self.store.certificate(&leaf.serial).await?.ok_or(LinkRefusal::Used)?;
        if principal.revocation.is_some() || certificate.revoke_time.is_some() {
            return Err(EnrollmentError::KeyRevoked.into());
        }
        tracing::info!(principal = usage.enrolled, "repeated the answer of an enrollment");
        Ok(self.admission(principal, leaf, now))
    }

    async fn key_holder(&self, key: KeyHash) -> Result<Option<KeyHolder>, AuthError> {
        let Some(certificate) = self.store.certificate_by_key(key).await? else { return Ok(None) };
        let principal = self.store.principal(&certificate.principal).await?;
        let key_revoked = certificate.revoke_time.is_some();
        Ok(principal.map(|stored| KeyHolder { principal: stored.record, key_revoked }))
    }
}

/// A certificate's serial as the audit log shows it.
pub(super) fn serial(leaf: &Leaf) -> String {
    format!("serial {}", data_encoding::HEXLOWER.encode(&leaf.serial.0))
}
