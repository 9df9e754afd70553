//! What a network costs in which nothing happens.

use std::time::Duration;

use anyhow::{Context, Result};
use muster_lab::Fleet;

use super::settled;
use crate::process::{memory, processor_time};
use crate::row::Row;

/// The size of place that the aims are for.
const AGENTS: usize = 30;

/// Long enough for several of the slowest timers but the uptime ticket's.
const WINDOW: Duration = Duration::from_secs(180);

const MEMORY_AGENTS: usize = 6;
const MEMORY_WINDOW: Duration = Duration::from_secs(60);

const HOUR: f64 = 3600.0;
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Bytes of a place of 30 by the counters of its interfaces, headers included.
pub(crate) async fn traffic() -> Result<Vec<Row>> {
    of_place(&settled(1, AGENTS).await?, AGENTS, "lab, warm").await
}

/// The same of the first place of a lab that stands, with so many hosts in it.
pub(super) async fn of_place(fleet: &Fleet, agents: usize, conditions: &'static str) -> Result<Vec<Row>> {
    let place = fleet.lab().place(1)?;
    let wan = place.wan_traffic().await?;
    let before = lan_bytes(fleet).await?;
    tokio::time::sleep(WINDOW).await;
    let wan = place.wan_traffic().await? - wan;
    let after = lan_bytes(fleet).await?;
    let seconds = WINDOW.as_secs_f64();
    let per_hour = wan.bytes() as f64 * HOUR / seconds / agents as f64;
    let lan: Vec<_> =
        after.iter().zip(before).map(|(after, before)| (after - before) as f64 / seconds).collect();
    Ok(vec![
        Row::new(
            "idle WAN traffic of a place of 30, both ways, a node and hour",
            conditions,
            "B",
            "<= 1000",
            vec![per_hour],
        ),
        Row::new(
            "idle LAN traffic sent by a node of it, a second (the mean is the place's)",
            conditions,
            "B",
            "mean <= 200",
            lan,
        ),
    ])
}

/// What each host has sent: what one sends, another receives.
async fn lan_bytes(fleet: &Fleet) -> Result<Vec<u64>> {
    let mut sent = Vec::new();
    for host in fleet.lab().hosts_in(1) {
        sent.push(host.traffic().await?.sent_bytes);
    }
    Ok(sent)
}

/// Resident and proportional memory, and processor time, of a master and its agents.
async fn memory_rows(fleet: &Fleet) -> Result<Vec<Row>> {
    let mut agents = Vec::new();
    for host in fleet.lab().hosts() {
        agents.push(fleet.agent(host.name())?.process().await.context("an agent has ended")?);
    }
    let master = fleet.master().process().await.context("the master has ended")?;
    let agents_before = agents.iter().map(|id| processor_time(*id)).collect::<Result<Vec<_>>>()?;
    let master_before = processor_time(master)?;
    tokio::time::sleep(MEMORY_WINDOW).await;
    let share = |after: Duration, before: Duration| {
        (after.saturating_sub(before)).as_secs_f64() / MEMORY_WINDOW.as_secs_f64() * 100.0
    };
    let (mut resident, mut proportional, mut busy) = (Vec::new(), Vec::new(), Vec::new());
    for (id, before) in agents.iter().zip(agents_before) {
        let used = memory(*id)?;
        resident.push(used.resident as f64 / MEBIBYTE);
        proportional.push(used.proportional as f64 / MEBIBYTE);
        busy.push(share(processor_time(*id)?, before));
    }
    let used = memory(master)?;
    let of_master = share(processor_time(master)?, master_before);
    Ok(vec![
        Row::new("an idle agent's resident memory (RSS)", "lab, warm", "MiB", "< 20 MB", resident),
        Row::new("an idle agent's share of it (PSS)", "lab, warm", "MiB", "-", proportional),
        Row::new("an idle agent's processor time, of one core", "lab, warm", "%", "-", busy),
        Row::new(
            "an idle master's resident memory (RSS)",
            "lab, warm",
            "MiB",
            "-",
            vec![used.resident as f64 / MEBIBYTE],
        ),
        Row::new("an idle master's processor time, of one core", "lab, warm", "%", "-", vec![of_master]),
    ])
}

pub(crate) async fn memory_and_processor() -> Result<Vec<Row>> {
    memory_rows(&settled(1, MEMORY_AGENTS).await?).await
}
