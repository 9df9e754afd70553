//! What the master says to this node, whatever way it came.

use muster_proto::control::v1::downstream::Body;
use muster_proto::control::v1::{Downstream, Probe, ProbeAnswer, TrafficClass, UpstreamItem, upstream_item};

use crate::driver::Driver;
use crate::platform::interfaces::Attachment;

impl Driver {
    pub(super) async fn on_downstream(&mut self, downstream: Downstream) {
        if !downstream.targets.iter().any(|target| target == self.identity.node.as_bytes()) {
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
            Some(Body::Uptime(ticket)) => self.parts.keep_uptime(&ticket),
            // Of a node under an LSN.
            Some(Body::PresenceReceipt(_)) | None => {}
        }
    }

    /// "Are you there, now?"
    fn on_probe(&mut self, probe: Probe) {
        let attachment = Attachment::current().unwrap_or_default();
        let presence = Some(self.presence.node_presence(&attachment));
        let answer = ProbeAnswer { nonce: probe.nonce, presence, lsn_id: bytes::Bytes::new() };
        let body = Some(upstream_item::Body::ProbeAnswer(answer));
        self.send_up(vec![UpstreamItem { class: TrafficClass::Control.into(), body }]);
    }
}
