//! What topology tells Prometheus: the names that dashboards and alerts go by, moved by events that the test causes.
//! The fleet is counted once a minute: those gauges are only looked for here, `charts/check` waits for them to move.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_e2e::{Agent, Master};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a topology shows that has served a node, a task and a watcher. To rename one is to break dashboards.
const NAMES: [&str; 32] = [
    "attach_refusals_total",
    "cells",
    "cells_without_lsn",
    "commit_commands_total",
    "commit_conflicts_total",
    "commit_seconds",
    "disconnections_total",
    "largest_cell_nodes",
    "leader",
    "lsn_changes_total",
    "nodes",
    "offers_total",
    "online_nodes_by_path",
    "online_nodes_by_role",
    "operation_failures_total",
    "overlay_bytes_total",
    "presence_changes_total",
    "purged_rows_total",
    "replicas",
    "reports_total",
    "round_trip_median_seconds",
    "round_trip_p95_seconds",
    "store_failures_total",
    "streams",
    "task_delivery_seconds",
    "task_target_seconds",
    "task_targets_ended_total",
    "tasks_created_total",
    "tasks_open",
    "watch_lag_seconds",
    "watch_resets_total",
    "watchers",
];

/// What happened shows within this, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(30);
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Samples by name and labels, without the component.
type Samples = BTreeMap<String, f64>;

async fn page(master: &Master) -> Result<String> {
    let line = master.program()?.says("metrics http://").await?;
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    let mut stream = TcpStream::connect(address.context("no address")?).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    ensure!(page.starts_with("HTTP/1.1 200 "), "{page}");
    Ok(page)
}

async fn scrape(master: &Master) -> Result<Samples> {
    let page = page(master).await?;
    let lines = page.lines().filter_map(|line| line.strip_prefix("muster_topology_"));
    Ok(lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap_or(f64::NAN)))
        .collect())
}

/// Waits until each of these samples is higher than `before` by exactly so much.
async fn moved(master: &Master, before: &Samples, by: &[(&str, f64)]) -> Result<Samples> {
    let began = Instant::now();
    loop {
        let now = scrape(master).await?;
        let value = |samples: &Samples, name: &str| samples.get(name).copied().unwrap_or_default();
        let wrong = by.iter().find(|(name, by)| value(&now, name) - value(before, name) != *by);
        let Some((name, by)) = wrong else { return Ok(now) };
        ensure!(
            began.elapsed() < PATIENCE,
            "{name} went from {} to {}, and not by {by}",
            value(before, name),
            value(&now, name)
        );
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

#[tokio::test]
async fn topologys_metrics_have_their_names_and_move_with_what_happens() -> Result<()> {
    let master = Master::up().await?;
    let before = scrape(&master).await?;
    let watch = master.muster_on(&["watch", "--all", "--output", "json"])?;
    watch.says("InitialStateEnd").await?;
    let came = moved(&master, &before, &[("watchers", 1.0)]).await?;

    let mut agent = Agent::of(&master).await?;
    let online = [("presence_changes_total{to=\"online\"}", 1.0), ("streams", 1.0)];
    let came = moved(&master, &came, &online).await?;

    master.muster(&["run", "--all", "--", "true"]).await?.expect(0)?;
    master.muster(&["run", "--all", "--", "false"]).await?;
    let ran = [
        ("tasks_created_total", 2.0),
        ("offers_total", 2.0),
        ("task_targets_ended_total{result=\"succeeded\"}", 1.0),
        ("task_targets_ended_total{result=\"failed\"}", 1.0),
        ("task_target_seconds_count", 2.0),
        ("task_delivery_seconds_count", 2.0),
        ("reports_total{verified=\"no\"}", 0.0),
    ];
    let ran = moved(&master, &came, &ran).await?;
    ensure!(ran["commit_commands_total"] > came["commit_commands_total"], "nothing was committed");

    agent.stop().await?;
    let gone = [("presence_changes_total{to=\"offline\"}", 1.0), ("streams", -1.0)];
    moved(&master, &ran, &gone).await?;

    let page = page(&master).await?;
    for name in NAMES {
        ensure!(page.contains(&format!("# TYPE muster_topology_{name} ")), "{name} is not there\n{page}");
    }
    Ok(())
}
