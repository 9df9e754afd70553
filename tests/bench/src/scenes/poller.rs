//! The poller of old and ours, one after the other on the same hosts of the same lab.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use muster_lab::plan::{Family, MASTER, Translation};
use muster_lab::program::Program;
use muster_lab::{Fleet, Host, Lab, PlacePlan};
use nix::sys::signal::Signal;
use rand::Rng;

use super::{command, idle, settle};
use crate::poller::{self, Counts, Outcome, PORT};
use crate::row::Row;

/// Hosts behind the first place's translator, and in the last place, which has public addresses.
const BEHIND: usize = 30;
const PUBLIC: usize = 5;
const PUBLIC_PLACE: usize = 3;

/// An hour, shortened so that waiting for the next poll can be measured.
const SHORT_HOUR: f64 = 20.0;
const HOUR: f64 = 3600.0;

/// Hosts of which it is tried whether they can be woken through their translator.
const KNOCKED_AT: usize = 5;

/// Polls that were due have ended by then.
const POLLED: Duration = Duration::from_secs(15);

const OLD: &str = "lab, the poller of old";
const OURS: &str = "lab, ours, the same hosts";

/// For how long nothing is asked of ours.
const IDLE_WINDOW: Duration = Duration::from_secs(180);

/// Bytes, connections and the latency of a command.
pub(crate) async fn beside_ours() -> Result<Vec<Row>> {
    let open = PlacePlan { agents: PUBLIC, translation: Translation::None, ..PlacePlan::default() };
    let lab = Lab::builder()
        .place(PlacePlan { agents: BEHIND, ..PlacePlan::default() })
        .place(PlacePlan { agents: 1, ..PlacePlan::default() })
        .place(open)
        .build()
        .await?;
    let mut rows = of_old(&lab).await?;
    let fleet = Fleet::start(lab).await?;
    settle(&fleet).await?;
    tokio::time::sleep(idle::REST).await;
    rows.extend(idle::of_place(&fleet, BEHIND, OURS, IDLE_WINDOW).await?);
    let host =
        fleet.observer().now().nodes.get("p1a1").context("the master knows the first host")?.name.clone();
    let found = command::call(&fleet, &[host]).await?;
    rows.push(Row::new("a command on one host behind a translator", OURS, "ms", "-", found.commands));
    Ok(rows)
}

async fn of_old(lab: &Lab) -> Result<Vec<Row>> {
    let keys = lab.directory();
    poller::found(keys)?;
    let server = start(lab.master(), keys, &["poll-server"]).await?;
    let wan = lab.place(1)?.wan_traffic().await?;
    let clients = start_clients(lab, HOUR, &|_| 1.0).await?;
    tokio::time::sleep(POLLED).await;
    let bytes = (lab.place(1)?.wan_traffic().await? - wan).bytes() as f64;
    let counts: Counts = serde_json::from_str(&ask(lab, keys, "/counts").await?)?;
    let clients_there = (BEHIND + 1 + PUBLIC) as u64;
    ensure!(counts.polls == clients_there, "{counts:?}, and {clients_there} hosts");
    let mut rows = vec![
        Row::new("bytes of an idle device and hour: one poll", OLD, "B", "-", vec![bytes / BEHIND as f64]),
        Row::new("TLS connections of an idle device and hour", OLD, "", "-", vec![1.0]),
    ];

    let before = counts.connections;
    let woken = order(lab, keys, PUBLIC_PLACE, PUBLIC, "/wake").await?;
    ensure!(woken.iter().all(|outcome| outcome.woken), "{woken:?}");
    let counts: Counts = serde_json::from_str(&ask(lab, keys, "/counts").await?)?;
    let each = (counts.connections - before) as f64 / PUBLIC as f64;
    let times = woken.iter().filter_map(|outcome| outcome.millis).collect();
    rows.push(Row::new("TLS connections of a task", OLD, "", "-", vec![each]));
    rows.push(Row::new("a command on one host with a public address, woken", OLD, "ms", "-", times));
    let knocked = order(lab, keys, 1, KNOCKED_AT, "/wake").await?;
    let reached = knocked.iter().map(|outcome| f64::from(u8::from(outcome.woken)) * 100.0).collect();
    rows.push(Row::new("hosts behind a translator that can be woken", OLD, "%", "-", reached));
    end(clients).await?;

    let clients = start_clients(lab, SHORT_HOUR, &|_| rand::rng().random_range(0.0..SHORT_HOUR)).await?;
    tokio::time::sleep(Duration::from_secs_f64(SHORT_HOUR)).await;
    let waited = order(lab, keys, 1, BEHIND, "").await?;
    let minutes = waited
        .iter()
        .filter_map(|outcome| outcome.millis)
        .map(|millis| millis / 1e3 / SHORT_HOUR * 60.0)
        .collect();
    let what = "a command on one host by its next poll (polls every 20 s, the time then taken 180 times)";
    rows.push(Row::new(what, OLD, "minutes", "-", minutes));
    end(clients).await?;
    server.end(Signal::SIGKILL).await?;
    Ok(rows)
}

async fn start(machine: &muster_lab::Machine, keys: &Path, arguments: &[&str]) -> Result<Program> {
    let keys = keys.to_string_lossy();
    let arguments = [arguments, &["--keys", &keys]].concat();
    Program::start(machine, std::env::current_exe()?, &arguments).await
}

async fn start_clients(lab: &Lab, every: f64, first: &dyn Fn(&Host) -> f64) -> Result<Vec<Program>> {
    let mut clients = Vec::new();
    for host in lab.hosts() {
        let (server, every, first) = (server(), every.to_string(), first(host).to_string());
        let arguments =
            ["poll-client", "--server", &server, "--host", host.name(), "--every", &every, "--first", &first];
        clients.push(start(host.machine(), lab.directory(), &arguments).await?);
    }
    Ok(clients)
}

async fn end(clients: Vec<Program>) -> Result<()> {
    for client in clients {
        client.end(Signal::SIGKILL).await?;
    }
    Ok(())
}

/// A task for each of so many hosts of a place, all at once.
async fn order(lab: &Lab, keys: &Path, place: usize, hosts: usize, wake: &str) -> Result<Vec<Outcome>> {
    let orders = lab.hosts_in(place).take(hosts).map(|host| format!("/order/{}{wake}", host.name()));
    let answers = try_join_all(orders.map(|path| async move { ask(lab, keys, &path).await })).await?;
    answers.iter().map(|answer| Ok(serde_json::from_str(answer)?)).collect()
}

async fn ask(lab: &Lab, keys: &Path, path: &str) -> Result<String> {
    let (own, keys) = (std::env::current_exe()?, keys.to_string_lossy());
    lab.master().exec(own, &["poll-order", "--server", &server(), "--keys", &keys, path]).await
}

fn server() -> String {
    format!("{}:{PORT}", MASTER.address(Family::V4))
}
