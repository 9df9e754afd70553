//! One trace follows a task from the operator's command through topology and LSN to the node, and back.

use anyhow::{Context, Result, ensure};
use muster_e2e::collector::{Collector, Traced};
use muster_e2e::fleet::is_online;
use muster_e2e::{Agent, Master};
use muster_proto::fleet::v1::NodeRole;

/// Programs send their spans this soon, in milliseconds (OpenTelemetry's own variable).
const SOON: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "200");

#[tokio::test]
async fn one_trace_goes_from_the_command_through_topology_and_lsn_to_the_node_and_back() -> Result<()> {
    let collector = Collector::start().await?;
    let master = Master::up_with(&["--no-agent", "--otlp-endpoint", collector.endpoint()]).await?;
    let fleet = master.fleet()?;
    let environment = [("MUSTER_AGENT_TELEMETRY__OTLP_ENDPOINT", collector.endpoint()), SOON];
    let mut lsn = Agent::enrolled(&master, &[]).await?;
    lsn.start(&environment)?;
    let lead = lsn.name()?;
    fleet.until_node(&lead, |node| node.role() == NodeRole::Lsn).await?;
    let mut child = Agent::enrolled(&master, &[]).await?;
    child.start(&environment)?;
    let node = child.name()?;
    fleet.until_node(&node, |node| is_online(node) && node.lsn == lead).await?;

    let traced = [("MUSTER_OTLP_ENDPOINT", collector.endpoint())];
    let ran =
        master.muster_with(&traced, &["run", "--on", &node, "--", "echo", "traced"]).await?.expect(0)?;
    ensure!(ran.stdout.contains("traced"), "{ran}");
    collector.until(whole_way).await
}

/// Each step under the one before it, each of its party.
fn whole_way(spans: &[Traced]) -> Result<()> {
    let command = spans.iter().find(|span| span.service == "muster-cli" && span.parent.is_empty());
    let command = command.context("the command's span")?;
    let create = below(spans, command, "rpc", |span| {
        span.text("method").is_some_and(|method| method.ends_with("/CreateTask"))
    })?;
    let offer = below(spans, create, "task.offer", |_| true)?;
    let down = below(spans, offer, "order.forward", |_| true)?;
    let task = below(spans, down, "task", |_| true)?;
    below(spans, task, "task.receive", |span| span.instance == task.instance)?;
    below(spans, task, "task.run", |span| span.instance == task.instance)?;
    let up = below(spans, task, "report.forward", |_| true)?;
    let report = below(spans, up, "task.report", |_| true)?;

    let [master, lsn, node] = [&create.instance, &down.instance, &task.instance];
    ensure!(create.service == "muster" && command.instance != *master, "the command is its own process");
    ensure!(master != lsn && lsn != node && master != node, "three processes, not {master} {lsn} {node}");
    ensure!(offer.instance == *master && report.instance == *master, "topology offers and hears");
    ensure!(up.instance == *lsn, "the LSN carries both ways");
    ensure!(down.service == "muster-agent" && task.service == "muster-agent");
    Ok(())
}

fn below<'a>(
    spans: &'a [Traced],
    parent: &Traced,
    name: &str,
    also: impl Fn(&Traced) -> bool,
) -> Result<&'a Traced> {
    let found = spans.iter().find(|span| span.name == name && span.is_child_of(parent) && also(span));
    found.with_context(|| format!("no {name:?} below {:?} of {}", parent.name, parent.service))
}
