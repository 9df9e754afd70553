//! What goes down a stream: orders to nodes that have not taken them, and cancellations.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;

use bytes::Bytes;
use muster_kit::{clock, crash, telemetry};
use muster_proto::control::v1::{Downstream, TaskCancellation, TaskOffer, downstream};
use muster_types::{NodeId, Timestamp};

use crate::domain::task::{OF_THE_LOST, TaskId, WORD_AFTER};
use crate::grpc::render;
use crate::hub::Hub;
use crate::metrics;
use crate::store::{Offer, StoreError};

/// What this stream has sent and may send again after [`WORD_AFTER`] without an effect in the store. Both maps hold
/// no more than one read of the store returns, as what was answered drops out.
#[derive(Default)]
pub(super) struct Sent {
    offers: HashMap<(TaskId, NodeId), Timestamp>,
    cancellations: HashMap<(TaskId, NodeId), Timestamp>,
}

/// Keeps what is still open, and answers what is due now.
fn due<K: Hash + Eq + Copy>(sent: &mut HashMap<K, Timestamp>, open: &[K], now: Timestamp) -> Vec<K> {
    let kept = open.iter().filter_map(|key| Some((*key, *sent.get(key)?)));
    *sent = kept.filter(|(_, at)| now.since(*at) < WORD_AFTER).collect();
    let due: Vec<K> = open.iter().filter(|key| !sent.contains_key(key)).copied().collect();
    sent.extend(due.iter().map(|key| (*key, now)));
    due
}

impl Sent {
    /// What this stream is to say now.
    pub(super) async fn due(
        &mut self,
        hub: &Hub,
        carrier: NodeId,
        lost: bool,
    ) -> Result<Vec<Downstream>, StoreError> {
        let now = clock::wall();
        let open = hub.store.due(carrier, now).await?;
        let offers = if lost { only_for_the_lost(hub, open.offers).await? } else { open.offers };
        let mut messages = self.orders(hub, carrier, offers, now).await?;
        messages.extend(self.cancellations(hub, &open.cancellations, now).await?);
        Ok(messages)
    }

    /// One message for each order, to all nodes of this stream that have not taken it.
    async fn orders(
        &mut self,
        hub: &Hub,
        carrier: NodeId,
        open: Vec<Offer>,
        now: Timestamp,
    ) -> Result<Vec<Downstream>, StoreError> {
        let keys: Vec<_> = open.iter().map(|offer| (offer.task, offer.node)).collect();
        let due: HashSet<_> = due(&mut self.offers, &keys, now).into_iter().collect();
        let mut orders: BTreeMap<(TaskId, u32), (String, Vec<NodeId>)> = BTreeMap::new();
        for offer in open.into_iter().filter(|offer| due.contains(&(offer.task, offer.node))) {
            let order = orders.entry((offer.task, offer.part)).or_insert((offer.traceparent, Vec::new()));
            order.1.push(offer.node);
        }
        let mut messages = Vec::with_capacity(orders.len());
        for ((task, part), (traceparent, nodes)) in orders {
            let Some(order) = hub.store.order(task, part).await?.as_ref().and_then(render::envelope) else {
                continue;
            };
            tracing::debug!(%task, %carrier, nodes = nodes.len(), "offered");
            metrics::offered();
            crash::point("task.offered");
            let traceparent = trace(task, nodes.len(), &traceparent);
            let offer = TaskOffer { order: Some(order), traceparent };
            messages.push(message(&nodes, downstream::Body::TaskOffer(offer)));
        }
        Ok(messages)
    }

    /// One message for each cancelled task that has not ended on nodes of this stream.
    async fn cancellations(
        &mut self,
        hub: &Hub,
        open: &[(TaskId, NodeId)],
        now: Timestamp,
    ) -> Result<Vec<Downstream>, StoreError> {
        let mut tasks: BTreeMap<TaskId, Vec<NodeId>> = BTreeMap::new();
        for (task, node) in due(&mut self.cancellations, open, now) {
            tasks.entry(task).or_default().push(node);
        }
        let mut messages = Vec::with_capacity(tasks.len());
        for (task, nodes) in tasks {
            let Some(summary) = hub.store.task(task).await? else { continue };
            let cancellation = render::envelope(&summary.cancellation);
            let body = downstream::Body::TaskCancellation(TaskCancellation { cancellation });
            messages.push(message(&nodes, body));
        }
        Ok(messages)
    }
}

/// What a lost device is admitted for.
async fn only_for_the_lost(hub: &Hub, offers: Vec<Offer>) -> Result<Vec<Offer>, StoreError> {
    let mut open = Vec::new();
    for offer in offers {
        let task = hub.store.task(offer.task).await?;
        if task.is_some_and(|it| OF_THE_LOST.contains(&it.task.kind.as_str())) {
            open.push(offer);
        }
    }
    Ok(open)
}

/// This step of the trace that began with the task's creation, for whoever it is offered to.
fn trace(task: TaskId, nodes: usize, traceparent: &str) -> String {
    if traceparent.is_empty() {
        return String::new();
    }
    telemetry::onward(&tracing::info_span!("task.offer", %task, nodes), traceparent)
}

pub(super) fn message(nodes: &[NodeId], body: downstream::Body) -> Downstream {
    let targets = nodes.iter().map(|node| Bytes::copy_from_slice(node.as_bytes())).collect();
    Downstream { targets, body: Some(body) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_offer_is_repeated_after_thirty_seconds_and_forgotten_once_taken() {
        let start = Timestamp::from_micros(1_000_000);
        let mut sent = HashMap::new();
        assert_eq!(due(&mut sent, &[1, 2], start), [1, 2]);
        assert_eq!(due(&mut sent, &[1, 2, 3], start + Duration::from_secs(10)), [3]);
        assert_eq!(due(&mut sent, &[2, 3], start + Duration::from_secs(30)), [2]);
        assert_eq!(sent.len(), 2);
    }
}
