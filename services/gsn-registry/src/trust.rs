//! Whom the registry believes, and who is not admitted any more: both asked of auth now and then.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use muster_kit::clock;
use muster_kit::connect::MasterChannel;
use muster_kit::listen::PeerInfo;
use muster_kit::shutdown::Shutdown;
use muster_proto::auth::v1::authority_service_client::AuthorityServiceClient;
use muster_proto::auth::v1::revocation_service_client::RevocationServiceClient;
use muster_proto::auth::v1::{GetRevocationListRequest, GetTrustBundleRequest};
use muster_proto::trust::v1::Envelope;
use muster_types::{Identity, NetworkId};
use muster_wire::TrustStore;
use muster_wire::revocation::RevocationError;
use muster_wire::ticket::{NodeTicket, TicketError};
use muster_wire::trust::TrustError;
use rustls_pki_types::CertificateDer;

/// How long a revoked node may still get a ticket; what it opens lasts ten minutes at most.
const CARE: Duration = Duration::from_secs(10);

/// Auth does not say whom to believe.
#[derive(Debug, thiserror::Error)]
enum Unheard {
    #[error("auth does not answer: {0}")]
    Auth(String),
    #[error("auth's trust bundle does not fit the pinned root: {0}")]
    Bundle(#[from] TrustError),
    #[error(transparent)]
    List(#[from] RevocationError),
}

pub(crate) struct Trust {
    auth: AuthorityServiceClient<MasterChannel>,
    revocations: RevocationServiceClient<MasterChannel>,
    store: RwLock<Arc<TrustStore>>,
}

impl Trust {
    /// Believes nobody yet.
    ///
    /// # Errors
    /// A root cannot be read.
    pub(crate) fn new(
        network: NetworkId,
        roots: &[CertificateDer<'_>],
        auth: MasterChannel,
    ) -> Result<Self, TrustError> {
        let store = RwLock::new(Arc::new(TrustStore::new(network, roots)?));
        let revocations = RevocationServiceClient::new(auth.clone());
        Ok(Self { auth: AuthorityServiceClient::new(auth), revocations, store })
    }

    fn current(&self) -> Arc<TrustStore> {
        self.store.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// # Errors
    /// The ticket is not this network's, not valid now, or malformed.
    pub(crate) fn ticket(&self, sealed: &Envelope) -> Result<NodeTicket, TicketError> {
        NodeTicket::open(sealed, &self.current(), clock::wall())
    }

    /// Whether a caller is still admitted.
    pub(crate) fn admits(&self, peer: &PeerInfo) -> bool {
        let store = self.current();
        let revocations = store.revocations();
        let revoked = match peer.identity.as_ref().and_then(Identity::node_id) {
            Some(node) => revocations.of_holder(node, &peer.serial, None),
            None => revocations.of_certificate(&peer.serial, None),
        };
        revoked.is_none()
    }

    /// Asks auth again and again, until the shutdown.
    pub(crate) async fn tend(self: Arc<Self>, shutdown: Shutdown) {
        let mut due = tokio::time::interval(CARE);
        loop {
            tokio::select! {
                () = shutdown.triggered() => return,
                _ = due.tick() => {}
            }
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "the registry goes by what it knew");
            }
        }
    }

    async fn refresh(&self) -> Result<(), Unheard> {
        let unheard = |status: tonic::Status| Unheard::Auth(status.message().to_owned());
        let answer = self.auth.clone().get_trust_bundle(GetTrustBundleRequest {}).await.map_err(unheard)?;
        let mut store = TrustStore::clone(&self.current());
        store.load(&answer.into_inner().trust_bundle.unwrap_or_default(), clock::wall())?;
        loop {
            let known = store.revocations().number();
            let request = GetRevocationListRequest { after_number: known };
            let list =
                self.revocations.clone().get_revocation_list(request).await.map_err(unheard)?.into_inner();
            if list.number <= known || !store.revoke(list.revocation_list.iter())? {
                break;
            }
        }
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(store);
        Ok(())
    }
}
