//! What the master has not heard yet is sent again; what it has heard is forgotten.

use std::time::Duration;

use muster_kit::crash;
use muster_proto::control::v1::{OperationFailure, TaskReportAck, TrafficClass, UpstreamItem, upstream_item};
use muster_types::limits::TASK_LIFETIME;
use muster_wire::time::to_wire;
use prost::Message;

use super::{Done, Engine, logged};
use crate::journal::{self, TaskKey};
use crate::tasks::reporter::{Outbox, item_of};

/// Ids are forgotten some time after no order of theirs can be valid any more.
const KEPT_IDS: Duration = Duration::from_secs(31 * 24 * 3600);

impl Engine {
    pub(super) fn on_acknowledged(&mut self, ack: &TaskReportAck) {
        crash::point("ack.received");
        let Some(key) = TaskKey::new(&ack.task_id, &ack.occurrence) else { return };
        self.outbox.on_acknowledged(key.clone(), ack.sequence);
        let forgotten = self.journal().acknowledge(key, ack.sequence);
        self.commits.push(Box::pin(async move {
            let done = forgotten.await.map(|()| Done::Nothing);
            crash::point("ack.recorded");
            logged(done, None)
        }));
    }

    /// Tells the master of something that no task can be blamed for.
    pub(super) fn report_failure(&mut self, operation: &'static str, code: &'static str, reason: String) {
        tracing::warn!(operation, code, reason, "an operation failed");
        let made = self.signer.clock.now();
        let id = uuid::Uuid::now_v7().to_string();
        let failure = OperationFailure {
            item_id: id.clone(),
            operation: operation.to_owned(),
            reason_code: code.to_owned(),
            reason,
            failure_time: Some(to_wire(made)),
        };
        let body = Some(upstream_item::Body::Failure(failure));
        let item = UpstreamItem { class: TrafficClass::Telemetry.into(), body, ..UpstreamItem::default() };
        let outbox = self.outbox.clone();
        self.commits.push(Box::pin(async move {
            outbox.keep(id, made, item).await;
            Done::Nothing
        }));
    }

    pub(super) fn resend(&mut self) {
        if std::mem::replace(&mut self.resending, true) {
            return;
        }
        let outbox = self.outbox.clone();
        self.commits.push(Box::pin(async move {
            send_unacknowledged(&outbox, None).await;
            Done::Resent
        }));
    }

    pub(super) fn purge(&mut self) {
        debug_assert!(KEPT_IDS > TASK_LIFETIME);
        let purged = self.journal().purge(self.signer.clock.now() - KEPT_IDS);
        self.commits.push(Box::pin(async move { logged(purged.await.map(|_| Done::Nothing), None) }));
    }
}

/// Sends what the master has not acknowledged: of one task, or everything.
pub(super) async fn send_unacknowledged(outbox: &Outbox, only: Option<TaskKey>) {
    let mut after = only.clone().map(|key| (key, 0));
    loop {
        let page = match outbox.journal().unacknowledged(after.take()).await {
            Ok(page) => page,
            Err(error) => return tracing::warn!(%error, "unacknowledged reports cannot be read"),
        };
        for report in &page {
            if only.as_ref().is_some_and(|key| *key != report.key) {
                return;
            }
            if let Some(item) = item_of(report)
                && !outbox.send(item).await
            {
                return;
            }
        }
        match page.last() {
            Some(last) if page.len() == journal::REPORT_PAGE => {
                after = Some((last.key.clone(), last.sequence))
            }
            _ => break,
        }
    }
    if only.is_none() {
        send_items(outbox).await;
    }
}

async fn send_items(outbox: &Outbox) {
    let items = outbox.journal().items().await.unwrap_or_default();
    for item in items {
        if let Ok(item) = UpstreamItem::decode(item.body)
            && !outbox.send(item).await
        {
            return;
        }
    }
}
