//! Whether an order may be carried out here: genuine, of this network, meant for this node, in time, and understood.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use muster_proto::control::v1::{CancellationOrder, TaskOffer};
use muster_proto::payload_type::{TASK, TASK_CANCELLATION};
use muster_proto::task::v1::{Lane, TaskClass, TaskOrder, TaskSpec, TaskState, content::Source};
use muster_proto::trust::v1::{Envelope, Sealed};
use muster_types::limits::{INLINE_BYTES, ORDER_TARGETS, TASK_LIFETIME};
use muster_types::{NodeId, Timestamp};
use muster_wire::OperatorPolicy;
use muster_wire::envelope::EnvelopeError;
use muster_wire::sealing::{ARGUMENTS, KEY_BYTES, SealingKey, place_of_task};
use muster_wire::time::{from_wire, span_from_wire};
use muster_wire::trust::TrustStore;
use prost::Message;

use crate::journal::{TaskId, TaskKey};
use crate::tasks::{Job, Registry};

/// The longest execution; what an order asks beyond is cut to it.
const LONGEST_EXECUTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// The master's clock may be ahead of what this node believes it to be by so much.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);

/// An order that may be carried out.
pub struct Admitted {
    pub key: TaskKey,
    pub job: Box<dyn Job>,
    pub exclusive: bool,
    pub timeout: Duration,
    /// By the master's clock; not to be started later.
    pub expires: Timestamp,
    /// Of a confidential task: what its reports are sealed to.
    pub result_key: Option<Bytes>,
}

/// Why an order is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It says nothing that could be answered.
    #[error("the order is malformed: {0}")]
    Malformed(String),
    /// It may be genuine: this node does not know the signer yet.
    #[error("the order of task {0} is signed by somebody unknown: {1}")]
    UnknownSigner(TaskKey, EnvelopeError),
    #[error("the order of task {key} is refused: {reason}")]
    Answered { key: TaskKey, state: TaskState, code: &'static str, reason: String },
}

