//! Sessions with other places and the host's own network, for people on this host.

use std::pin::Pin;
use std::time::Duration;

use futures::StreamExt;
use muster_kit::connect::{self, Proxy};
use muster_kit::status::{Fault, fault};
use muster_overlay::meeting::{Ports, Tried};
use muster_proto::agent::v1::{
    CheckNetworkResponse, ProxyStanding, ReachRequest, ReachResponse, RelayStanding, Sight, TriedAddress,
};
use muster_types::NodeId;
use muster_wire::time::{span_from_wire, span_to_wire};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::meetings::{Checked, Command, Meetings, Progress, REPORTS};

pub(super) type Reports = Pin<Box<dyn futures::Stream<Item = Result<ReachResponse, Status>> + Send>>;

/// If the caller names none: relay and search, each with time to spare.
const PATIENCE: Duration = Duration::from_secs(10);

/// For everything that a check asks.
const CHECK: Duration = Duration::from_secs(15);

/// Every stage of the way to a node, until nothing better is to be expected.
pub(super) async fn reach(meetings: &Meetings, request: &ReachRequest) -> Result<Reports, Fault> {
    let invalid = |error: String| fault(Code::InvalidArgument, "NODE_INVALID", error);
    let peer = NodeId::try_from(&request.node_id[..]).map_err(|error| invalid(error.to_string()))?;
    if peer == meetings.node() {
        return Err(invalid(format!("{peer}: that is this host")));
    }
    let patience =
        request.timeout.and_then(span_from_wire).filter(|span| !span.is_zero()).unwrap_or(PATIENCE);
    let (reports, mut inbox) = mpsc::channel(REPORTS);
    meetings.tell(Command::Reach { peer, reports }).await;
    let (answers, stream) = mpsc::channel(REPORTS);
    tokio::spawn(async move {
        let deadline = Instant::now() + patience;
        let mut last: Option<Progress> = None;
        while let Ok(Some(progress)) = timeout_at(deadline, inbox.recv()).await {
            let changed = last.as_ref().is_none_or(|last| last.path != progress.path || progress.settled);
            let settled = progress.settled;
            if changed && answers.send(Ok(wire(&progress))).await.is_err() {
                return;
            }
            last = Some(progress);
            if settled {
                return;
            }
        }
        if let Some(progress) = last {
            // Who asked may have gone.
            let _ = answers.send(Ok(wire(&Progress { settled: true, ..progress }))).await;
        }
    });
    Ok(ReceiverStream::new(stream).boxed())
}

fn wire(progress: &Progress) -> ReachResponse {
    ReachResponse {
        path: progress.path.to_owned(),
        remote: progress.remote.clone(),
        elapsed: Some(span_to_wire(progress.elapsed)),
        round_trip: progress.round_trip.map(span_to_wire),
        settled: progress.settled,
        tried: progress.tried.iter().map(tried).collect(),
        reason: progress.reason.clone(),
    }
}

fn tried(it: &Tried) -> TriedAddress {
    TriedAddress {
        address: it.at.to_string(),
        kind: it.kind.as_str().to_owned(),
        probes: it.probes,
        round_trip: it.round_trip.map(span_to_wire),
    }
}

pub(super) async fn check(meetings: &Meetings) -> Result<CheckNetworkResponse, Fault> {
    let late = || fault(Code::DeadlineExceeded, "NETWORK_SILENT", format!("no result within {CHECK:?}"));
    let (answer, answered) = oneshot::channel();
    meetings.tell(Command::Check(answer)).await;
    let checked = tokio::time::timeout(CHECK, answered).await.map_err(|_| late())?;
    let Checked { sight, relays, proxy } = checked.map_err(|_| late())?;
    let sights = sight.seen.iter().map(|seen| Sight {
        server: seen.server.to_string(),
        seen: seen.answer.map(|(at, _)| at.to_string()).unwrap_or_default(),
        round_trip: seen.answer.map(|(_, round_trip)| span_to_wire(round_trip)),
    });
    Ok(CheckNetworkResponse {
        own_addresses: sight.own.iter().map(ToString::to_string).collect(),
        sights: sights.collect(),
        mapping: sight.mapping().to_owned(),
        filtering: "unknown".to_owned(),
        hairpin: "unknown".to_owned(),
        ports: ports(sight.ports()).to_owned(),
        udp: sight.seen.iter().any(|seen| seen.answer.is_some()),
        meaning: sight.meaning(&relays),
        proxy: proxy.map(|(proxy, last)| standing(&proxy, last.as_deref())),
        relays: relays
            .into_iter()
            .map(|it| RelayStanding { name: it.name, addresses: it.addresses, connected: it.connected })
            .collect(),
    })
}

fn standing(proxy: &Proxy, last: Option<&connect::Tried>) -> ProxyStanding {
    let fault = last.and_then(|tried| tried.fault.as_ref());
    ProxyStanding {
        address: proxy.address(),
        source: proxy.source().to_string(),
        tried: last.is_some(),
        trouble: fault.map(ToString::to_string).unwrap_or_default(),
    }
}

fn ports(ports: Ports) -> &'static str {
    match ports {
        Ports::Unknown => "unknown",
        Ports::Kept => "kept",
        Ports::Counted(_) => "counted",
        Ports::Drawn => "drawn",
    }
}
