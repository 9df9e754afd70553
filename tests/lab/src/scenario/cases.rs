//! What each case does and asserts. All times are from the lab's own deed to the master's picture showing the truth.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::Case;
use crate::fleet::Fleet;
use crate::picture::NodeView;
use crate::plan::MASTER_MOVED;

/// The place in which things happen, and the one that hosts move to.
pub(super) const HERE: usize = 1;
pub(super) const ELSEWHERE: usize = 2;

/// Who died silently is missed within this: the next LSN gives the cell its lease of 10 s and 5 s more, by a clock
/// that starts when it has attached; a round of the master's sweep, and a busy computer.
const MISSED_LIMIT: Duration = Duration::from_secs(30);

pub(super) async fn happen(case: Case, fleet: &Fleet) -> Result<Duration> {
    let limit = case.limit();
    match case {
        Case::Gathered => gathered(fleet, limit).await,
        Case::TaskReachesAll => task_reaches_all(fleet).await,
        Case::LsnKilled => {
            let lsn = fleet.lsn_of(HERE)?;
            Ok(ended(fleet, &[lsn], Signal::SIGKILL, limit).await?.gathered)
        }
        Case::LsnAndDeputiesKilled => {
            let lsn = fleet.lsn_of(HERE)?;
            let mut victims = deputies(fleet, &lsn).await?;
            ensure!(victims.len() == 2, "{lsn} has {} deputies", victims.len());
            victims.push(lsn);
            Ok(ended(fleet, &victims, Signal::SIGKILL, limit).await?.gathered)
        }
        Case::NodeKilled => {
            let child = child_in(fleet, HERE)?;
            Ok(ended(fleet, &[child], Signal::SIGKILL, limit).await?.missed)
        }
        Case::AnnouncedPart => {
            let lsn = fleet.lsn_of(HERE)?;
            Ok(ended(fleet, &[lsn], Signal::SIGTERM, limit).await?.gathered)
        }
        Case::LsnsMerge => lsns_merge(fleet, limit).await,
        Case::HostMoved => host_moved(fleet, limit).await,
        Case::MasterKilled => master_killed(fleet, limit).await,
        Case::MasterMoved => master_moved(fleet, limit).await,
        weather => super::weather::happen(weather, fleet).await,
    }
}

/// The picture is whole, and every agent says the same of itself.
async fn gathered(fleet: &Fleet, limit: Duration) -> Result<Duration> {
    let started = Instant::now();
    fleet.until_whole(limit).await?;
    let picture = fleet.observer().now();
    for (place, hosts) in fleet.truth().await {
        let lsn = fleet.lsn_of(place.0)?;
        for host in hosts {
            let status = status(fleet, &host).await?;
            let wanted = if host == lsn { "IsLsn" } else { "HasLsn" };
            ensure!(status["state"] == wanted, "{host} says {} of itself, not {wanted}", status["state"]);
            let named = status["lsn"].as_str().unwrap_or_default();
            let known =
                picture.nodes.get(&lsn).is_some_and(|view| view.name.ends_with(named) && !named.is_empty());
            ensure!(known || host == lsn, "{host} says that its LSN is {named}, and it is {lsn}");
        }
    }
    Ok(started.elapsed())
}

/// Every host runs the command once and its own output comes back.
pub(super) async fn task_reaches_all(fleet: &Fleet) -> Result<Duration> {
    let started = Instant::now();
    let output = fleet.muster(&["run", "--all", "--", "hostname"]).await?;
    let took = started.elapsed();
    let mut lines: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in output.lines() {
        let (host, said) = line.split_once(" | ").with_context(|| format!("muster run wrote {line}"))?;
        lines.entry(host.trim()).or_default().push(said.trim());
    }
    for host in fleet.truth().await.values().flatten() {
        ensure!(
            lines.get(host.as_str()) == Some(&vec![host.as_str()]),
            "{host} answered {:?}",
            lines.get(host.as_str())
        );
    }
    Ok(took)
}

/// How long after the deed those who are left were gathered, and the victims missed.
struct Healing {
    gathered: Duration,
    missed: Duration,
}

