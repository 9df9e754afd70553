//! Every loss of connection is remembered, with its reason and how long it lasted, and told to the master.

use std::time::Duration;

use muster_kit::clock::MasterClock;
use muster_proto::control::v1::{
    DisconnectionReason, DisconnectionReport, TrafficClass, UpstreamItem, upstream_item,
};
use muster_types::Timestamp;
use muster_wire::time::{span_to_wire, to_wire};

use crate::driver::parts::Parts;

/// The loss that lasts, if one does.
pub(super) struct History {
    clock: MasterClock,
    open: Option<Loss>,
    since: Timestamp,
}

/// An item with its id and date, to be kept until the master has it.
pub(super) type Kept = (String, Timestamp, UpstreamItem);

struct Loss {
    began: Timestamp,
    reason: DisconnectionReason,
    detail: String,
}

impl History {
    pub(super) fn begin(clock: MasterClock) -> Self {
        Self { since: clock.now(), open: None, clock }
    }

    /// When the present state began.
    pub(super) fn since(&self) -> Timestamp {
        self.since
    }

    pub(super) fn lost_master(&mut self, detail: &str) {
        let reason = DisconnectionReason::MasterLost;
        self.open.get_or_insert(Loss { began: self.clock.now(), reason, detail: detail.to_owned() });
    }

    pub(super) fn changed(&mut self) {
        self.since = self.clock.now();
    }

    /// A loss that is over.
    pub(super) fn report(
        &mut self,
        parts: &mut Parts,
        ago: Duration,
        lasted: Duration,
        reason: DisconnectionReason,
        detail: &str,
    ) -> Kept {
        let report = DisconnectionReport {
            item_id: uuid::Uuid::now_v7().to_string(),
            begin_time: Some(to_wire(self.clock.now() - ago)),
            duration: Some(span_to_wire(lasted)),
            reason: reason.into(),
            detail: detail.to_owned(),
        };
        parts.learned.disconnected(&report);
        parts.keep_learned();
        let id = report.item_id.clone();
        let body = Some(upstream_item::Body::Disconnection(report));
        let class = TrafficClass::Telemetry.into();
        (id, self.clock.now(), UpstreamItem { class, body, ..UpstreamItem::default() })
    }

    /// Connected again: the loss becomes a report, remembered here and on its way to the master.
    pub(super) fn found_again(&mut self, parts: &mut Parts) -> Option<Kept> {
        let loss = self.open.take()?;
        let lasted = self.clock.now().since(loss.began);
        Some(self.report(parts, lasted, lasted, loss.reason, &loss.detail))
    }
}
