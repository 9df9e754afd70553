//! What an LSN carries between its children and the master: signed words of others, unchanged. Only the trace that
//! travels beside them becomes longer by its own step.

use bytes::Bytes;
use muster_kit::{crash, telemetry};
use muster_overlay::intent::Station;
use muster_overlay::post::Origin;
use muster_proto::control::v1::attach_request::Frame;
use muster_proto::control::v1::upstream_item::Body;
use muster_proto::control::v1::{
    Downstream, PresenceReceipt, TrafficClass, Upstream, UpstreamItem, downstream,
};
use muster_proto::trust::v1::Envelope;
use muster_types::NodeId;
use prost::Message;

use crate::driver::route::Route;
use crate::driver::{Driver, Next};

impl Driver {
    /// From a child to the master. Without a channel it is dropped: the child keeps it until it is acknowledged.
    pub(super) fn carry_up(&mut self, mut upstream: Upstream) {
        if !matches!(self.overlay.station(), Station::IsLsn { .. }) {
            return;
        }
        if !self.attached {
            return self.call_without_master(upstream);
        }
        self.take_suspicions(&mut upstream);
        let reports = has_reports(&upstream);
        if reports {
            crash::point("lsn.report.received");
        }
        trace_up(&mut upstream);
        self.carry(upstream);
        if reports {
            crash::point("lsn.report.forwarded");
        }
    }

    /// To the master by the own channel: what is urgent now, the rest packed with what others have to say. Usage is added
    /// up on the way.
    pub(super) fn carry(&mut self, mut upstream: Upstream) -> bool {
        for item in upstream.items.extract_if(.., |item| matches!(item.body, Some(Body::Usage(_)))) {
            if let Some(Body::Usage(report)) = item.body {
                self.account.carry(report);
            }
        }
        if upstream.items.is_empty() {
            return true;
        }
        let urgent = match self.overlay.station() {
            Station::IsLsn { .. } => self.spool.take_in(upstream),
            _ => Some(upstream),
        };
        urgent.is_none_or(|urgent| self.control.send(Frame::Upstream(urgent)))
    }

    pub(super) fn on_spool_due(&mut self) -> Next {
        if !self.attached {
            self.spool.clear();
        } else if let Some(frame) = self.spool.pack()
            && !self.control.send(frame)
        {
            tracing::debug!("the channel has no room for the spool; its nodes say it again");
        }
        Next::Go
    }

    /// Counters go to the LSN, or with those of the whole cell to the master.
    pub(super) fn on_account_due(&mut self) -> Next {
        let own = self.usage();
        let Some(report) = self.account.look(own) else { return Next::Go };
        let sent = match &self.route {
            Route::None { .. } => false,
            Route::Direct => self.control.send(Frame::Usage(report.clone())),
            Route::Lsn(lsn) => {
                let body = Some(Body::Usage(report.clone()));
                let class = TrafficClass::Telemetry.into();
                let items = vec![UpstreamItem { class, body, ..UpstreamItem::default() }];
                let node_id = Bytes::copy_from_slice(self.parts.identity.node.as_bytes());
                self.overlay.send_upstream(*lsn, Upstream { node_id, items })
            }
        };
        if !sent {
            self.account.carry(report);
        }
        Next::Go
    }

    /// From the master to this node and its children.
    pub(super) async fn carry_down(&mut self, downstream: Downstream) {
        if let Some(downstream::Body::SendTo(word)) = downstream.body {
            return self.hear_word(Origin::Master, word);
        }
        let own = self.parts.identity.node;
        let mut targets = downstream.targets.iter().filter_map(|target| NodeId::try_from(&target[..]).ok());
        let (for_us, children): (Vec<_>, Vec<_>) = targets.by_ref().partition(|target| *target == own);
        if !children.is_empty() {
            self.pass_down(&children, downstream.body.clone());
        }
        if !for_us.is_empty() {
            self.on_downstream(downstream).await;
        }
    }

    fn pass_down(&self, children: &[NodeId], body: Option<downstream::Body>) {
        match &body {
            Some(downstream::Body::TaskOffer(_)) => crash::point("lsn.order.received"),
            Some(downstream::Body::TaskReportAck(_)) => crash::point("lsn.ack.received"),
            _ => {}
        }
        let is_order = matches!(body, Some(downstream::Body::TaskOffer(_)));
        let body = trace_down(body, children.len());
        for child in children {
            let targets = vec![Bytes::copy_from_slice(child.as_bytes())];
            let one = Downstream { targets, body: body.clone() };
            if !self.overlay.send_downstream(*child, one) {
                tracing::debug!(child = %child.short(), "a child is not reached; the master repeats what counts");
            }
        }
        if is_order {
            crash::point("lsn.order.forwarded");
        }
    }

    /// Proofs that topology shows them go to the children they are about.
    pub(super) fn pass_receipts(&mut self, receipts: Vec<Envelope>) {
        for sealed in receipts {
            let Ok(receipt) = PresenceReceipt::decode(sealed.payload.clone()) else { continue };
            let Ok(child) = NodeId::try_from(&receipt.node_id[..]) else { continue };
            let targets = vec![receipt.node_id];
            let body = Some(downstream::Body::PresenceReceipt(sealed));
            self.overlay.send_downstream(child, Downstream { targets, body });
        }
    }
}

fn has_reports(upstream: &Upstream) -> bool {
    upstream.items.iter().any(|item| matches!(item.body, Some(Body::TaskReport(_))))
}

/// Our step in the traces of what goes up, if anybody traces it.
fn trace_up(upstream: &mut Upstream) {
    for item in upstream.items.iter_mut().filter(|item| !item.traceparent.is_empty()) {
        let span = tracing::info_span!("report.forward");
        item.traceparent = telemetry::onward(&span, &item.traceparent);
    }
}

/// The same for an order that goes down.
fn trace_down(body: Option<downstream::Body>, children: usize) -> Option<downstream::Body> {
    match body {
        Some(downstream::Body::TaskOffer(mut offer)) if !offer.traceparent.is_empty() => {
            let span = tracing::info_span!("order.forward", children);
            offer.traceparent = telemetry::onward(&span, &offer.traceparent);
            Some(downstream::Body::TaskOffer(offer))
        }
        body => body,
    }
}
