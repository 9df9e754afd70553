//! What befalls networks, hosts and clocks, while the programs run on. Times are from the lab's own deed to the master's
//! picture showing the truth.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_sim::model::Shape;
use muster_sim::model::link::Loss;
use nix::sys::signal::Signal;
use tokio::time::sleep;

use super::Case;
use super::cases::{ELSEWHERE, HERE, child_in, status, task_reaches_all};
use crate::fleet::Fleet;
use crate::host::UdpBlock;

/// For a network that is gone: longer than every lease of a node.
const GONE: Duration = Duration::from_secs(60);
/// For a host that sleeps or stalls: longer than its lease.
const AWAY: Duration = Duration::from_secs(10);
/// For a cable that is pulled and put back.
const UNPLUGGED: Duration = Duration::from_secs(3);

pub(super) async fn happen(case: Case, fleet: &Fleet) -> Result<Duration> {
    let limit = case.limit();
    match case {
        Case::UdpLostInbound => udp_lost(fleet, UdpBlock::Inbound, limit).await,
        Case::UdpLostOutbound => udp_lost(fleet, UdpBlock::Outbound, limit).await,
        Case::UdpLost => udp_lost(fleet, UdpBlock::Both, limit).await,
        Case::InterfaceDown => interface_down(fleet, limit).await,
        Case::AddressChanged => address_changed(fleet, &child_in(fleet, HERE)?, limit).await,
        Case::LsnAddressChanged => address_changed(fleet, &fleet.lsn_of(HERE)?, limit).await,
        Case::Slept10Seconds => slept(fleet, AWAY, limit).await,
        Case::Slept3Days => slept(fleet, Duration::from_secs(3 * 24 * 3_600), limit).await,
        Case::Stalled => stalled(fleet, limit).await,
        Case::LsnCutOff => lsn_cut_off(fleet, limit).await,
        Case::AllBoot => all_boot(fleet, limit).await,
        Case::LsnWalledIn => lsn_walled_in(fleet, limit).await,
        Case::RouterGone => router_gone(fleet, limit).await,
        Case::MasterGone => master_gone(fleet, limit).await,
        _ => bursts(fleet, limit).await,
    }
}

/// A child's firewall begins to drop UDP, and stops. It goes over to TCP, and back; the time is to the first.
async fn udp_lost(fleet: &Fleet, block: UdpBlock, limit: Duration) -> Result<Duration> {
    let child = child_in(fleet, HERE)?;
    let started = Instant::now();
    fleet.lab().host(&child)?.block_udp(block).await?;
    let carried = until_path(fleet, &child, "tcp", limit).await;
    fleet.lab().host(&child)?.unblock_udp().await?;
    let carried = carried?.duration_since(started);
    until_path(fleet, &child, "udp", limit).await.context("UDP works again")?;
    Ok(carried)
}

async fn until_path(fleet: &Fleet, host: &str, kind: &str, limit: Duration) -> Result<Instant> {
    let shown = fleet.observer().until(limit, |picture| {
        let view = picture.nodes.get(host).context("the master does not know it")?;
        ensure!(view.is_online() && view.role == "child", "{host} is {} {}", view.state, view.role);
        ensure!(view.path.starts_with(kind), "{host} goes by {}, not by {kind}", view.path);
        Ok(())
    });
    shown.await
}

/// The LSN's firewall lets nobody in whom its host has not spoken to; its children's sessions go on. A newcomer does not reach
/// it: the time is from its coming until all are under an LSN that it reaches. Then everything is as before.
async fn lsn_walled_in(fleet: &Fleet, limit: Duration) -> Result<Duration> {
    let lsn = fleet.lsn_of(HERE)?;
    let newcomer = child_in(fleet, ELSEWHERE)?;
    fleet.lab().host(&lsn)?.keep_strangers_out().await?;
    let started = Instant::now();
    fleet.lab().move_host(&newcomer, HERE).await?;
    let whole = fleet.until_whole(limit).await;
    let next = fleet.lsn_of(HERE);
    fleet.lab().host(&lsn)?.let_strangers_in().await?;
    fleet.lab().move_host(&newcomer, ELSEWHERE).await?;
    let next = next?;
    ensure!(next != lsn, "{lsn} is LSN, though a stranger does not reach it");
    Ok(whole?.duration_since(started))
}

/// The time is from the cable's return.
async fn interface_down(fleet: &Fleet, limit: Duration) -> Result<Duration> {
    let child = child_in(fleet, HERE)?;
    let host = fleet.lab().host(&child)?;
    host.set_link(false).await?;
    sleep(UNPLUGGED).await;
    let started = Instant::now();
    host.set_link(true).await?;
    back_with_a_task(fleet, started, limit).await
}

async fn address_changed(fleet: &Fleet, host: &str, limit: Duration) -> Result<Duration> {
    let machine = fleet.lab().host(host)?;
    let number = machine.attachment().number + 50;
    let started = Instant::now();
    machine.renumber(number).await?;
    let address = machine.attachment().address().to_string();
    let shown = fleet.observer().until(limit, |picture| {
        let view = picture.nodes.get(host).context("the master does not know it")?;
        let known = view.addresses.iter().any(|known| known.contains(&address));
        ensure!(known, "{host} is said to be at {:?}, not at {address}", view.addresses);
        Ok(())
    });
    shown.await?;
    back_with_a_task(fleet, started, limit).await
}

