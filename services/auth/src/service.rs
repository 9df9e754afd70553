//! What auth does for its callers: read, let the domain decide, commit, answer. Knows no RPC.
//!
//! A commit that finds its record changed meanwhile is decided again on what is there then.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use muster_types::Timestamp;
use tokio::sync::Notify;

use crate::domain::approval::ApprovalError;
use crate::domain::audit::{Action, Deed};
use crate::domain::authority::AuthorityError;
use crate::domain::custody;
use crate::domain::device::DeviceError;
use crate::domain::enrollment::EnrollmentError;
use crate::domain::founding;
use crate::domain::key::{KeyKind, StoredKey};
use crate::domain::link::{LinkRefusal, TermsError};
use crate::domain::renewal::RenewalError;
use crate::domain::revocation::RevocationError;
use crate::domain::rotation::{self, ImportError};
use crate::domain::vault::Vault;
use crate::domain::{Authority, principal};
use crate::store::{Change, Store, StoreError, Write};

mod adopt;
mod approve;
mod authority;
mod device;
mod enroll;
mod issue;
mod links;
mod log;
mod registration;
mod renew;
mod revoke;
mod tend;

pub use device::{Admitted, DeviceApplicant};
pub use issue::Issued;
pub use links::{Created, Wanted};
pub use log::Told;
pub use registration::Registration;
pub use revoke::{LIST, List, Revocation, RevocationRequest};
pub use tend::Tended;

/// Decisions on a record that others keep changing. Twenty devices that race for one link need two.
const ATTEMPTS: usize = 5;

/// Resource name under which auth's own doings stand in the audit log.
const OURSELVES: &str = "services/auth";

