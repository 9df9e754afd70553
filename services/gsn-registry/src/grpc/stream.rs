//! One candidate's stream: what it offers and heard comes up, how it stands and what it should send goes down.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use muster_kit::clock;
use muster_kit::shutdown::Shutdown;
use muster_kit::status::{Fault, fault};
use muster_proto::gsn::v1::offer_request::Request as Body;
use muster_proto::gsn::v1::{Candidacy, OfferRequest, OfferResponse};
use muster_types::NodeId;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{invalid, store_failed, wire};
use crate::domain::candidate::Offer;
use crate::domain::quota::Quota;
use crate::metrics;
use crate::office::{Entered, Office};
use crate::trust::Trust;

/// A candidate that says nothing for so long has gone: its load comes every ten seconds.
const SILENCE: Duration = Duration::from_secs(35);

/// Up to the first word.
const FIRST_WORD: Duration = Duration::from_secs(10);

pub(super) struct Stream {
    pub(super) office: Arc<Office>,
    pub(super) trust: Arc<Trust>,
    pub(super) node: NodeId,
    pub(super) ip: Option<IpAddr>,
    pub(super) session: u64,
    pub(super) offers: Arc<Mutex<Quota<NodeId>>>,
}

type Down = Pin<Box<dyn futures::Stream<Item = Result<OfferResponse, Status>> + Send>>;

impl Stream {
    pub(super) async fn begin(
        self,
        mut requests: Streaming<OfferRequest>,
        shutdown: &Shutdown,
    ) -> Result<Down, Fault> {
        let first = tokio::time::timeout(FIRST_WORD, requests.message()).await;
        let Ok(Ok(Some(OfferRequest { request: Some(Body::Candidacy(candidacy)) }))) = first else {
            return Err(invalid("CANDIDACY_EXPECTED", "a stream begins with a candidacy"));
        };
        let offer = self.offer(candidacy)?;
        let history = self.office.history(self.node).await.map_err(|error| store_failed(&error))?;
        let entered = self
            .office
            .enter(self.session, offer, self.ip, history)
            .map_err(|full| fault(Code::ResourceExhausted, "TOO_MANY_CANDIDATES", full.to_string()))?;
        let (ended, Entered { waiting, over }) = (shutdown.clone(), entered);
        shutdown.spawn(async move {
            tokio::select! {
                () = ended.triggered() => {}
                () = over.cancelled() => {}
                () = self.read(&mut requests) => {}
            }
            self.office.leave(self.node, self.session);
        });
        Ok(Box::pin(ReceiverStream::new(waiting).map(Ok)))
    }

    /// Until the node ends it, falls silent, or says what it may not.
    async fn read(&self, requests: &mut Streaming<OfferRequest>) {
        while let Ok(Ok(Some(request))) = tokio::time::timeout(SILENCE, requests.message()).await {
            match request.request {
                Some(Body::Candidacy(candidacy)) => match self.offer(candidacy) {
                    Ok(offer) => self.office.renew(self.session, offer, self.ip),
                    Err(error) => {
                        tracing::debug!(node = %self.node.short(), %error, "a candidacy is not taken");
                        return;
                    }
                },
                Some(Body::ProbeHeard(heard)) => {
                    let Ok(heard) = wire::heard(&heard) else { return };
                    let verdict = self.office.registry(|registry| {
                        registry.heard(self.node, &heard.token, heard.source, heard.sent_ago, clock::wall())
                    });
                    metrics::heard(verdict);
                }
                Some(Body::Load(load)) => {
                    self.office.registry(|registry| registry.load(self.node, wire::load(&load)));
                }
                // Of a newer version.
                None => {}
            }
        }
    }

    fn offer(&self, mut candidacy: Candidacy) -> Result<Offer, Fault> {
        let mut offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        if !offers.take(self.node, clock::wall()) {
            let reason = "a node offers itself a few times a minute at most";
            return Err(fault(Code::ResourceExhausted, "TOO_MANY_OFFERS", reason));
        }
        drop(offers);
        let sealed = candidacy.ticket.take().unwrap_or_default();
        let ticket = self
            .trust
            .ticket(&sealed)
            .map_err(|error| fault(Code::Unauthenticated, "TICKET_REFUSED", error.to_string()))?;
        if ticket.node != self.node {
            return Err(fault(Code::PermissionDenied, "NOT_YOURS", "the ticket is another node's"));
        }
        let offer =
            wire::offer(candidacy, ticket.noise_key).map_err(|error| invalid("OFFER_INVALID", error))?;
        if offer.node != self.node {
            return Err(fault(Code::PermissionDenied, "NOT_YOURS", "the contact is another node's"));
        }
        Ok(offer)
    }
}
