//! Renewal: the next certificate for a key that auth knows.

use super::enroll::serial;
use super::{Admission, Auth, AuthError, settle};
use crate::domain::audit::{Action, Deed};
use crate::domain::challenge;
use crate::domain::renewal::{self, Claim, Proven, RenewalError};
use crate::domain::request::NodeKeys;
use crate::domain::revocation::Reason;
use crate::store::{Certificate, Change, Write};

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
        let renewed = renewal::renew(
            proven,
            &stored.record,
            revoked,
            node_keys,
            &self.authority(),
            now,
            &mut rand::rng(),
        );
        if let Err(RenewalError::Revoked) = renewed {
            self.refused_renewal(&certificate.principal).await?;
        }
        let (principal, leaf) = renewed?;
        let name = principal.resource_name();
        let deed = Deed {
            time: now,
            action: Action::Renew,
            actor: name.clone(),
            subject: name,
            detail: serial(&leaf),
        };
        let lost = principal.is_lost();
        let mut writes = vec![
            Write::PutPrincipal { principal: principal.clone(), expected: Some(stored.revision) },
            Write::AddCertificate(leaf.clone()),
        ];
        if lost {
            // Whoever is lost stays lost, by whichever certificate.
            let certificate = Certificate {
                serial: leaf.serial.clone(),
                key: leaf.key,
                principal: principal.resource_name(),
                issuer: leaf.issuer.clone(),
                not_after: leaf.not_after,
                revoke_time: None,
                der: None,
            };
            writes.push(Write::Revoke { certificate, time: now, reason: Reason::Lost });
        }
        self.store.commit(Change { writes, deed }).await?;
        if lost {
            self.wake.notify_waiters();
        }
        tracing::info!(principal = principal.resource_name(), "renewed");
        Ok(self.admission(principal, leaf, now))
    }

    async fn refused_renewal(&self, name: &str) -> Result<(), AuthError> {
        let deed = Deed {
            time: self.now(),
            action: Action::Refuse,
            actor: name.to_owned(),
            subject: name.to_owned(),
            detail: "a revoked certificate does not renew".to_owned(),
        };
        self.store.commit(Change { writes: Vec::new(), deed }).await?;
        Ok(())
    }
}