/// The victims' agents end, the others gather, the picture loses the victims within their leases, and they start again.
async fn ended(fleet: &Fleet, victims: &[String], signal: Signal, limit: Duration) -> Result<Healing> {
    let started = Instant::now();
    for victim in victims {
        fleet.agent(victim)?.signal(signal).await?;
    }
    for victim in victims {
        fleet.agent(victim)?.reap().await?;
    }
    let gathered = fleet.until_gathered(limit).await;
    let missed = fleet.until_whole(if signal == Signal::SIGKILL { MISSED_LIMIT } else { limit }).await;
    for victim in victims {
        fleet.start_agent(victim).await?;
    }
    Ok(Healing { gathered: gathered?.duration_since(started), missed: missed?.duration_since(started) })
}

/// The LAN is parted until each half has an LSN; the time is from its healing to one LSN for all.
async fn lsns_merge(fleet: &Fleet, limit: Duration) -> Result<Duration> {
    let place = fleet.lab().place(HERE)?;
    let lsn = fleet.lsn_of(HERE)?;
    let names: Vec<_> =
        fleet.lab().hosts_in(HERE).map(crate::Host::name).filter(|name| *name != lsn).collect();
    let (with_lsn, without) = names.split_at(names.len() / 2);
    let apart: Vec<_> = with_lsn.iter().copied().chain([lsn.as_str()]).collect();
    place.split(&apart).await?;
    let parted = fleet.observer().until(limit, |picture| {
        let lsns = without.iter().filter(|name| picture.nodes.get(**name).is_some_and(NodeView::is_lsn));
        let (lsns, old) = (lsns.count(), picture.nodes.get(&lsn).is_some_and(NodeView::is_lsn));
        ensure!(lsns == 1 && old, "the part without the LSN has {lsns}, and the old one is one: {old}");
        Ok(())
    });
    let parted = parted.await;
    let started = Instant::now();
    place.heal().await?;
    parted?;
    Ok(fleet.until_whole(limit).await?.duration_since(started))
}

/// A child goes to another place and becomes a child there.
async fn host_moved(fleet: &Fleet, limit: Duration) -> Result<Duration> {
    let child = child_in(fleet, HERE)?;
    let started = Instant::now();
    fleet.lab().move_host(&child, ELSEWHERE).await?;
    Ok(fleet.until_whole(limit).await?.duration_since(started))
}

/// The master is killed; the time is from its new start until a task reaches all again.
async fn master_killed(fleet: &Fleet, limit: Duration) -> Result<Duration> {
    fleet.master().kill().await?;
    let started = Instant::now();
    fleet.start_master().await?;
    reachable_again(fleet, started, limit).await
}

/// The master gets another address, which the old contacts do not know.
async fn master_moved(fleet: &Fleet, limit: Duration) -> Result<Duration> {
    let started = Instant::now();
    fleet.lab().move_master(MASTER_MOVED).await?;
    reachable_again(fleet, started, limit).await
}

async fn reachable_again(fleet: &Fleet, started: Instant, limit: Duration) -> Result<Duration> {
    loop {
        match task_reaches_all(fleet).await {
            Ok(_) => return Ok(started.elapsed()),
            Err(error) => ensure!(started.elapsed() < limit, "not within {limit:.0?}: {error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A host that the master sees as a child.
pub(super) fn child_in(fleet: &Fleet, place: usize) -> Result<String> {
    let picture = fleet.observer().now();
    let mut names = fleet.lab().hosts_in(place).map(crate::Host::name);
    let child = names.find(|name| picture.nodes.get(*name).is_some_and(|view| view.role == "child"));
    child.map(str::to_owned).with_context(|| format!("place {place} has no child\n{}", picture.describe()))
}

/// The deputies' host names, as the LSN itself names them.
async fn deputies(fleet: &Fleet, lsn: &str) -> Result<Vec<String>> {
    let (status, picture) = (status(fleet, lsn).await?, fleet.observer().now());
    let ids = status["deputies"].as_array().cloned().unwrap_or_default();
    let host = |id: &str| {
        let mut views =
            picture.nodes.values().filter(|view| view.name.ends_with(id.trim_start_matches("nodes/")));
        views.next().map(|view| view.host_name.clone())
    };
    Ok(ids.iter().filter_map(|id| host(id.as_str()?)).collect())
}

pub(super) async fn status(fleet: &Fleet, host: &str) -> Result<Value> {
    let said = fleet.agent_says(host, &["status", "--output", "json"]).await?;
    serde_json::from_str(&said).with_context(|| format!("muster-agent status on {host} wrote {said}"))
}
