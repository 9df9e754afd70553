//! What a network costs in which nothing happens.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use muster_lab::Fleet;
use muster_lab::counters::Counters;
use muster_lab::sorts::Sorts;

use super::settled;
use crate::process::{memory, processor_time};
use crate::row::Row;

/// The size of place that the aims are for.
const AGENTS: usize = 30;

/// What a place says because it has just come together is said by then: records published, tables filled.
pub(super) const REST: Duration = Duration::from_secs(120);

const MINUTE: u64 = 60;

/// Kinds of messages that make up less are not worth a line, in bytes a second and node.
const WORTH_A_LINE: f64 = 0.05;

const MEMORY_AGENTS: usize = 6;
const MEMORY_WINDOW: Duration = Duration::from_secs(60);

const HOUR: f64 = 3600.0;
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Bytes of a place of 30 by the counters of its interfaces, headers included, and what they are: on the WAN as its router
/// tells packets apart, on the LAN as the agents themselves count what they say, without headers and acknowledgements.
pub(crate) async fn traffic(minutes: u64) -> Result<Vec<Row>> {
    let fleet = settled(1, AGENTS).await?;
    tokio::time::sleep(REST).await;
    of_place(&fleet, AGENTS, "lab, warm", Duration::from_secs(minutes * MINUTE)).await
}

/// The same of the first place of a lab that stands, with so many hosts in it, over `window`.
pub(super) async fn of_place(
    fleet: &Fleet,
    agents: usize,
    conditions: &'static str,
    window: Duration,
) -> Result<Vec<Row>> {
    let before = Reading::take(fleet).await?;
    tokio::time::sleep(window).await;
    let after = Reading::take(fleet).await?;
    Ok(after.since(&before, agents, conditions, window.as_secs_f64()))
}

/// All counters of the place at one moment.
struct Reading {
    wan: Counters,
    sorts: Sorts,
    /// What each host has sent: what one sends, another receives.
    lan: Vec<u64>,
    /// The same by kind of message, all hosts together.
    kinds: BTreeMap<String, f64>,
}

impl Reading {
    async fn take(fleet: &Fleet) -> Result<Self> {
        let place = fleet.lab().place(1)?;
        let (wan, sorts) = (place.wan_traffic().await?, place.router().gateway().sorts());
        let (mut lan, mut kinds) = (Vec::new(), BTreeMap::new());
        for host in fleet.lab().hosts_in(1) {
            lan.push(host.traffic().await?.sent_bytes);
            let said = fleet.agent_says(host.name(), &["status", "--output", "json"]).await?;
            let status: serde_json::Value = serde_json::from_str(&said)?;
            for line in status["usage"].as_array().into_iter().flatten() {
                let kind = line["type"].as_str().unwrap_or_default().to_owned();
                *kinds.entry(kind).or_insert(0.0) += line["sentBytes"].as_f64().unwrap_or_default();
            }
        }
        Ok(Self { wan, sorts, lan, kinds })
    }

    fn since(&self, before: &Self, agents: usize, conditions: &'static str, seconds: f64) -> Vec<Row> {
        let (hours, nodes) = (seconds / HOUR, agents as f64);
        let hourly = |bytes: u64| vec![bytes as f64 / hours / nodes];
        let mut rows = vec![Row::new(
            "idle WAN traffic of a place of 30, both ways, a node and hour",
            conditions,
            "B",
            "<= 1000",
            hourly((self.wan - before.wan).bytes()),
        )];
        for (sort, amount) in &self.sorts {
            let earlier = before.sorts.get(sort).copied().unwrap_or_default();
            let what = format!("of it {}", sort.as_str());
            rows.push(Row::new(what, conditions, "B", "-", hourly(amount.bytes - earlier.bytes)));
        }
        let sent = self.lan.iter().zip(&before.lan).map(|(after, before)| (after - before) as f64 / seconds);
        rows.push(Row::new(
            "idle LAN traffic sent by a node of it, a second (the mean is the place's)",
            conditions,
            "B",
            "mean <= 200",
            sent.collect(),
        ));
        for (kind, bytes) in &self.kinds {
            let mean = (bytes - before.kinds.get(kind).unwrap_or(&0.0)) / seconds / nodes;
            if mean >= WORTH_A_LINE {
                let what = format!("in it messages of the kind {kind}, without headers, the mean");
                rows.push(Row::new(what, conditions, "B", "-", vec![mean]));
            }
        }
        rows
    }
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
