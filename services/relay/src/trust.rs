//! Whose tickets the relay takes: those of the signers that auth names under the pinned roots, looked up when an
//! unknown one appears, and not more often than every few seconds.

use std::time::Duration;

use muster_kit::clock;
use muster_kit::connect::MasterChannel;
use muster_proto::auth::v1::GetTrustBundleRequest;
use muster_proto::auth::v1::authority_service_client::AuthorityServiceClient;
use muster_proto::trust::v1::Envelope;
use muster_types::NetworkId;
use muster_wire::relay::{Bearer, RelayTicket, RelayTicketError};
use muster_wire::ticket::TicketError;
use muster_wire::trust::TrustError;
use muster_wire::{EnvelopeError, TrustStore};
use rustls_pki_types::CertificateDer;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Whoever shows forged tickets makes the relay ask auth no more often than this.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Trust {
    auth: AuthorityServiceClient<MasterChannel>,
    known: Mutex<Known>,
}

struct Known {
    store: TrustStore,
    asked: Option<Instant>,
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
        let known = Known { store: TrustStore::new(network, roots)?, asked: None };
        Ok(Self { auth: AuthorityServiceClient::new(auth), known: Mutex::new(known) })
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
        let mut known = self.known.lock().await;
        let opened = RelayTicket::open(sealed, bearer, &known.store, clock::wall());
        let stranger = matches!(
            &opened,
            Err(RelayTicketError::Ticket(TicketError::Envelope(EnvelopeError::UnknownSigner(_))))
        );
        if !stranger || known.asked.is_some_and(|asked| asked.elapsed() < PATIENCE) {
            return opened;
        }
        known.asked = Some(Instant::now());
        match self.auth.clone().get_trust_bundle(GetTrustBundleRequest {}).await {
            Ok(answer) => {
                let bundle = answer.into_inner().trust_bundle.unwrap_or_default();
                if let Err(error) = known.store.load(&bundle, clock::wall()) {
                    tracing::warn!(%error, "auth's trust bundle does not fit the pinned root");
                }
            }
            Err(status) => tracing::warn!(error = status.message(), "cannot learn whom to believe"),
        }
        RelayTicket::open(sealed, bearer, &known.store, clock::wall())
    }
}
