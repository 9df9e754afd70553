//! `muster ping` and `muster path`: whether a host answers now, how soon, and by whom its words come.

use std::time::{Duration, Instant};

use muster_proto::fleet::v1::{Node, NodeFilter, NodeRole, RefreshPresenceRequest};
use serde_json::{Value, json};

use crate::cli::{Output, Ping, Place};
use crate::context::Session;
use crate::exit::{Exit, Failure};
use crate::fleet as listing;
use crate::render::{json, words};

/// Beyond the host's own time: the way to the master and back.
const MARGIN: Duration = Duration::from_secs(5);

/// Between two questions.
const PAUSE: Duration = Duration::from_secs(1);

/// One question and what came of it.
struct Echo {
    /// From here to the host and back. `None`: silence.
    round_trip: Option<Duration>,
    node: Node,
}

pub async fn ping(place: &Place, output: Output, ping: Ping) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let node = listing::node(&session, &ping.node).await?;
    let mut echoes = Vec::new();
    for number in 0..ping.count.get() {
        if number > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let echo = ask(&session, &node.name, ping.timeout).await?;
        if output == Output::Table {
            println!("{}", line(&echo));
        }
        echoes.push(echo);
    }
    if output == Output::Json {
        let millis = |echo: &Echo| echo.round_trip.map(|span| span.as_secs_f64() * 1_000.0);
        let last = echoes.last().map_or(&node, |echo| &echo.node);
        let echoes = echoes.iter().map(|echo| json!({ "roundTripMillis": millis(echo) })).collect();
        json::print("Ping", [("node", json::node(last)), ("echoes", echoes)]);
    }
    Ok(if echoes.iter().all(|echo| echo.round_trip.is_some()) { Exit::Ok } else { Exit::Incomplete })
}

async fn ask(session: &Session, name: &str, timeout: Duration) -> Result<Echo, Failure> {
    let filter = NodeFilter { names: vec![name.to_owned()], ..NodeFilter::default() };
    let mut request = tonic::Request::new(RefreshPresenceRequest {
        filter: Some(filter),
        timeout: Some(words::to_duration(timeout)),
        page_token: String::new(),
    });
    request.set_timeout(timeout + MARGIN);
    let asked = Instant::now();
    let answer = session.fleet().refresh_presence(request).await;
    let answer = answer.map_err(session.failed("cannot ask the host"))?.into_inner();
    let round_trip = (!answer.answered.is_empty()).then(|| asked.elapsed());
    let node = answer.answered.into_iter().chain(answer.silent).next().unwrap_or_default();
    Ok(Echo { round_trip, node })
}

fn line(Echo { round_trip, node }: &Echo) -> String {
    let host = words::host(&node.host_name, &node.name);
    let way = match node.role() {
        NodeRole::Child => format!("by its LSN {}", words::name_or_dash(&node.lsn)),
        _ => "by its own stream".to_owned(),
    };
    match round_trip {
        Some(span) => format!("{host} answers in {:.1} ms, {way}", span.as_secs_f64() * 1_000.0),
        None if node.offline_reason.is_empty() => {
            format!("{host} is silent; it is {}", words::node_state(node.state()))
        }
        None => {
            format!("{host} is silent; it is {}: {}", words::node_state(node.state()), node.offline_reason)
        }
    }
}

/// The hosts by whom what this one says comes to the master, itself first.
pub async fn path(place: &Place, output: Output, name: &str) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let node = listing::node(&session, name).await?;
    let mut hops = Vec::new();
    for hop in node.route.iter().filter(|hop| **hop != node.name) {
        hops.push(listing::node(&session, hop).await?);
    }
    hops.insert(0, node);
    match output {
        Output::Json => {
            let state = words::node_state(hops[0].state());
            json::print("Path", [("state", state.into()), ("hops", hops.iter().map(hop_json).collect())]);
        }
        Output::Table => show(&hops),
    }
    let there = !hops[0].route.is_empty();
    Ok(if there { Exit::Ok } else { Exit::Incomplete })
}

fn show(hops: &[Node]) {
    let Some(node) = hops.first() else { return };
    if node.route.is_empty() {
        let since = words::lasting(node.since_time);
        println!("no path: it is {} for {since}", words::node_state(node.state()));
        return;
    }
    for (depth, hop) in hops.iter().enumerate() {
        let indent = "  ".repeat(depth);
        let seen = if hop.observed_address.is_empty() { "-" } else { &hop.observed_address };
        let host = words::host(&hop.host_name, &hop.name);
        println!("{indent}{host} at {}, seen from {seen}", words::or_dash(&hop.addresses.join(" ")));
        let way = if hop.path.is_empty() { String::new() } else { format!("by {} ", hop.path) };
        let span = hop.round_trip.map(|_| format!("({}) ", words::span(hop.round_trip))).unwrap_or_default();
        println!("{indent}  {way}{span}to");
    }
    println!("{}the master", "  ".repeat(hops.len()));
}

fn hop_json(hop: &Node) -> Value {
    json!({
        "node": hop.name,
        "hostName": hop.host_name,
        "addresses": hop.addresses,
        "observedAddress": hop.observed_address,
        "path": hop.path,
        "roundTripSeconds": json::seconds(hop.round_trip),
    })
}
