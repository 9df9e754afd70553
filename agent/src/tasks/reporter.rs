//! Reports of one execution: numbered, signed, kept in the journal, and sent.
//!
//! A report goes to the network and to the journal at the same time; who cannot send it now finds it in the journal.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_kit::clock::MasterClock;
use muster_kit::{crash, telemetry};
use muster_proto::control::v1::{TrafficClass, UpstreamItem, upstream_item};
use muster_proto::payload_type::TASK_REPORT;
use muster_proto::task::v1::task_report::Step;
use muster_proto::task::v1::{Finished, Output, OutputStream, Progress, TaskReport};
use muster_proto::trust::v1::Envelope;
use muster_types::{NodeId, Timestamp};
use muster_wire::envelope::sign_ed25519;
use muster_wire::sealing::{self, REPORTS, place_of_report};
use muster_wire::time::to_wire;
use prost::Message;
use ring::signature::Ed25519KeyPair;
use tokio::sync::{broadcast, mpsc};
use tracing::Span;

use crate::journal::{Item, Journal, Report, TaskKey};

/// Items on their way to whoever holds the route to the master. When full, they are sent again from the journal.
pub const OUTBOX_ITEMS: usize = 512;

/// Acknowledgements that one who waits may lag behind; who does sees the next one.
const ACKNOWLEDGEMENTS: usize = 256;

/// The node's pen: who signs, with what, by which clock.
#[derive(Clone)]
pub struct Signer {
    pub node: NodeId,
    pub key: Arc<Ed25519KeyPair>,
    pub clock: MasterClock,
}

/// Where signed things go: durable memory and the network.
#[derive(Clone)]
pub struct Outbox {
    journal: Journal,
    network: mpsc::Sender<UpstreamItem>,
    /// What the master acknowledges, for those who wait for it.
    acknowledged: broadcast::Sender<(TaskKey, u64)>,
}

impl Outbox {
    pub fn new(journal: Journal) -> (Self, mpsc::Receiver<UpstreamItem>) {
        let (network, items) = mpsc::channel(OUTBOX_ITEMS);
        (Self { journal, network, acknowledged: broadcast::Sender::new(ACKNOWLEDGEMENTS) }, items)
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Sends now if there is room; the journal has it in any case.
    pub(crate) fn send_now(&self, item: UpstreamItem) {
        if self.network.try_send(item).is_err() {
            tracing::debug!("the way to the master is full; the journal sends it later");
        }
    }

    pub(crate) fn on_acknowledged(&self, key: TaskKey, sequence: u64) {
        // Mostly nobody waits.
        let _ = self.acknowledged.send((key, sequence));
    }

    /// Sends as soon as there is room. `false` if nobody listens any more.
    pub(crate) async fn send(&self, item: UpstreamItem) -> bool {
        self.network.send(item).await.is_ok()
    }

    /// Keeps an item until the master acknowledged it, and sends it.
    pub async fn keep(&self, id: String, made: Timestamp, item: UpstreamItem) {
        let body = Bytes::from(item.encode_to_vec());
        let kept = self.journal.keep_item(Item { id, made, body });
        self.send_now(item);
        if let Err(error) = kept.await {
            tracing::warn!(%error, "a report for the master could not be kept");
        }
    }
}

/// Writes the reports of one execution.
pub struct Reporter {
    key: TaskKey,
    next: u64,
    signer: Signer,
    outbox: Outbox,
    /// From the order to the last report's commit.
    span: Span,
    /// The span's, for whoever goes on with the trace.
    traceparent: String,
    class: TrafficClass,
    /// Of a confidential task: what its reports are sealed to.
    result_key: Option<Bytes>,
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reporter({}, next {})", self.key, self.next)
    }
}

impl Reporter {
    /// `traceparent` is what came with the order, or empty.
    pub fn new(key: TaskKey, next: u64, signer: Signer, outbox: Outbox, traceparent: &str) -> Self {
        let span = tracing::info_span!("task", task = %key);
        let traceparent = telemetry::onward(&span, traceparent);
        Self { key, next, signer, outbox, span, traceparent, class: TrafficClass::Task, result_key: None }
    }

    /// What is done for this task is done within it.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// From the next step on, its last included: steps of one execution keep their order only within one class.
    pub fn send_as(&mut self, class: TrafficClass) {
        self.class = class;
    }

