//! A host that anybody reaches becomes a global super node, and carries the sessions of two that nothing else brings
//! together: both are behind symmetric translators, and the master's relay is out of reach. Two behind stateful firewalls of
//! IPv6 need nobody.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_sim::model::Behaviour;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::fleet::Fleet;
use crate::lab::Lab;
use crate::plan::{Family, MASTER, MASTER_PROBER, PlacePlan, Translation};

/// Until every host has an LSN and is shown.
const GATHERING: Duration = Duration::from_secs(60);

/// Until the registry has proved who is reached: two rounds, and a busy computer.
const PROOF: Duration = Duration::from_secs(45);

/// Between two looks at the registry.
const LOOK: Duration = Duration::from_millis(250);

/// Nobody listens there (RFC 863's port): the master's relay says that this is its address.
const NO_RELAY: u16 = 9;

/// The public host, and one in each of the other places.
const PUBLIC: &str = "p3a1";
const APART: [&str; 2] = ["p1a1", "p2a1"];
const GUARDED: [&str; 2] = ["p4a1", "p5a1"];

/// # Errors
/// Somebody serves who must not, or the two do not meet as they should.
pub async fn carries_who_cannot_meet() -> Result<()> {
    let fleet = start().await?;
    let node = |host| node(&fleet, host);
    let (public, apart) = (node(PUBLIC).await?, [node(APART[0]).await?, node(APART[1]).await?]);
    until(&fleet, &public, "serving").await?;
    for name in &apart {
        let state = standing(&fleet, name).await?;
        ensure!(state == "unproven", "{name} is behind a symmetric translator and {state}");
    }
    let carried = ping(&fleet, APART[0], &apart[1]).await?;
    println!("{carried:#}");
    let remote = carried["stages"].as_array().and_then(|stages| stages.last()).map(|last| &last["remote"]);
    let by_public = remote.is_some_and(|remote| *remote == public.as_str());
    ensure!(carried["path"] == "relay" && by_public, "not by {public}: {carried:#}");
    let direct = ping(&fleet, GUARDED[0], &node(GUARDED[1]).await?).await?;
    ensure!(direct["path"] == "udp6", "two firewalls of IPv6 were not passed: {direct:#}");
    fleet.agent(PUBLIC)?.end(Signal::SIGTERM).await?;
    until(&fleet, &public, "gone").await?;
    fleet.kill_all().await
}

/// Each of them says that it is reached by its place's public address.
async fn start() -> Result<Fleet> {
    let plan = PlacePlan { agents: 1, super_node: true, ..PlacePlan::default() };
    let symmetric = PlacePlan { translation: Translation::Model(Behaviour::symmetric()), ..plan };
    let public = PlacePlan { translation: Translation::None, ..plan };
    let guarded = PlacePlan { agents: 1, family: Family::V6, ..PlacePlan::default() };
    let translated = Lab::builder().place(symmetric).place(symmetric).place(public);
    let lab = translated.place(guarded).place(guarded).build().await?;
    let (prober, relay) = (MASTER_PROBER.v4().to_string(), format!("{}:{NO_RELAY}", MASTER.v4()));
    lab.master().ip(&format!("addr add {prober}/24 dev eth0")).await?;
    let fleet = Fleet::start_with(lab, &["--probe-from", &prober, "--relay-address", &relay]).await?;
    fleet.until_whole(GATHERING).await?;
    Ok(fleet)
}

pub(crate) async fn ping(fleet: &Fleet, from: &str, to: &str) -> Result<Value> {
    let said = fleet.agent_says(from, &["ping", to, "--timeout", "20s", "--output", "json"]).await?;
    serde_json::from_str(&said).with_context(|| format!("muster-agent ping wrote {said}"))
}

/// A host's node id.
pub(crate) async fn node(fleet: &Fleet, host: &str) -> Result<String> {
    let said = fleet.agent_says(host, &["status", "--output", "json"]).await?;
    let status: Value = serde_json::from_str(&said)?;
    let name = status["node"].as_str().with_context(|| format!("no node in {said}"))?;
    Ok(name.trim_start_matches("nodes/").to_owned())
}

/// As the registry has it; empty while it has nothing.
async fn standing(fleet: &Fleet, node: &str) -> Result<String> {
    let said = fleet.muster(&["gsn", "list", "--output", "json"]).await?;
    let list: Value = serde_json::from_str(&said)?;
    let name = format!("nodes/{node}");
    let found = list["candidates"].as_array().and_then(|all| all.iter().find(|it| it["node"] == name));
    Ok(found.and_then(|it| it["state"].as_str()).unwrap_or_default().to_owned())
}

pub(crate) async fn until(fleet: &Fleet, node: &str, wanted: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        let state = standing(fleet, node).await?;
        if state == wanted {
            println!("{node} is {wanted} after {:.1?}", started.elapsed());
            return Ok(());
        }
        ensure!(started.elapsed() < PROOF, "{node} is {state:?} and not {wanted}");
        tokio::time::sleep(LOOK).await;
    }
}