/// The picture is whole again, and a task reaches all: whoever is shown can be reached.
async fn back_with_a_task(fleet: &Fleet, started: Instant, limit: Duration) -> Result<Duration> {
    let whole = fleet.until_whole(limit).await?;
    task_reaches_all(fleet).await?;
    Ok(whole.max(started).duration_since(started))
}

/// The agent does not run for longer than its lease, and its clock says that the host slept for `span`.
async fn slept(fleet: &Fleet, span: Duration, limit: Duration) -> Result<Duration> {
    let child = child_in(fleet, HERE)?;
    let agent = fleet.agent(&child)?;
    agent.signal(Signal::SIGSTOP).await?;
    sleep(AWAY).await;
    agent.sleep(span)?;
    let started = Instant::now();
    agent.signal(Signal::SIGCONT).await?;
    let took = back_with_a_task(fleet, started, limit).await?;
    says_why(fleet, &child, "SLEPT").await?;
    Ok(took)
}

/// The same without a word of the clock.
async fn stalled(fleet: &Fleet, limit: Duration) -> Result<Duration> {
    let child = child_in(fleet, HERE)?;
    let agent = fleet.agent(&child)?;
    agent.signal(Signal::SIGSTOP).await?;
    sleep(AWAY).await;
    let started = Instant::now();
    agent.signal(Signal::SIGCONT).await?;
    let took = back_with_a_task(fleet, started, limit).await?;
    says_why(fleet, &child, "STALLED").await?;
    Ok(took)
}

async fn says_why(fleet: &Fleet, host: &str, reason: &str) -> Result<()> {
    let said = status(fleet, host).await?["disconnections"].to_string().to_uppercase();
    ensure!(said.contains(reason), "{host} does not name {reason} among its disconnections: {said}");
    Ok(())
}

/// Nobody sees a packet of it any more, nor a link that goes down.
async fn lsn_cut_off(fleet: &Fleet, limit: Duration) -> Result<Duration> {
    let lsn = fleet.lsn_of(HERE)?;
    let started = Instant::now();
    fleet.lab().set_cut_off(&lsn, true).await?;
    let others: Vec<_> =
        fleet.lab().hosts_in(HERE).map(crate::Host::name).filter(|name| *name != lsn).collect();
    let gathered = fleet.observer().until(limit, |picture| {
        let views = || others.iter().filter_map(|name| picture.nodes.get(*name));
        let next = views().find(|view| view.is_lsn()).context("nobody has taken over")?;
        let stray = views().find(|view| view.name != next.name && !view.is_child_of(next));
        ensure!(
            stray.is_none(),
            "{} is not under {}",
            stray.map_or("", |view| &view.host_name),
            next.host_name
        );
        Ok(())
    });
    let gathered = gathered.await;
    fleet.lab().set_cut_off(&lsn, false).await?;
    let took = gathered?.duration_since(started);
    fleet.until_whole(limit).await.context("the LSN that was cut off comes back")?;
    Ok(took)
}

/// Every agent at once, as after a power cut.
async fn all_boot(fleet: &Fleet, limit: Duration) -> Result<Duration> {
    let names: Vec<_> = fleet.lab().hosts().map(|host| host.name().to_owned()).collect();
    for name in &names {
        fleet.agent(name)?.signal(Signal::SIGKILL).await?;
    }
    for name in &names {
        fleet.agent(name)?.reap().await?;
    }
    let started = Instant::now();
    for name in &names {
        fleet.start_agent(name).await?;
    }
    back_with_a_task(fleet, started, limit).await
}

async fn router_gone(fleet: &Fleet, limit: Duration) -> Result<Duration> {
    let place = fleet.lab().place(HERE)?;
    place.set_dark(true);
    sleep(GONE).await;
    let started = Instant::now();
    place.set_dark(false);
    back_with_a_task_soon(fleet, started, limit).await
}

async fn master_gone(fleet: &Fleet, limit: Duration) -> Result<Duration> {
    fleet.master().kill().await?;
    sleep(GONE).await;
    let started = Instant::now();
    fleet.start_master().await?;
    back_with_a_task_soon(fleet, started, limit).await
}

/// While the picture still shows what was, tasks tell.
async fn back_with_a_task_soon(fleet: &Fleet, started: Instant, limit: Duration) -> Result<Duration> {
    loop {
        match task_reaches_all(fleet).await {
            Ok(_) => break,
            Err(error) => ensure!(started.elapsed() < limit, "not within {limit:.0?}: {error:#}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
    let reached = started.elapsed();
    fleet.until_whole(limit).await?;
    Ok(reached)
}

/// The place hangs on a line of 40 ms with bursts of loss, and loses its LSN.
async fn bursts(fleet: &Fleet, limit: Duration) -> Result<Duration> {
    let loss = Loss::Bursts {
        good: Duration::from_secs(5),
        bad: Duration::from_millis(150),
        loss_when_good: 0.0,
        loss_when_bad: 0.8,
    };
    let line = Shape { delay: Duration::from_millis(40), loss, ..Shape::default() };
    let perfect = Shape::default();
    fleet.lab().place(HERE)?.router().gateway().reshape(line, line);
    let lsn = fleet.lsn_of(HERE)?;
    let started = Instant::now();
    fleet.agent(&lsn)?.kill().await?;
    let gathered = fleet.until_gathered(limit).await;
    fleet.start_agent(&lsn).await?;
    let whole = fleet.until_whole(limit).await;
    fleet.lab().place(HERE)?.router().gateway().reshape(perfect, perfect);
    whole?;
    Ok(gathered?.duration_since(started))
}