/// The date, as the shell knows it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Why auth did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("this network has no such link: was it mistyped, or made by another master?")]
    UnknownToken,
    #[error(transparent)]
    Link(#[from] LinkRefusal),
    #[error(transparent)]
    Enrollment(#[from] EnrollmentError),
    #[error(transparent)]
    Renewal(#[from] RenewalError),
    #[error(transparent)]
    Terms(#[from] TermsError),
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    #[error(transparent)]
    Revocation(#[from] RevocationError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error("there is no {0}")]
    NotFound(String),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AuthError {
    /// Whether it waits for an operator's word, and may be asked again.
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Approval(ApprovalError::Pending(_)))
    }
}

/// Whom auth admitted, with all that the answer says.
#[derive(Debug, Clone)]
pub struct Admission {
    pub principal: principal::Principal,
    pub leaf: crate::domain::leaf::Leaf,
    /// Of nodes.
    pub ticket: Option<principal::Ticket>,
    pub authority: Arc<Authority>,
    pub time: Timestamp,
}

/// The auth service at work. One for each process; replicas share the store.
pub struct Auth {
    store: Arc<dyn Store>,
    vault: Vault,
    authority: ArcSwap<Authority>,
    clock: Clock,
    /// `host:port` of the master, as links carry it.
    address: String,
    /// Rung when the list of revoked certificates changed in this process.
    wake: Notify,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Auth {
    /// Founds the network if the store is empty. Of several that try at once one wins, and all go on with its keys.
    ///
    /// # Errors
    /// The keys could not be made or stored.
    pub async fn found(
        store: &dyn Store,
        vault: &Vault,
        now: Timestamp,
    ) -> Result<Vec<StoredKey>, AuthError> {
        let stored = store.keys().await?;
        if !stored.is_empty() {
            return Ok(stored);
        }
        let keys = founding::found(vault, now, &mut rand::rng())?;
        let network = Authority::unseal(&keys, vault)?.network();
        let subject = format!("networks/{network}");
        Self::add_keys((store, vault), keys, Action::Found, OURSELVES, subject, now).await?;
        Ok(store.keys().await?)
    }

    /// The first half of founding a network whose root is elsewhere: the authorities' keys.
    ///
    /// # Errors
    /// As [`Auth::found`].
    pub async fn prepare(
        store: &dyn Store,
        vault: &Vault,
        now: Timestamp,
    ) -> Result<Vec<StoredKey>, AuthError> {
        let stored = store.keys().await?;
        if !stored.is_empty() {
            return Ok(stored);
        }
        let keys = founding::prepare(vault, now, &mut rand::rng())?;
        let subject = "networks/-".to_owned();
        Self::add_keys((store, vault), keys, Action::Found, OURSELVES, subject, now).await?;
        Ok(store.keys().await?)
    }

    /// The second half: the root, and what it signed (DER).
    ///
    /// # Errors
    /// A certificate does not fit, or the store does not answer.
    pub async fn complete(
        store: &dyn Store,
        vault: &Vault,
        certificates: &[Vec<u8>],
        now: Timestamp,
    ) -> Result<(), AuthError> {
        let mut keys = store.keys().await?;
        let made = rotation::import(&keys, certificates, vault, now, &mut rand::rng())?;
        keys.extend(made.iter().cloned());
        let network = Authority::unseal(&keys, vault)?.network();
        let subject = format!("networks/{network}");
        Self::add_keys((store, vault), made, Action::Found, OURSELVES, subject, now).await
    }

    /// Adds keys, all or none. Whoever finds them there already goes on with what is there.
    async fn add_keys(
        (store, vault): (&dyn Store, &Vault),
        keys: Vec<StoredKey>,
        action: Action,
        actor: &str,
        subject: String,
        now: Timestamp,
    ) -> Result<(), AuthError> {
        let kinds: Vec<_> =
            keys.iter().map(|key| format!("{}/{}", key.kind.as_str(), key.generation)).collect();
        let detail = kinds.join(" ");
        let deed = Deed { time: now, action, actor: actor.to_owned(), subject, detail };
        let writes = keys.iter().cloned().map(Write::AddKey).collect();
        match store.commit(Change { writes, deed }).await {
            Ok(_) => tracing::info!(action = action.as_str(), "added keys"),
            Err(StoreError::Conflict) => {
                tracing::info!("another replica was first");
                // Whoever fails here leaves keys in the token that nobody uses, and goes on.
                if let Err(error) = custody::discard(&keys, &store.keys().await?, vault) {
                    tracing::warn!(%error, "keys that are not needed stay in the token");
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Whether the network has been founded: it has a root and whom to issue by.
    pub fn is_founded(keys: &[StoredKey]) -> bool {
        [KeyKind::Root, KeyKind::Issuing]
            .into_iter()
            .all(|kind| keys.iter().any(|key| key.kind == kind && !key.certificate.is_empty()))
    }

    /// Goes to work with the keys that [`Auth::found`] returned.
    ///
    /// # Errors
    /// The vault is not the one that sealed them.
    pub fn open(
        store: Arc<dyn Store>,
        vault: Vault,
        keys: &[StoredKey],
        clock: Clock,
        address: String,
    ) -> Result<Self, AuthError> {
        let authority = ArcSwap::from_pointee(Authority::unseal(keys, &vault)?);
        Ok(Self { store, vault, authority, clock, address, wake: Notify::new() })
    }

    pub fn authority(&self) -> Arc<Authority> {
        self.authority.load_full()
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    fn admission(
        &self,
        principal: principal::Principal,
        leaf: crate::domain::leaf::Leaf,
        time: Timestamp,
    ) -> Admission {
        let ticket = principal::Ticket::bind(&principal, &leaf);
        Admission { principal, leaf, ticket, authority: self.authority(), time }
    }
}

/// Decides again, a bounded number of times, while somebody else's change came first.
async fn settle<T, F>(mut decide: impl FnMut() -> F) -> Result<T, AuthError>
where
    F: Future<Output = Result<T, AuthError>>,
{
    let mut outcome = decide().await;
    for _ in 1..ATTEMPTS {
        match outcome {
            Err(AuthError::Store(StoreError::Conflict)) => outcome = decide().await,
            settled => return settled,
        }
    }
    outcome
}
