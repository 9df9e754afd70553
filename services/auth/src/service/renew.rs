//! Renewal and its end: revocation.

use super::enroll::serial;
use super::{Admission, Auth, AuthError, settle};
use crate::domain::audit::{Action, Deed};
use crate::domain::challenge;
use crate::domain::principal::Revocation;
use crate::domain::renewal::{self, Claim, Proven, RenewalError};
use crate::domain::request::NodeKeys;
use crate::store::{Change, Write};

impl Auth {
    /// A nonce to renew by, good for a minute at any replica.
    pub fn challenge(&self) -> Vec<u8> {
        challenge::issue(&self.authority(), self.now(), &mut rand::rng())
    }

    /// Gives the next certificate to the key of one that auth issued.
    ///
    /// # Errors
    /// The proof does not hold, the certificate is too old, unknown or revoked, or the store does not answer.
    pub async fn renew(&self, claim: Claim<'_>, node_keys: Option<NodeKeys>) -> Result<Admission, AuthError> {
        let proven = claim.prove(&self.authority(), self.now())?;
        settle(|| self.try_renew(&proven, node_keys)).await
    }

    async fn try_renew(&self, proven: &Proven, node_keys: Option<NodeKeys>) -> Result<Admission, AuthError> {
        let now = self.now();
        let certificate = self.store.certificate(&proven.serial).await?.ok_or(RenewalError::Unknown)?;
        let stored = self.store.principal(&certificate.principal).await?.ok_or(RenewalError::Unknown)?;
        let revoked = certificate.revoke_time.is_some();
        let (principal, leaf) = renewal::renew(
            proven,
            &stored.record,
            revoked,
            node_keys,
            &self.authority(),
            now,
            &mut rand::rng(),
        )?;
        let name = principal.resource_name();
        let deed = Deed {
            time: now,
            action: Action::Renew,
            actor: name.clone(),
            subject: name,
            detail: serial(&leaf),
        };
        let writes = vec![
            Write::PutPrincipal { principal: principal.clone(), expected: Some(stored.revision) },
            Write::AddCertificate(leaf.clone()),
        ];
        self.store.commit(Change { writes, deed }).await?;
        tracing::info!(principal = principal.resource_name(), "renewed");
        Ok(self.admission(principal, leaf, now))
    }

    /// Ends a principal's admission: none of its certificates renews, none of its keys enrolls again.
    ///
    /// # Errors
    /// There is no such principal, or the store does not answer.
    pub async fn revoke(&self, name: &str, actor: &str, reason: &str) -> Result<(), AuthError> {
        settle(|| self.try_revoke(name, actor, reason)).await
    }

    async fn try_revoke(&self, name: &str, actor: &str, reason: &str) -> Result<(), AuthError> {
        let now = self.now();
        let stored = self.store.principal(name).await?;
        let stored = stored.ok_or_else(|| AuthError::NotFound(name.to_owned()))?;
        let mut principal = stored.record;
        principal.revocation = Some(Revocation { time: now, reason: reason.to_owned() });
        let deed = Deed {
            time: now,
            action: Action::Revoke,
            actor: actor.to_owned(),
            subject: name.to_owned(),
            detail: reason.to_owned(),
        };
        let writes = vec![
            Write::PutPrincipal { principal, expected: Some(stored.revision) },
            Write::RevokeCertificates { principal: name.to_owned(), time: now },
        ];
        self.store.commit(Change { writes, deed }).await?;
        tracing::info!(principal = name, reason, "revoked");
        Ok(())
    }
}
