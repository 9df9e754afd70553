//! RefreshPresence: asks nodes themselves, over the path that a task would take.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_kit::clock;
use muster_kit::status::{Fault, fault};
use muster_proto::fleet::v1 as fleet;
use muster_types::NodeId;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tonic::Code;

use super::{page, select};
use crate::domain::filter::NodeFilter;
use crate::grpc::refusal::invalid;
use crate::grpc::{render, wire};
use crate::hub::{Hub, Mail};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Targets of one message (contract of Downstream).
const TARGETS: usize = 1_000;

pub(super) async fn refresh(
    hub: &Hub,
    request: fleet::RefreshPresenceRequest,
) -> Result<fleet::RefreshPresenceResponse, Fault> {
    let limit = wire::span(request.timeout, DEFAULT_TIMEOUT)
        .filter(|limit| *limit <= LONGEST_TIMEOUT)
        .ok_or_else(|| invalid("BAD_TIMEOUT", format!("the timeout is at most {LONGEST_TIMEOUT:?}")))?;
    let filter = select::filter(hub, request.filter.unwrap_or_default()).await?;
    let (after, probed) = (page::key(&request.page_token)?, page::many(0)?);
    let nodes = select::nodes(hub, &filter, after, probed).await?;
    let next = nodes.last().filter(|_| nodes.len() == probed).map(|last| last.stored.row.id);
    let asked: BTreeSet<NodeId> = nodes.iter().map(|it| it.stored.row.id).collect();
    let mut streams: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    for node in nodes.iter().map(|it| &it.stored.row).filter(|node| node.is_online()) {
        streams.entry(node.carrier()).or_default().push(node.id);
    }
    let heard = ask(hub, streams, Instant::now() + limit).await?;
    let now = clock::wall();
    // As they are shown now: an answer may have come with a change.
    let fresh =
        select::nodes(hub, &NodeFilter { ids: Some(asked), ..NodeFilter::default() }, None, probed).await?;
    let (answered, silent): (Vec<_>, Vec<_>) =
        fresh.into_iter().partition(|it| heard.contains(&it.stored.row.id));
    let show = |nodes: Vec<select::Selected>| {
        nodes.into_iter().map(|it| render::node(&it.stored.row, it.place, it.stored.revision, now)).collect()
    };
    let next_page_token = next.map(page::token).unwrap_or_default();
    Ok(fleet::RefreshPresenceResponse { answered: show(answered), silent: show(silent), next_page_token })
}

/// Sends the probes and collects who answers until the deadline, or until all have.
async fn ask(
    hub: &Hub,
    streams: BTreeMap<NodeId, Vec<NodeId>>,
    deadline: Instant,
) -> Result<BTreeSet<NodeId>, Fault> {
    let nonce = rand::random::<u64>();
    let (answers, mut heard) = mpsc::channel(streams.values().map(Vec::len).sum::<usize>().max(1));
    if !hub.expect_answers(nonce, answers) {
        return Err(fault(Code::ResourceExhausted, "TOO_MANY_PROBES", "too many calls are asking nodes now"));
    }
    let mut expected = 0;
    for (carrier, nodes) in streams {
        for targets in nodes.chunks(TARGETS) {
            if hub.mail(carrier, Mail::Probe { nonce, targets: targets.to_vec(), signed: false }) {
                expected += targets.len();
            }
        }
    }
    let mut answered = BTreeSet::new();
    while answered.len() < expected {
        match timeout_at(deadline, heard.recv()).await {
            Ok(Some(heard)) => answered.insert(heard.node),
            Ok(None) | Err(_) => break,
        };
    }
    hub.forget_probe(nonce);
    Ok(answered)
}
