//! How long until the master sees everybody in the right place again, after something happened to an LSN or a host.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_lab::Fleet;
use muster_lab::picture::{NodeView, Picture};
use nix::sys::signal::Signal;

use super::{settle, settled};
use crate::row::Row;

/// Agents of the place whose LSN goes.
const AGENTS: usize = 6;

/// Longer than anything may take; a fleet that is not whole by then has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// From SIGKILL of the LSN, for each node that is left.
pub(crate) async fn crash(repeat: usize) -> Result<Vec<Row>> {
    let spans = lose_lsn(repeat, Signal::SIGKILL).await?;
    let each: Vec<_> = spans.iter().flatten().copied().collect();
    let last: Vec<_> = spans.iter().filter_map(|round| round.iter().max().copied()).collect();
    let aim = "mean 1000, max < 2500";
    Ok(vec![
        Row::times("SIGKILL of the LSN, until a node is seen under the new one", "lab, warm", aim, &each),
        Row::times("the same, until the last node is", "lab, warm", aim, &last),
    ])
}

/// From SIGTERM to the LSN, for each node that is left.
pub(crate) async fn part(repeat: usize) -> Result<Vec<Row>> {
    let spans = lose_lsn(repeat, Signal::SIGTERM).await?;
    let each: Vec<_> = spans.into_iter().flatten().collect();
    let what = "an LSN's announced part, until a node is seen under the new one";
    Ok(vec![Row::times(what, "lab, warm", "< 150", &each)])
}

async fn lose_lsn(repeat: usize, signal: Signal) -> Result<Vec<Vec<Duration>>> {
    let fleet = settled(1, AGENTS).await?;
    let mut rounds = Vec::with_capacity(repeat);
    for _ in 0..repeat {
        let lost = fleet.lsn_of(1)?;
        let began = Instant::now();
        let (ended, spans) =
            tokio::join!(fleet.agent(&lost)?.end(signal), until_all_follow(&fleet, &lost, began));
        ended?;
        rounds.push(spans?);
        fleet.start_agent(&lost).await?;
        settle(&fleet).await?;
    }
    Ok(rounds)
}

/// When each node of the place was seen as the new LSN or under it.
async fn until_all_follow(fleet: &Fleet, lost: &str, began: Instant) -> Result<Vec<Duration>> {
    let left: Vec<String> = fleet.lab().hosts_in(1).map(|host| host.name().to_owned()).collect();
    let left: Vec<String> = left.into_iter().filter(|host| host != lost).collect();
    let seen = RefCell::new(BTreeMap::new());
    let all = fleet.observer().until(PATIENCE, |picture| {
        for host in &left {
            match follows(picture, host, lost) {
                true => seen.borrow_mut().entry(host.clone()).or_insert(picture.changed),
                false => {
                    seen.borrow_mut().remove(host);
                    continue;
                }
            };
        }
        ensure!(seen.borrow().len() == left.len(), "only {:?} have followed", seen.borrow().keys());
        Ok(())
    });
    all.await?;
    Ok(seen.into_inner().into_values().map(|at: Instant| at.duration_since(began)).collect())
}

fn follows(picture: &Picture, host: &str, lost: &str) -> bool {
    let lsn = picture.nodes.values().find(|node| node.is_lsn() && node.host_name != lost);
    let node = picture.nodes.get(host);
    matches!((lsn, node), (Some(lsn), Some(node)) if node.name == lsn.name || node.is_child_of(lsn))
}

/// From the moment a host's cable is in again; its lease has run out meanwhile, so it joins as anew.
pub(crate) async fn join(repeat: usize) -> Result<Vec<Row>> {
    let fleet = settled(1, AGENTS).await?;
    let mut spans = Vec::with_capacity(repeat);
    for _ in 0..repeat {
        let host = child_of(&fleet, 1)?;
        fleet.lab().host(&host)?.set_link(false).await?;
        fleet.observer().until(PATIENCE, |picture| is_online(picture, &host, false)).await?;
        fleet.lab().host(&host)?.set_link(true).await?;
        let began = Instant::now();
        let back = fleet.observer().until(PATIENCE, |picture| is_child(picture, &host)).await?;
        spans.push(back.saturating_duration_since(began));
    }
    let what = "network up, until the host is seen under its LSN (HasLsn and the way to the master)";
    Ok(vec![Row::times(what, "lab, warm", "< 500", &spans)])
}

/// From the moment a host has its addresses in another place.
pub(crate) async fn change_of_place(repeat: usize) -> Result<Vec<Row>> {
    let fleet = settled(2, 3).await?;
    let host = child_of(&fleet, 1)?;
    let mut spans = Vec::with_capacity(repeat);
    for round in 0..repeat {
        let (here, there) = if round % 2 == 0 { (1, 2) } else { (2, 1) };
        let lsn = fleet.lsn_of(there)?;
        fleet.lab().move_host(&host, there).await.with_context(|| format!("move {host} from {here}"))?;
        let began = Instant::now();
        let arrived = fleet.observer().until(PATIENCE, |picture| {
            let (lsn, node) = (view(picture, &lsn)?, view(picture, &host)?);
            ensure!(node.is_child_of(lsn), "{host} is {} under {}", node.state, node.lsn);
            Ok(())
        });
        spans.push(arrived.await?.saturating_duration_since(began));
        settle(&fleet).await?;
    }
    let what = "a host moves to another place, until it is seen under the LSN there";
    Ok(vec![Row::times(what, "lab, warm", "p95 < 2000", &spans)])
}

fn child_of(fleet: &Fleet, place: usize) -> Result<String> {
    let lsn = fleet.lsn_of(place)?;
    let mut names = fleet.lab().hosts_in(place).map(|host| host.name().to_owned());
    names.find(|name| *name != lsn).context("the place has no child")
}

fn view<'a>(picture: &'a Picture, host: &str) -> Result<&'a NodeView> {
    picture.nodes.get(host).with_context(|| format!("the master does not know {host}"))
}

fn is_online(picture: &Picture, host: &str, wanted: bool) -> Result<()> {
    ensure!(view(picture, host)?.is_online() == wanted, "{host} is not yet as wanted");
    Ok(())
}

fn is_child(picture: &Picture, host: &str) -> Result<()> {
    let node = view(picture, host)?;
    ensure!(node.is_online() && node.role == "child", "{host} is {} {}", node.state, node.role);
    Ok(())
}
