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
        self.lose(Duration::ZERO, DisconnectionReason::MasterLost, detail);
    }

    pub(super) fn slept(&mut self, slept: Duration) {
        self.lose(slept, DisconnectionReason::Slept, "the host slept");
    }

    fn lose(&mut self, ago: Duration, reason: DisconnectionReason, detail: &str) {
        let began = self.clock.now() - ago;
        self.since = self.clock.now();
        self.open.get_or_insert(Loss { began, reason, detail: detail.to_owned() });
    }

    /// Connected again: the loss becomes a report, remembered here and on its way to the master.
    pub(super) fn found_again(&mut self, parts: &mut Parts) -> Option<(String, Timestamp, UpstreamItem)> {
        self.since = self.clock.now();
        let loss = self.open.take()?;
        let report = DisconnectionReport {
            item_id: uuid::Uuid::now_v7().to_string(),
            begin_time: Some(to_wire(loss.began)),
            duration: Some(span_to_wire(self.since.since(loss.began))),
            reason: loss.reason.into(),
            detail: loss.detail,
        };
        parts.learned.disconnected(&report);
        parts.keep_learned();
        let id = report.item_id.clone();
        let body = Some(upstream_item::Body::Disconnection(report));
        Some((id, self.since, UpstreamItem { class: TrafficClass::Telemetry.into(), body }))
    }
}
