//! A relay dies while it carries the session of two that nothing else brings together: the session goes on by the next relay,
//! and what was written meanwhile arrives by it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_sim::model::Behaviour;
use serde_json::Value;

use crate::dns::MASTER_PORT;
use crate::fleet::Fleet;
use crate::lab::Lab;
use crate::plan::{DNS, MASTER, PlacePlan, Translation};
use crate::program::{Binaries, Program};
use crate::super_node::{node, ping};

/// Until every host has an LSN and is shown.
const GATHERING: Duration = Duration::from_secs(60);

/// Between two looks at the list of relays.
const LOOK: Duration = Duration::from_millis(250);

/// Listed first, so it is taken first; the master's own has a name drawn at random, of hexadecimal digits after its "relay-".
const FIRST: &str = "a-relay";

/// What was written before the session's first repetition of a letter: 3 s; the aim is one.
const AT_MOST: u64 = 3_000;

/// # Errors
/// What is written after the relay's death does not arrive in time, or by the same relay.
pub async fn is_survived() -> Result<()> {
    let symmetric = Translation::Model(Behaviour::symmetric());
    let plan = PlacePlan { agents: 1, translation: symmetric, ..PlacePlan::default() };
    let lab = Lab::builder().place(plan).place(plan).build().await?;
    let fleet = Fleet::start(lab).await?;
    let relay = second_relay(&fleet).await?;
    fleet.until_whole(GATHERING).await?;
    let (from, to) = ("p1a1", node(&fleet, "p2a1").await?);
    ensure!(carried_by(&ping(&fleet, from, &to).await?) == FIRST, "not by {FIRST}");
    let before = write(&fleet, from, &to).await?;
    relay.kill().await?;
    let after = write(&fleet, from, &to).await?;
    println!("a letter took {before} ms by {FIRST}, and {after} ms right after its death");
    ensure!(after < AT_MOST, "a letter took {after} ms after the relay's death");
    let carried = ping(&fleet, from, &to).await?;
    ensure!(carried["path"] == "relay" && carried_by(&carried) != FIRST, "{carried:#}");
    fleet.kill_all().await
}

/// A relay in a process of its own, on the name server's host, once the master lists it.
async fn second_relay(fleet: &Fleet) -> Result<Program> {
    let master = format!("{}:{MASTER_PORT}", MASTER.v4());
    fleet.muster(&["invite", "relay", "--auth-address", &master]).await?;
    let link = fleet.lab().master().exec("cat", &["/var/lib/muster/join/relay.link"]).await?;
    let (machine, data) = (fleet.lab().dns(), fleet.lab().dns().home().join("relay"));
    std::fs::create_dir_all(data.join("join"))?;
    std::fs::write(data.join("join/relay.link"), link)?;
    let (data, own) = (data.to_str().context("a path of text")?, format!("{}:{MASTER_PORT}", DNS.v4()));
    let addresses = format!("{own},{master}");
    let arguments =
        ["--data-dir", data, "serve", "--target", "relay", "--relay-name", FIRST, "--address", &addresses];
    let relay = Program::start(machine, Binaries::find()?.muster, &arguments).await?;
    let started = Instant::now();
    while !fleet.muster(&["relays", "--output", "json"]).await?.contains(FIRST) {
        ensure!(started.elapsed() < GATHERING, "{FIRST} is not listed: {}", relay.last_words());
        tokio::time::sleep(LOOK).await;
    }
    Ok(relay)
}

fn carried_by(ping: &Value) -> &str {
    let last = ping["stages"].as_array().and_then(|stages| stages.last());
    last.and_then(|last| last["remote"].as_str()).unwrap_or_default()
}

/// Over the session that stands; how many milliseconds passed until it was acknowledged.
async fn write(fleet: &Fleet, from: &str, to: &str) -> Result<u64> {
    let file = fleet.lab().host(from)?.machine().home().join("letter");
    std::fs::write(&file, "by the session")?;
    let sent = ["send", to, file.to_str().context("a path of text")?, "--for", "60s", "--output", "json"];
    let sent: Value = serde_json::from_str(&fleet.agent_says(from, &sent).await?)?;
    ensure!(sent["arrived"] == true, "{sent}");
    sent["elapsed_millis"].as_u64().context("a span")
}
