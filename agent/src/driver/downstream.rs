//! What the master says to this node, whatever way it came.

use std::time::Duration;

use muster_overlay::Input;
use muster_proto::control::v1::downstream::Body;
use muster_proto::control::v1::{
    Downstream, Missed, Probe, ProbeAnswer, Summons, TrafficClass, UpstreamItem, upstream_item,
};

use muster_overlay::post::Origin;
use muster_proto::trust::v1::{Envelope, TrustBundle};

use crate::driver::Driver;
use crate::driver::route::Route;

/// Topology's word that it shows this node is passed on at once. One that is older was kept by an LSN that may hide us now.
pub(super) const FRESH_WORD: Duration = Duration::from_secs(600);

impl Driver {
    pub(super) async fn on_downstream(&mut self, downstream: Downstream) {
        if !downstream.targets.iter().any(|target| target == self.parts.identity.node.as_bytes()) {
            tracing::debug!("a message for somebody else is dropped");
            return;
        }
        match downstream.body {
            Some(Body::TaskOffer(offer)) => self.tasks.offer(offer).await,
            Some(Body::TaskCancellation(cancellation)) => {
                if let Some(envelope) = cancellation.cancellation {
                    self.tasks.cancel(envelope).await;
                }
            }
            Some(Body::TaskReportAck(ack)) => self.tasks.acknowledged(ack).await,
            Some(Body::ItemAck(ack)) => self.tasks.items_acknowledged(ack.item_ids).await,
            Some(Body::Probe(probe)) => self.on_probe(probe),
            Some(Body::Uptime(ticket)) => {
                self.on_uptime(&ticket);
                self.on_vouched();
            }
            Some(Body::PresenceReceipt(receipt)) => self.on_receipt(&receipt),
            Some(Body::Revocations(increment)) => self.on_revocations(&[increment], None),
            Some(Body::TrustBundle(bundle)) => self.on_bundle(bundle),
            Some(Body::Summons(Summons {})) => self.on_summons(),
            Some(Body::Missed(Missed {})) => self.overlay.handle(Input::Missed),
            Some(Body::Call(call)) => self.meetings.called(call),
            Some(Body::SendTo(word)) => self.hear_word(Origin::Master, word),
            Some(Body::Suspicion(suspicion)) => self.on_suspicion(&suspicion),
            None => {}
        }
    }

    /// Whose signatures count: an LSN's children hear of it from their LSN. What is older comes from one that lags behind.
    fn on_bundle(&mut self, bundle: TrustBundle) {
        let known = self.parts.bundle.as_ref().map_or(0, |bundle| bundle.version);
        if bundle.version <= known {
            return;
        }
        tracing::info!(version = bundle.version, "the master signs with other keys");
        self.on_trust(&bundle);
        self.parts.keep_learned();
        for child in self.overlay.machine().children() {
            let targets = vec![bytes::Bytes::copy_from_slice(child.as_bytes())];
            let body = Some(Body::TrustBundle(bundle.clone()));
            if !self.overlay.send_downstream(child, Downstream { targets, body }) {
                tracing::debug!(child = %child.short(), "a child does not hear of new keys now");
            }
        }
    }

    /// "Are you there, now?"
    fn on_probe(&mut self, probe: Probe) {
        let lsn_id = match self.route {
            Route::Lsn(lsn) => bytes::Bytes::copy_from_slice(lsn.as_bytes()),
            _ => bytes::Bytes::new(),
        };
        let presence = Some(self.presence.node_presence());
        let life = probe.signed.then(|| self.proof_of_life(probe.nonce));
        let answer = ProbeAnswer { nonce: probe.nonce, presence, lsn_id, life };
        let body = Some(upstream_item::Body::ProbeAnswer(answer));
        let class = TrafficClass::Control.into();
        self.send_up(vec![UpstreamItem { class, body, ..UpstreamItem::default() }]);
    }

    /// What topology attests of this node's uptime.
    pub(super) fn on_uptime(&mut self, ticket: &Envelope) {
        self.parts.keep_uptime(ticket);
        if let Some(uptime) = self.parts.attested_uptime() {
            self.overlay.set_uptime(ticket, uptime);
        }
    }

    /// Only who is connected is attested of.
    fn on_vouched(&mut self) {
        let issued = self.parts.uptime_issued();
        if issued.is_some_and(|issued| self.parts.clock.now().since(issued) < FRESH_WORD) {
            self.overlay.handle(Input::Vouched);
        }
    }
}
