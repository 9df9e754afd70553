//! What auth does by itself: signers' certificates renewed in time, records forgotten that nobody needs.

use std::sync::Arc;
use std::time::Duration;

use muster_types::limits::CERTIFICATE_LIFETIME;

use super::{Auth, AuthError, OURSELVES};
use crate::domain::Authority;
use crate::domain::audit::{Action, Deed};
use crate::domain::renewal::GRACE;
use crate::domain::revocation::EXPIRY_TOLERANCE;
use crate::store::{Change, Horizon, StoreError, Write};

/// How long the first answer to a request id is remembered.
const REQUEST_MEMORY: Duration = Duration::from_secs(24 * 3_600);

/// How long a link is shown after it expired.
const LINK_MEMORY: Duration = Duration::from_secs(90 * 24 * 3_600);

/// Records of each kind forgotten in one transaction: short, so that enrollments do not wait.
const PURGE_BATCH: u32 = 500;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tended {
    pub signers_renewed: usize,
    pub chains_witnessed: usize,
    pub records_forgotten: u64,
}

impl Auth {
    /// Does what is due. Safe at any time and on any replica.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn tend(&self) -> Result<Tended, AuthError> {
        let signers_renewed = self.renew_signers().await?;
        let chains_witnessed = self.witness().await?;
        let now = self.now();
        let horizon = Horizon {
            certificates: now - GRACE - CERTIFICATE_LIFETIME,
            requests: now - REQUEST_MEMORY,
            links: now - LINK_MEMORY,
            revocations: now - EXPIRY_TOLERANCE,
        };
        let records_forgotten = self.store.purge(horizon, PURGE_BATCH).await?;
        Ok(Tended { signers_renewed, chains_witnessed, records_forgotten })
    }

    async fn renew_signers(&self) -> Result<usize, AuthError> {
        let now = self.now();
        let keys = self.store.keys().await?;
        let renewed = self.authority().renew_signers(&keys, &self.vault, now, &mut rand::rng())?;
        let count = renewed.len();
        for key in renewed {
            let deed = Deed {
                time: now,
                action: Action::RenewSigner,
                actor: OURSELVES.to_owned(),
                subject: format!("signers/{}", key.kind.as_str()),
                detail: format!("generation {}", key.generation),
            };
            match self.store.commit(Change { writes: vec![Write::AddKey(key)], deed }).await {
                // Another replica did it: its certificate is as good.
                Ok(_) | Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.refresh().await?;
        Ok(count)
    }

    /// Goes on with the keys that are in the store by now; says whether there were new ones.
    ///
    /// # Errors
    /// The store does not answer, or a key is damaged.
    pub async fn refresh(&self) -> Result<bool, AuthError> {
        let keys = self.store.keys().await?;
        let changed = Authority::version_of(&keys) != self.authority().version();
        if changed {
            self.authority.store(Arc::new(Authority::unseal(&keys, &self.vault)?));
        }
        Ok(changed)
    }
}
