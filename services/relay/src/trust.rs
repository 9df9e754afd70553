//! Whose tickets the relay takes, and whom it seats: the signers that auth names under the pinned roots, looked up when an
//! unknown one appears, and auth's list of revocations, followed as it grows.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use muster_kit::backoff::Backoff;
use muster_kit::clock;
use muster_kit::connect::MasterChannel;
use muster_kit::listen::PeerInfo;
use muster_kit::shutdown::Shutdown;
use muster_proto::auth::v1::authority_service_client::AuthorityServiceClient;
use muster_proto::auth::v1::revocation_service_client::RevocationServiceClient;
use muster_proto::auth::v1::{GetTrustBundleRequest, WatchRevocationListRequest};
use muster_proto::trust::v1::Envelope;
use muster_types::{NetworkId, NodeId};
use muster_wire::relay::{Bearer, RelayTicket, RelayTicketError};
use muster_wire::revocation::RevocationError;
use muster_wire::ticket::TicketError;
use muster_wire::trust::TrustError;
use muster_wire::{EnvelopeError, TrustStore};
use rustls_pki_types::CertificateDer;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tonic::Status;

use crate::hall::Hall;

/// Whoever shows forged tickets makes the relay ask auth no more often than this.
const PATIENCE: Duration = Duration::from_secs(5);

/// How soon it is known here that a signer's key was withdrawn.
const CARE: Duration = Duration::from_secs(10);

/// Tickets last ten minutes: who has not heard of auth for so long carries for nobody who was admitted since, and maybe for
/// somebody who is revoked. It ends, so that nodes find another relay, and its supervisor another beginning.
pub(crate) const SILENCE: Duration = Duration::from_secs(600);

/// Why following the list broke off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("auth does not answer: {0}")]
    Auth(#[from] Status),
    #[error("auth's trust bundle does not fit the pinned root: {0}")]
    Bundle(#[from] TrustError),
    #[error(transparent)]
    List(#[from] RevocationError),
    #[error("the key was withdrawn by which the list was signed; it is read anew")]
    Withdrawn,
    #[error("the stream ended")]
    Ended,
}

pub(crate) struct Trust {
    auth: AuthorityServiceClient<MasterChannel>,
    revocations: RevocationServiceClient<MasterChannel>,
    store: RwLock<Arc<TrustStore>>,
    /// When auth was last asked for signers; held while it is asked, so that one asks for all.
    asked: Mutex<Option<Instant>>,
    /// When auth was last heard.
    heard: watch::Sender<Instant>,
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
        let heard = watch::Sender::new(Instant::now());
        Ok(Self {
            auth: AuthorityServiceClient::new(auth),
            revocations,
            store,
            asked: Mutex::default(),
            heard,
        })
    }

    fn current(&self) -> Arc<TrustStore> {
        self.store.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another store in place of this one, made from it under the lock: neither a bundle nor a list is lost.
    fn change<E>(&self, change: impl FnOnce(&mut TrustStore) -> Result<(), E>) -> Result<(), E> {
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = TrustStore::clone(&store);
        change(&mut next)?;
        *store = Arc::new(next);
        Ok(())
    }

    /// Opens a ticket; asks auth once more if nobody known signed it.
    ///
    /// # Errors
    /// As [`RelayTicket::open`].
    pub(crate) async fn ticket(
        &self,
        sealed: &Envelope,
        bearer: &Bearer<'_>,
    ) -> Result<RelayTicket, RelayTicketError> {
        let opened = RelayTicket::open(sealed, bearer, &self.current(), clock::wall());
        let stranger = matches!(
            &opened,
            Err(RelayTicketError::Ticket(TicketError::Envelope(EnvelopeError::UnknownSigner(_))))
        );
        if !stranger {
            return opened;
        }
        let mut asked = self.asked.lock().await;
        if asked.is_none_or(|asked| asked.elapsed() >= PATIENCE) {
            *asked = Some(Instant::now());
            if let Err(error) = self.learn_signers().await {
                tracing::warn!(%error, "cannot learn whom to believe");
            }
        }
        RelayTicket::open(sealed, bearer, &self.current(), clock::wall())
    }

    async fn learn_signers(&self) -> Result<(), Broken> {
        let answer = self.auth.clone().get_trust_bundle(GetTrustBundleRequest {}).await?;
        self.heard.send_replace(Instant::now());
        let bundle = answer.into_inner().trust_bundle.unwrap_or_default();
        Ok(self.change(|store| store.load(&bundle, clock::wall()))?)
    }

    /// Returns when auth was not heard for long.
    pub(crate) async fn cut_off(&self) {
        loop {
            let ends = *self.heard.borrow() + SILENCE;
            if ends <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(ends).await;
        }
    }

    /// Whether a caller is still admitted.
    pub(crate) fn admits(&self, peer: &PeerInfo) -> bool {
        let node = peer.identity.as_ref().and_then(muster_types::Identity::node_id);
        node.is_none_or(|node| self.seats(node, &peer.serial))
    }

    fn seats(&self, node: NodeId, serial: &[u8]) -> bool {
        self.current().revocations().of_holder(node, serial, None).is_none()
    }

    /// Follows auth's list until the shutdown; whom it names loses its seat at once.
    pub(crate) async fn follow(self: Arc<Self>, hall: Arc<Hall>, shutdown: Shutdown) {
        let mut backoff = Backoff::new();
        loop {
            let broken = tokio::select! {
                () = shutdown.triggered() => return,
                broken = self.read(&hall, &mut backoff) => broken,
            };
            if let Err(error) = broken {
                tracing::warn!(%error, "revocations are not followed; trying again");
            }
            tokio::select! {
                () = shutdown.triggered() => return,
                () = tokio::time::sleep(backoff.next_delay(&mut rand::rng())) => {}
            }
        }
    }

    async fn read(&self, hall: &Hall, backoff: &mut Backoff) -> Result<(), Broken> {
        // The list is signed: whoever signs must be known first.
        self.learn_signers().await?;
        let after_number = self.current().revocations().number();
        let request = WatchRevocationListRequest { after_number };
        let mut lists = self.revocations.clone().watch_revocation_list(request).await?.into_inner();
        let mut signers = tokio::time::interval(CARE);
        loop {
            let list = tokio::select! {
                list = lists.message() => list?.ok_or(Broken::Ended)?,
                _ = signers.tick() => {
                    self.learn_signers().await?;
                    if self.current().revocations().number() < after_number {
                        return Err(Broken::Withdrawn);
                    }
                    continue;
                }
            };
            self.change(|store| store.revoke(&list.revocation_list).map(drop))?;
            hall.expel(|node, serial| !self.seats(node, serial));
            backoff.reset();
        }
    }
}
