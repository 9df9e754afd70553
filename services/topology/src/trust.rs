//! Whom topology believes: the pinned roots, and the signers that auth names under them, looked up again now and then.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use muster_kit::clock;
use muster_kit::shutdown::Shutdown;
use muster_proto::trust::v1::{Envelope, TrustBundle};
use muster_types::NetworkId;
use muster_wire::TrustStore;
use muster_wire::revocation::RevocationError;
use muster_wire::ticket::{NodeTicket, TicketError};
use muster_wire::trust::TrustError;
use rustls_pki_types::CertificateDer;
use tokio::sync::Notify;

use crate::authority::{Authority, AuthorityError};
use crate::hub::Hub;

/// Auth's list changes with a new signer, a few times a year; a ticket by an unknown one is worth a look as well. A key that
/// leaked counts no longer than this.
const REFRESH: Duration = Duration::from_secs(10);

/// An auth that hangs is asked again.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Why nobody can be believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustFailure {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("auth's trust bundle does not fit the pinned root: {0}")]
    Bundle(#[from] TrustError),
}

/// The current trust. Cheap to read, replaced as a whole.
pub struct Trust {
    network: NetworkId,
    current: RwLock<Arc<Current>>,
    doubted: Notify,
}

/// The verified signers with the bundle they came in.
pub struct Current {
    pub store: TrustStore,
    pub bundle: TrustBundle,
}

impl Trust {
    /// Believes nobody yet.
    ///
    /// # Errors
    /// A root cannot be read.
    pub fn new(network: NetworkId, roots: &[CertificateDer<'_>]) -> Result<Self, TrustError> {
        let store = TrustStore::new(network, roots)?;
        let current = RwLock::new(Arc::new(Current { store, bundle: TrustBundle::default() }));
        Ok(Self { network, current, doubted: Notify::new() })
    }

    pub fn network(&self) -> NetworkId {
        self.network
    }

    pub fn current(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Asks auth whom to believe.
    ///
    /// # Errors
    /// Auth does not answer, or its answer does not lead to the pinned root; what was believed stays.
    pub async fn refresh(&self, authority: &dyn Authority) -> Result<(), TrustFailure> {
        let bundle = authority.trust_bundle().await?;
        let mut current = self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if current.bundle == bundle {
            return Ok(());
        }
        let mut store = current.store.clone();
        store.load(&bundle, clock::wall())?;
        if store.revocations().number() < current.store.revocations().number() {
            self.doubted.notify_one();
        }
        *current = Arc::new(Current { store, bundle });
        Ok(())
    }

    /// Returns when the list of revocations has to be read from its beginning: a key that signed it was withdrawn, or it came
    /// in too many pieces.
    pub(crate) async fn doubted(&self) {
        self.doubted.notified().await;
    }

    /// Has it read from its beginning; until then those count who are in it.
    pub(crate) fn doubt(&self) {
        let mut current = self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut store = current.store.clone();
        store.set_revocations(Arc::new(store.revocations().doubted()));
        *current = Arc::new(Current { store, bundle: current.bundle.clone() });
        self.doubted.notify_one();
    }

    /// Takes in an increment of the list of revocations; says up to where they are known now.
    ///
    /// # Errors
    /// It is not believed, or does not follow what is known.
    pub fn revoke(&self, increment: &Envelope) -> Result<u64, RevocationError> {
        let mut current = self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut store = current.store.clone();
        if store.revoke([increment])? {
            *current = Arc::new(Current { store, bundle: current.bundle.clone() });
        }
        Ok(current.store.revocations().number())
    }

    /// Opens a node's ticket; asks auth once more if nobody known signed it.
    ///
    /// # Errors
    /// The ticket is not this network's, not valid now, or malformed.
    pub async fn ticket(
        &self,
        sealed: &Envelope,
        authority: &dyn Authority,
    ) -> Result<NodeTicket, TicketError> {
        let opened = NodeTicket::open(sealed, &self.current().store, clock::wall());
        let unknown =
            matches!(&opened, Err(TicketError::Envelope(muster_wire::EnvelopeError::UnknownSigner(_))));
        if !unknown {
            return opened;
        }
        if let Err(error) = self.refresh(authority).await {
            tracing::warn!(%error, "cannot learn whom to believe");
        }
        NodeTicket::open(sealed, &self.current().store, clock::wall())
    }
}
/// Looks the signers up again, until the shutdown.
pub(crate) async fn keep(hub: Arc<Hub>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.triggered() => return,
            () = tokio::time::sleep(REFRESH) => {}
        }
        let looked = tokio::select! {
            () = shutdown.triggered() => return,
            looked = tokio::time::timeout(ANSWER_LIMIT, hub.trust.refresh(&*hub.authority)) => looked,
        };
        match looked {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, every = ?REFRESH, "cannot learn whom to believe"),
            Err(_) => tracing::warn!(within = ?ANSWER_LIMIT, "auth does not say whom to believe"),
        }
    }
}