    /// Seals from now on what is reported, to the holder of `key`.
    pub fn sealing_to(mut self, key: Option<Bytes>) -> Self {
        self.result_key = key;
        self
    }

    /// Numbers and signs a step without keeping or sending it yet.
    pub fn write(&mut self, step: Step) -> Report {
        let terminal = matches!(step, Step::Finished(_));
        let moves = !matches!(step, Step::Output(_) | Step::Progress(_));
        let class = match step {
            Step::Progress(_) => TrafficClass::Telemetry,
            _ => self.class,
        };
        let sequence = self.next;
        self.next += 1;
        let step = self.sealed(step, sequence);
        let report = TaskReport {
            task_id: Bytes::copy_from_slice(&self.key.task),
            occurrence: self.key.occurrence.clone(),
            node_id: Bytes::copy_from_slice(self.signer.node.as_bytes()),
            sequence,
            report_time: Some(to_wire(self.signer.clock.now())),
            traceparent: self.traceparent.clone(),
            step: Some(step),
        };
        let payload = Bytes::from(report.encode_to_vec());
        let envelope = sign_ed25519(TASK_REPORT, payload, &self.signer.key);
        let envelope = Bytes::from(envelope.encode_to_vec());
        let traceparent = if moves { self.traceparent.clone() } else { String::new() };
        Report { key: self.key.clone(), sequence, class: class.into(), envelope, terminal, traceparent }
    }

    /// What of a confidential task's step may be seen on its way.
    fn sealed(&self, step: Step, sequence: u64) -> Step {
        let Some(key) = &self.result_key else { return step };
        let place = place_of_report(&self.key.task, &self.key.occurrence, self.signer.node, sequence);
        // Admission has checked the key's length; a key that is none in another way reads nothing.
        let seal = |plain: &[u8]| Some(sealing::seal(key, REPORTS, &place, plain).unwrap_or_default());
        match step {
            Step::Output(Output { stream, offset, data, .. }) => {
                Step::Output(Output { stream, offset, sealed: seal(&data), ..Output::default() })
            }
            Step::Progress(progress) => {
                let sealed = seal(&progress.encode_to_vec());
                Step::Progress(Progress { sealed, ..Progress::default() })
            }
            Step::Finished(finished) => {
                let (state, sealed) = (finished.state, seal(&finished.encode_to_vec()));
                Step::Finished(Finished { state, sealed, ..Finished::default() })
            }
            Step::Delivered(_) | Step::Started(_) => step,
        }
    }

    /// Keeps and sends a step. Returns once it is durable, or known not to be.
    pub async fn report(&mut self, step: Step) {
        let report = self.write(step);
        let kept = self.outbox.journal.append(report.clone());
        self.send(&report);
        if let Err(error) = kept.await {
            tracing::warn!(task = %self.key, %error, "a report is sent, but not kept");
        }
    }

    pub async fn output(&mut self, stream: OutputStream, offset: u64, data: Bytes) {
        let output = Output { stream: stream.into(), offset, data, ..Output::default() };
        self.report(Step::Output(output)).await;
        crash::point("output.sent");
    }

    pub async fn progress(&mut self, progress: Progress) {
        self.report(Step::Progress(progress)).await;
    }

    /// Reports a step and waits until the master has it durably; `false` if that took longer than `limit`.
    pub async fn report_heard(&mut self, step: Step, limit: Duration) -> bool {
        let (mut acknowledged, sequence) = (self.outbox.acknowledged.subscribe(), self.next);
        self.report(step).await;
        let heard = async {
            loop {
                match acknowledged.recv().await {
                    Ok((key, upto)) if key == self.key && upto >= sequence => return,
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(limit, heard).await.is_ok()
    }

    pub async fn finish(&mut self, finished: Finished) {
        self.report(Step::Finished(finished)).await;
        crash::point("journal.finished");
    }

    /// Sends what is already in the journal.
    pub fn send(&self, report: &Report) {
        if let Some(item) = item_of(report) {
            self.outbox.send_now(item);
            if report.terminal {
                crash::point("report.sent");
            }
        }
    }
}

/// A kept report as it travels; `None` if it cannot be read, which only a damaged journal brings about.
pub(super) fn item_of(report: &Report) -> Option<UpstreamItem> {
    let envelope = Envelope::decode(report.envelope.clone()).ok()?;
    let body = Some(upstream_item::Body::TaskReport(envelope));
    Some(UpstreamItem { class: report.class, body, traceparent: report.traceparent.clone() })
}
