//! What nodes send up: task reports, incidents, answers to probes.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use muster_kit::{crash, telemetry};
use muster_proto::control::v1::attach_response::Frame;
use muster_proto::control::v1::{
    Downstream, ItemAck, SendTo, Signal, Suspicion, TaskReportAck, Upstream, UpstreamItem, downstream,
    upstream_item::Body,
};
use muster_proto::trust::v1::Envelope;
use muster_types::NodeId;
use muster_wire::call::CALL_BYTES;
use muster_wire::letter::WORD_BYTES;
use muster_wire::revocation::Reason;
use muster_wire::sealing::SealingKey;
use muster_wire::time::{from_wire, span_from_wire};
use prost::Message;
use tracing::Span;

use super::session::count;
use crate::domain::event::EventBody;
use crate::domain::incident::Incidents;
use crate::domain::opaque::Opaque;
use crate::domain::reports::{Report, Reports};
use crate::domain::target::Step;
use crate::grpc::wire;
use crate::hub::{Answered, Hub, Mail};
use crate::metrics;
use crate::revocations;

/// Items of one message (contract of Upstream).
const ITEMS: usize = 256;

/// Calls of one node in one message: it has that many in a busy second.
const CALLS: usize = 16;

/// Words to other nodes, of one node in one message.
const WORDS: usize = 16;

/// Nodes that one node suspects in one message; its table has no more neighbors that fail at once.
const SUSPICIONS: usize = 4;

/// Keys that one stream remembers: its whole cell.
const KEYS: usize = muster_types::limits::CELL_NODES;

/// Characters of an item's own id.
const ITEM_ID: usize = 64;

/// Signing keys of nodes that have reported on this stream.
#[derive(Default)]
pub(super) struct Keys(HashMap<NodeId, Vec<u8>>);

impl Keys {
    pub(super) fn learn(&mut self, node: NodeId, key: Vec<u8>) {
        if self.0.len() >= KEYS {
            self.0.clear();
        }
        self.0.insert(node, key);
    }

    /// A node that has a new key has a new ticket, and comes by a new attach: then its key is looked up again.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.0.remove(&node);
    }

    async fn find(&mut self, hub: &Hub, node: NodeId) -> Option<Vec<u8>> {
        if let Some(key) = self.0.get(&node) {
            return Some(key.clone());
        }
        let key = hub.store.nodes_by_id(&[node]).await.ok()?.pop()?.row.attested.signing_key.0;
        self.learn(node, key.clone());
        Some(key)
    }
}

/// What is to be committed of one message.
pub(super) struct Sorted {
    node: NodeId,
    reports: Vec<Report>,
    incidents: Vec<(String, EventBody)>,
    /// Of incidents, as their node named them.
    item_ids: Vec<String>,
    /// One for each report that changes a state; they last until the commit.
    spans: Vec<Span>,
}

/// Verifies and sorts a message's items; answers to probes are passed on at once.
pub(super) async fn sort(hub: &Hub, keys: &mut Keys, upstream: Upstream) -> Option<Sorted> {
    let node = wire::node_id(&upstream.node_id, "node_id").ok()?;
    if hub.trust.current().store.revocations().of_node(node).is_some_and(|it| it.reason == Reason::Revoked) {
        tracing::info!(%node, "a report of a revoked node is dropped");
        return None;
    }
    let Some(key) = keys.find(hub, node).await else {
        tracing::info!(%node, "a report of an unknown node is dropped");
        return None;
    };
    let mut sorted = Sorted::of(node);
    let (mut calls, mut words, mut suspicions) = (Vec::new(), Vec::new(), Vec::new());
    for mut item in upstream.items.into_iter().take(ITEMS) {
        match item.body.take() {
            Some(Body::Signal(signal)) => calls.push(signal),
            Some(Body::SendTo(word)) => words.push(word),
            Some(Body::Suspicion(suspicion)) => suspicions.push(suspicion),
            Some(Body::Revocations(list)) => revocations::adopt(hub, list).await,
            body => take(hub, &mut sorted, &key, UpstreamItem { body, ..item }),
        }
    }
    for signal in calls.into_iter().take(CALLS) {
        pass_on(hub, node, signal).await;
    }
    for word in words.into_iter().take(WORDS) {
        hand_on(hub, node, word).await;
    }
    for suspicion in suspicions.into_iter().take(SUSPICIONS) {
        suspect(hub, suspicion).await;
    }
    if sorted.reports.is_empty() && sorted.incidents.is_empty() { None } else { Some(sorted) }
}

fn take(hub: &Hub, sorted: &mut Sorted, key: &[u8], item: UpstreamItem) {
    let node = sorted.node;
    match item.body {
        Some(Body::TaskReport(sealed)) => {
            if let Some((report, traceparent)) = verified(&sealed, node, key, &hub.sealing) {
                // The last hop's is the longer one.
                let last = if item.traceparent.is_empty() { &traceparent } else { &item.traceparent };
                sorted.spans.extend(trace(node, &report, last));
                sorted.reports.push(report);
            }
        }
        Some(Body::ProbeAnswer(answer)) => {
            let life =
                answer.life.as_ref().and_then(|sealed| wire::life(sealed, node, key, answer.nonce).ok());
            hub.answer_probe(answer.nonce, Answered { node, life });
        }
        Some(Body::Disconnection(it)) => {
            let (Some(begin), Some(duration)) =
                (it.begin_time.and_then(from_wire), it.duration.and_then(span_from_wire))
            else {
                return;
            };
            let body =
                EventBody::Disconnection { node, begin, duration, reason: it.reason, detail: it.detail };
            sorted.incident(it.item_id, body);
        }
        Some(Body::Failure(it)) => {
            let (operation, reason_code, reason) = (it.operation, it.reason_code, it.reason);
            sorted.incident(it.item_id, EventBody::OperationFailed { node, operation, reason_code, reason });
        }
        // Of a node without an LSN, whose whole word about itself it is; an LSN adds its cell up.
        Some(Body::Usage(usage)) => count(&usage),
        // Taken out before.
        Some(Body::Signal(_) | Body::SendTo(_) | Body::Suspicion(_) | Body::Revocations(_)) | None => {}
    }
}

