//! A command's way there and back, against what it must at least take.

use anyhow::Result;
use muster_lab::{Fleet, Lab};

use super::settled;
use crate::caller::Found;
use crate::disk::sync_times;
use crate::row::Row;

/// The lab's usual size.
const PLACES: usize = 4;
const AGENTS: usize = 6;

/// Calls that count: p99 is then the second worst.
const CALLS: &str = "200";

/// Durable steps between the operator's word and its answer: the task, STARTED, the result.
const SYNCS: f64 = 3.0;
/// What the programs themselves may take, in milliseconds.
const OWN: f64 = 5.0;

/// Where a master keeps its things on its own machine.
const DATA_DIR: &str = "/var/lib/muster";

pub(crate) async fn round_trips() -> Result<Vec<Row>> {
    let fleet = settled(PLACES, AGENTS).await?;
    let syncs = sync_times(fleet.lab().master().home())?;
    let sync = Row::times("an fsync of 4 KiB on this disk", "this host, warm", "-", &syncs);
    let all: Vec<String> = fleet.observer().now().nodes.values().map(|node| node.name.clone()).collect();
    let one = call(&fleet, &all[..1]).await?;
    let whole = call(&fleet, &all).await?;
    let budget = |found: &Found| {
        let round_trip = Row::new("", "", "ms", "", found.round_trips.clone()).percentile(0.5);
        format!("<= {:.1} = {round_trip:.1} + 3 fsyncs + 5", round_trip + SYNCS * sync.percentile(0.5) + OWN)
    };
    let (aim_one, aim_whole) = (budget(&one), budget(&whole));
    Ok(vec![
        Row::new("the way to one host and back (RefreshPresence)", "lab, warm", "ms", "-", one.round_trips),
        Row::new(
            "a command on one host, CreateTask to its end seen",
            "lab, warm",
            "ms",
            aim_one,
            one.commands,
        ),
        Row::new("the way to all 24 hosts and back", "lab, warm", "ms", "-", whole.round_trips),
        Row::new(
            "a command on all 24 hosts, until the last end is seen",
            "lab, warm",
            "ms",
            aim_whole,
            whole.commands,
        ),
        sync,
    ])
}

pub(super) async fn call(fleet: &Fleet, nodes: &[String]) -> Result<Found> {
    let own = std::env::current_exe()?;
    let mut arguments = vec!["caller", "--data-dir", DATA_DIR, "--calls", CALLS];
    nodes.iter().for_each(|node| arguments.extend(["--on", node]));
    let lab: &Lab = fleet.lab();
    Ok(serde_json::from_str(&lab.master().exec(&own, &arguments).await?)?)
}