/// For programs and for people.
type Reason = (&'static str, String);

/// The judge of orders and cancellations.
#[derive(Clone)]
pub struct Admission {
    node: NodeId,
    trust: Arc<ArcSwap<TrustStore>>,
    registry: Registry,
    sealing: SealingKey,
    operators: Arc<ArcSwapOption<OperatorPolicy>>,
}

impl Admission {
    pub fn new(
        node: NodeId,
        trust: Arc<ArcSwap<TrustStore>>,
        registry: Registry,
        sealing: SealingKey,
        operators: Arc<ArcSwapOption<OperatorPolicy>>,
    ) -> Self {
        Self { node, trust, registry, sealing, operators }
    }

    /// Judges an order at `now`, by the master's clock.
    ///
    /// # Errors
    /// Why it is not carried out, and what to answer.
    pub fn judge(&self, offer: &TaskOffer, now: Timestamp) -> Result<Admitted, Refusal> {
        let envelope =
            offer.order.as_ref().ok_or_else(|| Refusal::Malformed("it has no envelope".to_owned()))?;
        let claimed = TaskOrder::decode(envelope.payload.clone())
            .map_err(|error| Refusal::Malformed(error.to_string()))?;
        let key = TaskKey::new(&claimed.task_id, &claimed.occurrence)
            .ok_or_else(|| Refusal::Malformed("its task id or occurrence is malformed".to_owned()))?;
        let refuse =
            |state, code, reason: String| Refusal::Answered { key: key.clone(), state, code, reason };
        let reject = |code, reason: String| refuse(TaskState::Rejected, code, reason);

        match self.trust.load().open(envelope, TASK) {
            Ok(_) => {}
            Err(error @ EnvelopeError::UnknownSigner(_)) => {
                return Err(Refusal::UnknownSigner(key.clone(), error));
            }
            Err(error @ EnvelopeError::Withdrawn(_)) => {
                return Err(reject("SIGNER_WITHDRAWN", error.to_string()));
            }
            Err(error) => return Err(reject("BAD_SIGNATURE", error.to_string())),
        }
        self.check_operator(envelope, now).map_err(|(code, reason)| reject(code, reason))?;
        // The bytes that were just verified are those that were parsed above.
        let order = claimed;
        self.check_addressee(&order).map_err(|(code, reason)| reject(code, reason))?;
        let expires = expiry(&order, now).map_err(|(code, reason)| reject(code, reason))?;
        if now > expires {
            return Err(refuse(TaskState::Expired, "EXPIRED", "it came after its lifetime".to_owned()));
        }
        let (job, timeout) = self.understand(&order).map_err(|(code, reason)| reject(code, reason))?;
        let spec = order.spec.unwrap_or_default();
        let exclusive = spec.lane() == Lane::Exclusive;
        let result_key = (spec.class() == TaskClass::Confidential).then_some(spec.result_key);
        Ok(Admitted { key, job, exclusive, timeout, expires, result_key })
    }

    /// Judges a cancellation and says which task it ends.
    ///
    /// # Errors
    /// It is not genuine or of another network.
    pub fn judge_cancellation(&self, envelope: &Envelope) -> Result<TaskId, Refusal> {
        let malformed = |reason: &str| Refusal::Malformed(reason.to_owned());
        let trust = self.trust.load();
        let payload =
            trust.open(envelope, TASK_CANCELLATION).map_err(|error| malformed(&error.to_string()))?;
        let order = CancellationOrder::decode(payload).map_err(|error| malformed(&error.to_string()))?;
        if order.network_id != trust.network().as_bytes() {
            return Err(malformed("the cancellation is of another network"));
        }
        TaskId::try_from(&order.task_id[..]).map_err(|_| malformed("the cancelled task's id is malformed"))
    }

    /// Where the operators' root demands it, what only the master signed is refused.
    fn check_operator(&self, envelope: &Envelope, now: Timestamp) -> Result<(), Reason> {
        let policy = self.operators.load();
        let Some(policy) = policy.as_ref().filter(|policy| policy.is_required()) else { return Ok(()) };
        let operator = policy.operator_of(envelope, TASK, now);
        let operator = operator.map_err(|error| ("OPERATOR_SIGNATURE_REQUIRED", error.to_string()))?;
        tracing::info!(operator, "an order is signed by an operator");
        Ok(())
    }

    fn check_addressee(&self, order: &TaskOrder) -> Result<(), Reason> {
        if order.network_id != self.trust.load().network().as_bytes() {
            return Err(("WRONG_NETWORK", "it is of another network".to_owned()));
        }
        if order.targets.len() > ORDER_TARGETS {
            return Err(("TOO_MANY_TARGETS", format!("{} targets in one order", order.targets.len())));
        }
        if !order.targets.iter().any(|target| target == self.node.as_bytes()) {
            return Err(("NOT_A_TARGET", "this node is not among its targets".to_owned()));
        }
        Ok(())
    }

    fn understand(&self, order: &TaskOrder) -> Result<(Box<dyn Job>, Duration), Reason> {
        let spec = order.spec.as_ref().ok_or(("BAD_ARGUMENTS", "it has no specification".to_owned()))?;
        let kind = self.registry.find(&spec.r#type).ok_or_else(|| {
            let known: Vec<_> = self.registry.names().collect();
            ("UNKNOWN_TYPE", format!("{:?} is none of {}", spec.r#type, known.join(", ")))
        })?;
        let arguments = match spec.arguments.as_ref().and_then(|content| content.source.as_ref()) {
            None => bytes::Bytes::new(),
            Some(Source::Inline(bytes)) if bytes.len() <= INLINE_BYTES => bytes.clone(),
            Some(Source::Inline(bytes)) => {
                return Err((
                    "BAD_ARGUMENTS",
                    format!("{} bytes of arguments; {INLINE_BYTES} are the most", bytes.len()),
                ));
            }
            Some(Source::Reference(_)) => {
                return Err(("REFERENCE_UNSUPPORTED", "this agent cannot fetch arguments yet".to_owned()));
            }
        };
        let arguments = if spec.class() == TaskClass::Confidential {
            self.unseal(order, spec, &arguments)?
        } else {
            arguments
        };
        let job = kind.prepare(arguments).map_err(|reason| ("BAD_ARGUMENTS", reason))?;
        let asked = spec.timeout.and_then(span_from_wire).filter(|span| !span.is_zero());
        Ok((job, asked.unwrap_or_else(|| kind.default_timeout()).min(LONGEST_EXECUTION)))
    }
}

impl Admission {
    fn unseal(&self, order: &TaskOrder, spec: &TaskSpec, sealed: &Bytes) -> Result<Bytes, Reason> {
        if spec.result_key.len() != KEY_BYTES {
            return Err(("BAD_ARGUMENTS", "a confidential task names no key for its result".to_owned()));
        }
        let place = place_of_task(self.trust.load().network(), &order.task_id, self.node);
        let sealed = Sealed::decode(sealed.clone()).map_err(|error| ("BAD_ARGUMENTS", error.to_string()))?;
        let opened = self.sealing.open(ARGUMENTS, &place, &sealed);
        opened.map_err(|error| ("NOT_SEALED_TO_US", error.to_string()))
    }
}

fn expiry(order: &TaskOrder, now: Timestamp) -> Result<Timestamp, Reason> {
    let issued =
        order.issue_time.and_then(from_wire).ok_or(("BAD_LIFETIME", "it has no issue time".to_owned()))?;
    let lifetime = order
        .lifetime
        .and_then(span_from_wire)
        .filter(|span| *span <= TASK_LIFETIME)
        .ok_or(("BAD_LIFETIME", "its lifetime is missing or longer than 30 days".to_owned()))?;
    if issued > now + CLOCK_TOLERANCE {
        return Err((
            "BAD_LIFETIME",
            "it was issued in the future, by the master's clock as this node knows it".to_owned(),
        ));
    }
    Ok(issued + lifetime)
}