/// A call goes to whatever stream has the called node, on whichever replica; who is away is not called. It is signed
/// from end to end, so it is not read here.
async fn pass_on(hub: &Hub, from: NodeId, Signal { to_id, call }: Signal) {
    let (Ok(to), Some(call)) = (wire::node_id(&to_id, "to_id"), call) else { return };
    if call.encoded_len() > CALL_BYTES {
        return tracing::info!(%from, "a call that is too large is dropped");
    }
    let Some(carrier) = carrier_of(hub, to).await else {
        return tracing::debug!(%from, %to, "nobody is there to be called");
    };
    let passed = hub.mail(carrier, Mail::Call { to, call: Opaque(call.encode_to_vec()) });
    tracing::debug!(%from, %to, passed, "a call");
}

/// A word for which no super node was found; whoever says it says it again.
async fn hand_on(hub: &Hub, by: NodeId, word: SendTo) {
    let Ok(to) = wire::node_id(&word.to_id, "to_id") else { return };
    if word.encoded_len() > WORD_BYTES || word.hops == 0 {
        return tracing::info!(%by, "a word to a node that is too large, or came round too often, is dropped");
    }
    let Some(carrier) = carrier_of(hub, to).await else {
        return tracing::debug!(%by, %to, "nobody is there to be told");
    };
    let word = SendTo { hops: word.hops - 1, ..word };
    let passed = hub.mail(carrier, Mail::SendTo { to, word: Opaque(word.encode_to_vec()) });
    tracing::debug!(%by, %to, passed, "a word to a node");
}

/// Who holds the stream by which an online node is reached.
async fn carrier_of(hub: &Hub, node: NodeId) -> Option<NodeId> {
    let found = hub.store.nodes_by_id(&[node]).await.ok().and_then(|mut found| found.pop());
    found.filter(|it| it.row.is_online()).map(|it| it.row.carrier())
}

/// The LSN of a node that somebody does not reach is told. An LSN itself is watched by its heartbeats.
async fn suspect(hub: &Hub, Suspicion { node_id }: Suspicion) {
    let Ok(of) = wire::node_id(&node_id, "node_id") else { return };
    let found = hub.store.nodes_by_id(&[of]).await.ok().and_then(|mut found| found.pop());
    let lsn = found.filter(|it| it.row.is_online()).map(|it| it.row.carrier());
    if let Some(lsn) = lsn.filter(|lsn| *lsn != of) {
        hub.mail(lsn, Mail::Suspicion { of });
    }
}

impl Sorted {
    fn of(node: NodeId) -> Self {
        let (reports, incidents, item_ids, spans) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { node, reports, incidents, item_ids, spans }
    }

    fn incident(&mut self, item_id: String, body: EventBody) {
        if item_id.is_empty() || item_id.len() > ITEM_ID {
            return;
        }
        self.incidents.push((format!("{}/{item_id}", self.node), body));
        self.item_ids.push(item_id);
    }
}

/// The report with the trace that its node puts it in.
fn verified(sealed: &Envelope, node: NodeId, key: &[u8], sealing: &SealingKey) -> Option<(Report, String)> {
    match wire::report(sealed, node, key, sealing) {
        Ok(verified) => {
            metrics::report(true);
            Some(verified)
        }
        Err(error) => {
            metrics::report(false);
            tracing::warn!(%node, %error, "a task report is dropped");
            None
        }
    }
}

/// The master's end of the trace that began with the task's creation and went through the node.
fn trace(node: NodeId, report: &Report, traceparent: &str) -> Option<Span> {
    if traceparent.is_empty() || matches!(report.step, Step::Output(_) | Step::Progress(_)) {
        return None;
    }
    let span = tracing::info_span!("task.report", task = %report.task, %node, sequence = report.sequence);
    telemetry::continue_from(&span, traceparent);
    Some(span)
}

/// Commits; acknowledgements go down only then.
pub(super) async fn commit(hub: Arc<Hub>, sorted: Sorted) -> Vec<Frame> {
    let Sorted { node, reports, incidents, item_ids, spans } = sorted;
    crash::point("report.received");
    let mut bodies = Vec::new();
    if !reports.is_empty() {
        match hub.writer.submit(Reports { node, reports }).await {
            Ok(acknowledged) => bodies.extend(acknowledged.into_iter().map(|it| {
                downstream::Body::TaskReportAck(TaskReportAck {
                    task_id: Bytes::copy_from_slice(it.task.as_bytes()),
                    occurrence: it.occurrence,
                    sequence: it.upto,
                })
            })),
            // Unacknowledged reports come again.
            Err(error) => tracing::error!(%node, %error, "reports are not committed"),
        }
        crash::point("report.committed");
    }
    drop(spans);
    if !incidents.is_empty() && hub.writer.submit(Incidents { incidents }).await.is_ok() {
        bodies.push(downstream::Body::ItemAck(ItemAck { item_ids }));
    }
    let targets = vec![Bytes::copy_from_slice(node.as_bytes())];
    bodies
        .into_iter()
        .map(|body| Frame::Downstream(Downstream { targets: targets.clone(), body: Some(body) }))
        .collect()
}
