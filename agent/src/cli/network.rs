//! `muster-agent ping` and `muster-agent netcheck`: how far another node is, and how this host is seen.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use muster_proto::agent::v1::{
    CheckNetworkRequest, CheckNetworkResponse, ProxyStanding, ReachRequest, ReachResponse, TriedAddress,
};
use muster_types::NodeId;
use muster_wire::time::{span_from_wire, span_to_wire};
use serde_json::{Value, json};

use super::{NOT_HERE, Output, runtime};
use crate::config::Config;
use crate::local;

/// Versions of the JSON's forms; they change when a field does, not when one is added.
const PING_SCHEMA: &str = "muster.agent.ping/v1";
const NETCHECK_SCHEMA: &str = "muster.agent.netcheck/v1";

#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:\n  muster-agent ping 3f6c0e5d2b7a49188c1f0e9d7b6a5c4d3e2f1a0b\n  \
    muster-agent ping nodes/3f6c0e5d2b7a49188c1f0e9d7b6a5c4d3e2f1a0b --output json")]
pub(super) struct Ping {
    /// The other node's id, as `muster nodes` shows it
    node: String,
    /// Wait this long for the last word
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Netcheck {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Ping {
    pub(super) fn run(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let id = self.node.strip_prefix("nodes/").unwrap_or(&self.node);
        let node: NodeId =
            id.parse::<NodeId>().map_err(|error| anyhow::anyhow!("{id:?} is no node's id: {error}"))?;
        let request = ReachRequest {
            node_id: bytes::Bytes::copy_from_slice(node.as_bytes()),
            timeout: Some(span_to_wire(self.timeout)),
        };
        let socket = config.socket()?;
        let asked = runtime()?.block_on(async {
            let mut agent = local::connect(&socket).await?;
            let mut stages = agent.reach(request).await?.into_inner();
            let mut all = Vec::new();
            while let Some(stage) = stages.message().await? {
                if self.output == Output::Text {
                    println!("{}", stage_line(&stage));
                }
                all.push(stage);
            }
            anyhow::Ok(all)
        });
        let Some(stages) = answered(asked)? else { return Ok(ExitCode::from(NOT_HERE)) };
        let Some(last) = stages.last() else {
            eprintln!("muster-agent: the agent said nothing; it may meet too many nodes already");
            return Ok(ExitCode::FAILURE);
        };
        match self.output {
            Output::Json => println!("{}", serde_json::to_string_pretty(&ping_json(&stages, last))?),
            Output::Text => print_tried(last),
        }
        Ok(if last.path == "none" { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

impl Netcheck {
    pub(super) fn run(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let socket = config.socket()?;
        let asked = runtime()?.block_on(async {
            let mut agent = local::connect(&socket).await?;
            anyhow::Ok(agent.check_network(CheckNetworkRequest {}).await?.into_inner())
        });
        let Some(check) = answered(asked)? else { return Ok(ExitCode::from(NOT_HERE)) };
        match self.output {
            Output::Json => println!("{}", serde_json::to_string_pretty(&check_json(&check))?),
            Output::Text => print_check(&check),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// `None`: the agent is not there, and the user was told.
pub(super) fn answered<T>(asked: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    match asked {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is::<local::LocalError>() => {
            eprintln!("muster-agent: {error}");
            Ok(None)
        }
        Err(error) => match error.downcast_ref::<tonic::Status>() {
            Some(status) => Err(anyhow::anyhow!("{}", status.message())),
            None => Err(error),
        },
    }
}

fn millis(span: Option<&prost_types::Duration>) -> Option<f64> {
    let span = span.copied().and_then(span_from_wire)?;
    Some((span.as_secs_f64() * 10_000.0).round() / 10.0)
}

fn show(span: Option<&prost_types::Duration>) -> String {
    millis(span).map_or_else(|| "-".to_owned(), |millis| format!("{millis} ms"))
}

fn stage_line(stage: &ReachResponse) -> String {
    let after = show(stage.elapsed.as_ref());
    let round_trip = match stage.round_trip {
        Some(_) => format!(", round trip {}", show(stage.round_trip.as_ref())),
        None => String::new(),
    };
    let why =
        if stage.settled && !stage.reason.is_empty() { format!(": {}", stage.reason) } else { String::new() };
    match (stage.path.as_str(), stage.settled) {
        ("none", false) => "calling".to_owned(),
        ("none", true) => format!("not reached after {after}{why}"),
        ("relay", false) => format!("by relay {} after {after}{round_trip}", stage.remote),
        ("relay", true) => {
            format!(
                "stays with relay {} after {after}{round_trip}; no direct way was found{why}",
                stage.remote
            )
        }
        (path, _) => format!("directly by {path} {} after {after}{round_trip}", stage.remote),
    }
}

fn print_tried(last: &ReachResponse) {
    if last.tried.is_empty() {
        return;
    }
    println!("tried:");
    for TriedAddress { address, kind, probes, round_trip } in &last.tried {
        let answer = match round_trip {
            Some(_) => format!("answered after {}", show(round_trip.as_ref())),
            None => "no answer".to_owned(),
        };
        println!("  {address:<28} {kind:<10} {probes:>3} probes, {answer}");
    }
}

fn ping_json(stages: &[ReachResponse], last: &ReachResponse) -> Value {
    let stage = |it: &ReachResponse| {
        json!({
            "path": it.path,
            "remote": it.remote,
            "elapsed_millis": millis(it.elapsed.as_ref()),
            "round_trip_millis": millis(it.round_trip.as_ref()),
        })
    };
    let tried = last.tried.iter().map(|it| {
        json!({
            "address": it.address,
            "kind": it.kind,
            "probes": it.probes,
            "round_trip_millis": millis(it.round_trip.as_ref()),
        })
    });
    json!({
        "schema": PING_SCHEMA,
        "path": last.path,
        "reason": last.reason,
        "stages": stages.iter().map(stage).collect::<Vec<_>>(),
        "tried": tried.collect::<Vec<_>>(),
    })
}

fn print_check(check: &CheckNetworkResponse) {
    println!("{}\n", check.meaning);
    println!("own addresses  {}", check.own_addresses.join(", "));
    for sight in &check.sights {
        let seen =
            if sight.seen.is_empty() { "no answer".to_owned() } else { format!("sees {}", sight.seen) };
        println!("{:<14} {seen}, round trip {}", sight.server, show(sight.round_trip.as_ref()));
    }
    println!("mapping        {} (ports: {})", check.mapping, check.ports);
    println!("filtering      {}", check.filtering);
    println!("UDP            {}", if check.udp { "passes" } else { "no answer by UDP" });
    println!(
        "proxy          {}",
        check.proxy.as_ref().map_or_else(|| "none is named".to_owned(), proxy_line)
    );
    for relay in &check.relays {
        let connected = if relay.connected { "connected" } else { "not needed now" };
        println!("relay          {} at {}: {connected}", relay.name, relay.addresses.join(", "));
    }
    if check.relays.is_empty() {
        println!("relay          none is known");
    }
}

fn proxy_line(proxy: &ProxyStanding) -> String {
    let ProxyStanding { address, source, tried, trouble } = proxy;
    let outcome = match (tried, trouble.as_str()) {
        (false, _) => "not needed yet".to_owned(),
        (true, "") => "carries what goes to the master".to_owned(),
        (true, trouble) => format!("{trouble}; the master is tried without it"),
    };
    format!("{address}, named by {source}: {outcome}")
}

fn check_json(check: &CheckNetworkResponse) -> Value {
    let sights = check.sights.iter().map(|it| {
        json!({"server": it.server, "seen": it.seen, "round_trip_millis": millis(it.round_trip.as_ref())})
    });
    let relays = check
        .relays
        .iter()
        .map(|it| json!({"name": it.name, "addresses": it.addresses, "connected": it.connected}));
    json!({
        "schema": NETCHECK_SCHEMA,
        "meaning": check.meaning,
        "own_addresses": check.own_addresses,
        "sights": sights.collect::<Vec<_>>(),
        "mapping": check.mapping,
        "filtering": check.filtering,
        "hairpin": check.hairpin,
        "ports": check.ports,
        "udp": check.udp,
        "proxy": check.proxy.as_ref().map(|it| {
            json!({"address": it.address, "source": it.source, "tried": it.tried, "trouble": it.trouble})
        }),
        "relays": relays.collect::<Vec<_>>(),
    })
}
