//! `muster revoke`, until the last session with the revoked host is cut and until every other host knows: by the hosts' own
//! logs, which have one clock with the lab.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use muster_lab::Fleet;
use nix::sys::signal::Signal;

use super::{settle, settled};
use crate::row::Row;

/// The lab's usual size.
const PLACES: usize = 4;
const AGENTS: usize = 6;

/// A place that has fewer left is not revoked from: an LSN with one child is not what is measured.
const LEFT: usize = 3;

/// Longer than anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often the logs are read meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// What an agent logs when it has taken in more of the list.
const NEWS: &str = "the list of revocations is longer";

/// One host's line about a revocation.
#[derive(Debug, Clone, Copy)]
struct News {
    at: SystemTime,
    number: u64,
    /// Sessions that it cut.
    cut: u64,
}

/// From the start of `muster revoke`, in turns of an LSN whose place stands, of a child, and of a child whose LSN is killed in
/// the same moment.
pub(crate) async fn revoke(repeat: usize) -> Result<Vec<Row>> {
    let fleet = settled(PLACES, AGENTS).await?;
    let (mut cut, mut known) = (Vec::new(), Vec::new());
    for round in 0..repeat {
        let place = round % PLACES + 1;
        if running(&fleet, place).await.len() < LEFT {
            break;
        }
        let lsn = fleet.lsn_of(place)?;
        let child = running(&fleet, place).await.into_iter().find(|host| *host != lsn);
        let child = child.context("the place has no child")?;
        // Four places and three cases: each place has each of them in its turn.
        let case = round % 3;
        let victim = if case == 0 { &lsn } else { &child };
        let dies = (case == 2).then_some(&lsn);
        let (last_cut, last_known) =
            one(&fleet, victim, dies).await.with_context(|| format!("round {round}"))?;
        cut.extend(last_cut);
        known.push(last_known);
        fleet.agent(victim)?.end(Signal::SIGKILL).await?;
        if let Some(lsn) = dies {
            fleet.start_agent(lsn).await?;
        }
        settle(&fleet).await?;
    }
    let where_from = "lab of 24 behind 4 routers, warm";
    Ok(vec![
        Row::times("muster revoke, until the last session is cut", where_from, "p99 < 5000", &cut),
        Row::times("the same, until the last host knows", where_from, "-", &known),
    ])
}

async fn running(fleet: &Fleet, place: usize) -> Vec<String> {
    let truth = fleet.truth().await;
    truth.into_iter().find(|(number, _)| number.0 == place).map(|(_, hosts)| hosts).unwrap_or_default()
}

/// Revokes a host; says when its last session was cut by others, if it had one, and when the last one knew.
async fn one(fleet: &Fleet, victim: &str, dies: Option<&String>) -> Result<(Option<Duration>, Duration)> {
    let name = fleet.observer().now().nodes.get(victim).map(|node| node.name.clone());
    let name = name.with_context(|| format!("the master does not know {victim}"))?;
    let began = SystemTime::now();
    let killed = async {
        match dies {
            Some(lsn) => fleet.agent(lsn)?.end(Signal::SIGKILL).await.map(drop),
            None => Ok(()),
        }
    };
    let order = ["revoke", name.as_str()];
    let (revoked, killed) = tokio::join!(fleet.muster(&order), killed);
    revoked.and(killed.map(|()| String::new()))?;
    let hosts: Vec<String> =
        fleet.truth().await.into_values().flatten().filter(|host| host != victim).collect();
    let since = tokio::time::timeout(PATIENCE, all_know(fleet, &hosts, began)).await;
    let since = since.with_context(|| format!("not everybody heard of {victim}"))??;
    let after = |at: SystemTime| at.duration_since(began).unwrap_or_default();
    let last = |news: &[News]| news.iter().map(|it| after(it.at)).max();
    let cutting: Vec<_> = since.iter().copied().filter(|it| it.cut > 0).collect();
    Ok((last(&cutting), last(&since).context("nobody is left to know")?))
}

/// Each host's first line since `began` that tells of the newest number.
async fn all_know(fleet: &Fleet, hosts: &[String], began: SystemTime) -> Result<Vec<News>> {
    loop {
        let mut told = Vec::with_capacity(hosts.len());
        for host in hosts {
            let log = std::fs::read_to_string(fleet.agent(host)?.log())?;
            told.extend(log.lines().filter_map(read).filter(|it| it.at >= began));
        }
        let newest = told.iter().map(|it| it.number).max().unwrap_or_default();
        let knowing = told.iter().filter(|it| it.number == newest).count();
        ensure!(knowing <= hosts.len(), "a host heard of the same increment twice");
        if knowing == hosts.len() {
            return Ok(told);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// As in `2026-11-23T08:00:00.123456Z  INFO ...: the list of revocations is longer number=3 revoked=3 cut=1`.
fn read(line: &str) -> Option<News> {
    let (head, fields) = line.split_once(NEWS)?;
    let field = |name: &str| {
        fields.split_whitespace().find_map(|it| it.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    };
    let at = humantime::parse_rfc3339(head.split_whitespace().next()?).ok()?;
    Some(News { at, number: field("number")?, cut: field("cut")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_line_is_read() {
        let line = "2026-11-23T08:00:00.250000Z  INFO muster_agent: the list of revocations is longer number=3 revoked=3 cut=1";
        let news = read(line).unwrap();
        assert_eq!((news.number, news.cut), (3, 1));
        assert!(read("2026-11-23T08:00:00.250000Z  INFO muster_agent: attached").is_none());
    }
}
