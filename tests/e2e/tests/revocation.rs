//! Revoked and lost devices, with the real programs: cut off on every path, and what a lost one still gets.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_e2e::fleet::{command, is_online};
use muster_e2e::{Agent, Master};
use muster_proto::control::v1::ListOwnTasksRequest;
use muster_proto::control::v1::control_service_client::ControlServiceClient;
use muster_proto::fleet::v1::NodeRole;
use muster_proto::task::v1::TaskState;
use serde_json::Value;

/// From the command until everybody acts on it: aimed at for the last session in a network, and long before a lease ends.
const CUT: Duration = Duration::from_secs(5);

/// What lets the service join.
const JOIN: &str = "join/dht-bootstrap.link";

/// Between two looks at what an agent says of itself.
const LOOK: Duration = Duration::from_millis(50);

/// Longer than any wait here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the agent's own status is as wanted; says how long that took.
async fn until(agent: &Agent, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        // An agent that has just been started does not answer yet.
        let status = agent.status().await.unwrap_or_default();
        if wanted(&status) {
            return Ok(begun.elapsed());
        }
        ensure!(begun.elapsed() < PATIENCE, "not {what}: {status}");
        tokio::time::sleep(LOOK).await;
    }
}

fn lists(status: &Value, field: &str, name: &str) -> bool {
    status[field].as_array().is_some_and(|names| names.iter().any(|it| it == name))
}

/// Two agents in one cell: the LSN and its child.
async fn cell(master: &Master) -> Result<(Agent, Agent)> {
    let (one, two) = (Agent::of(master).await?, Agent::of(master).await?);
    let fleet = master.fleet()?;
    let paired = |role: NodeRole| matches!(role, NodeRole::Lsn | NodeRole::Child);
    let first = fleet.until_node(&one.name()?, |node| is_online(node) && paired(node.role())).await?;
    fleet.until_node(&two.name()?, |node| is_online(node) && node.role() == NodeRole::Child).await?;
    ensure!(first.role() == NodeRole::Lsn, "{first:?}");
    until(&one, "LSN of the other", |status| lists(status, "children", &two.name().unwrap_or_default()))
        .await?;
    Ok((one, two))
}

#[tokio::test]
async fn a_revoked_child_is_cut_by_its_lsn_and_by_the_master_and_never_comes_back() -> Result<()> {
    let master = Master::up().await?;
    let (lsn, mut child) = cell(&master).await?;
    let name = child.name()?;
    master.muster(&["revoke", &name, "--reason", "key-compromise"]).await?.expect(0)?;
    let begun = Instant::now();
    until(&lsn, "rid of its child", |status| !lists(status, "children", &name)).await?;
    let gone = master.fleet()?.until_node(&name, |node| !is_online(node)).await?;
    ensure!(begun.elapsed() < CUT, "{:?}", begun.elapsed());
    ensure!(gone.offline_reason == "revoked", "{gone:?}");
    // Neither the LSN nor the master takes it in again, whatever it tries.
    child.stop().await?;
    child.start(&[])?;
    child.program()?.says("is revoked").await?;
    ensure!(!is_online(&master.fleet()?.until_node(&name, |_| true).await?));
    ensure!(!lists(&lsn.status().await?, "children", &name));
    // What its keys could do, a thief with them can do no more.
    let mut control = ControlServiceClient::new(master.topology_as(child.stolen_credentials()?)?);
    let refused = control.list_own_tasks(ListOwnTasksRequest::default()).await;
    let reason = refused.err().and_then(|status| muster_kit::status::reason(&status));
    ensure!(reason.as_deref() == Some("CERTIFICATE_REVOKED"), "{reason:?}");
    Ok(())
}

#[tokio::test]
async fn the_children_of_a_revoked_lsn_leave_it_and_go_on_without_it() -> Result<()> {
    let master = Master::up().await?;
    let (lsn, child) = cell(&master).await?;
    let (old, name) = (lsn.name()?, child.name()?);
    master.muster(&["revoke", &old]).await?.expect(0)?;
    until(&child, "away from the revoked LSN", |status| status["lsn"] != old.as_str()).await?;
    let fleet = master.fleet()?;
    fleet.until_node(&name, |node| is_online(node) && node.role() != NodeRole::Child).await?;
    let task = fleet.create(&command(&[&name], &["echo", "free"], "")).await?;
    fleet.until_ended(&task, &name).await?;
    ensure!(fleet.stdout(&task, &name).await? == "free\n");
    Ok(())
}

#[tokio::test]
async fn a_restarted_node_still_knows_who_is_revoked_with_the_master_away() -> Result<()> {
    let mut master = Master::up().await?;
    let (mut lsn, child) = cell(&master).await?;
    let name = child.name()?;
    master.muster(&["revoke", &name]).await?.expect(0)?;
    until(&lsn, "rid of its child", |status| !lists(status, "children", &name)).await?;
    lsn.stop().await?;
    master.kill().await?;
    lsn.start(&[])?;
    until(&lsn, "an LSN again", |status| status["state"] == "IsLsn").await?;
    child.program()?.says("its certificate is revoked").await?;
    ensure!(!lists(&lsn.status().await?, "children", &name));
    Ok(())
}

#[tokio::test]
async fn a_device_that_only_the_master_tells_that_it_is_revoked_takes_nobody_under_it() -> Result<()> {
    let master = Master::up().await?;
    let (mut lsn, mut child) = cell(&master).await?;
    let (first, revoked) = (lsn.name()?, child.name()?);
    lsn.stop().await?;
    child.stop().await?;
    master.muster(&["revoke", &revoked]).await?.expect(0)?;
    child.start(&[])?;
    child.program()?.says("this device is revoked").await?;

    lsn.start(&[])?;
    let fleet = master.fleet()?;
    fleet.until_node(&first, |node| is_online(node) && node.role() == NodeRole::Lsn).await?;
    ensure!(!lists(&child.status().await?, "children", &first), "somebody is under a revoked node");
    Ok(())
}

#[tokio::test]
async fn what_was_revoked_after_a_backup_a_restored_master_hears_from_its_nodes() -> Result<()> {
    let mut master = Master::up().await?;
    let (lsn, child) = cell(&master).await?;
    let name = child.name()?;
    let backup = master.folder().join("backup").display().to_string();
    master.muster(&["backup", &backup]).await?.expect(0)?;
    master.muster(&["revoke", &name]).await?.expect(0)?;
    until(&lsn, "rid of its child", |status| !lists(status, "children", &name)).await?;
    master.stop().await?;
    std::fs::rename(master.data_dir(), master.folder().join("lost"))?;
    master.muster(&["restore", &backup]).await?.expect(0)?;
    master.start(&[]).await?;

    lsn.program()?.says("the master was restored and lacks revocations").await?;
    master.until_audited(&["adopt"]).await?;
    let fleet = master.fleet()?;
    fleet.until_node(&name, |node| !is_online(node)).await?;
    // Whatever the revoked one claimed meanwhile, the cell is the old LSN's.
    fleet.until_node(&lsn.name()?, |node| is_online(node) && node.role() == NodeRole::Lsn).await?;
    ensure!(!lists(&lsn.status().await?, "children", &name));
    Ok(())
}

#[tokio::test]
async fn a_node_that_is_cut_off_from_the_master_learns_from_the_hash_table_who_is_revoked() -> Result<()> {
    let (mut master, mut table) = (Master::nowhere()?, Master::nowhere()?);
    master.muster(&["init", "--address", &master.address()]).await?.expect(0)?;
    master.serve(&["--target", "auth,topology"], &table.address()).await?;
    std::fs::create_dir_all(table.data_dir().join("join"))?;
    std::fs::copy(master.data_dir().join(JOIN), table.data_dir().join(JOIN))?;
    table.serve(&["--target", "dht-bootstrap"], &master.address()).await?;
    let (mut agent, other) = (Agent::enrolled(&master, &[]).await?, Agent::enrolled(&master, &[]).await?);
    agent.start(&[])?;
    agent.program()?.says("published").await?;
    agent.stop().await?;
    // That it is enrolled comes to topology by its own way.
    master.fleet()?.until_node(&other.name()?, |_| true).await?;
    master.muster(&["revoke", &other.name()?]).await?.expect(0)?;
    table.program()?.says("revocations are in the table").await?;
    master.kill().await?;
    agent.start(&[])?;
    agent.program()?.says("the list of revocations is longer").await?;
    Ok(())
}

/// A device whose lock and erase touch nothing but its own folder.
async fn harmless(master: &Master) -> Result<(Agent, Vec<(&'static str, String)>)> {
    let agent = Agent::enrolled(master, &[]).await?;
    let home = agent.folder().join("home");
    std::fs::create_dir_all(home.join("ada"))?;
    let environment = vec![
        ("MUSTER_AGENT_LOCK__FILE", agent.folder().join("nologin").display().to_string()),
        ("MUSTER_AGENT_LOCK__COMMAND", "[\"true\"]".to_owned()),
        ("MUSTER_AGENT_ERASE__PATHS", format!("[{:?}]", home.display().to_string())),
    ];
    Ok((agent, environment))
}

fn borrowed<'a>(environment: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    environment.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[tokio::test]
async fn a_lost_device_that_comes_back_is_locked_and_erased_and_does_nothing_else() -> Result<()> {
    let master = Master::up().await?;
    let (mut agent, environment) = harmless(&master).await?;
    let name = agent.name()?;
    agent.start(&borrowed(&environment))?;
    agent.until_online(&master).await?;
    agent.stop().await?;
    let fleet = master.fleet()?;
    let other = fleet.create(&command(&[&name], &["true"], "")).await?;
    let lost = master.muster(&["lost", &name, "--lock", "--erase", "--output", "json"]).await?.expect(0)?;
    let lost = lost.document("Lost")?;
    let tasks: Vec<_> = lost["tasks"].as_array().context("tasks")?.iter().collect();
    ensure!(tasks.len() == 2, "{lost}");

    agent.start(&borrowed(&environment))?;
    for task in tasks {
        let task = task["name"].as_str().context("a name")?;
        let ended = fleet.until_ended(task, &name).await?;
        ensure!(ended.state() == TaskState::Succeeded, "{ended:?}");
    }
    ensure!(agent.folder().join("nologin").exists() && !agent.folder().join("home").exists());
    ensure!(!fleet.task(&other).await?.done, "a lost device did something else");

    // Found, it does what was asked meanwhile.
    master.muster(&["found", &name]).await?.expect(0)?;
    let ended = fleet.until_ended(&other, &name).await?;
    ensure!(ended.state() == TaskState::Succeeded, "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn a_revoked_operator_is_refused_at_every_service() -> Result<()> {
    let master = Master::up().await?;
    let link = master.link(&["--role", "operator", "--name", "ada"]).await?;
    let elsewhere = Master::nowhere()?;
    elsewhere.muster_elsewhere(&["login", "-", "--name", "home"], &link).await?.expect(0)?;
    let ask = ["nodes", "--context", "home"];
    elsewhere.muster_elsewhere(&ask, "").await?.expect(0)?;
    let watching = elsewhere.muster_elsewhere_on(&[], &["watch", "--context", "home"])?;
    master.muster(&["revoke", "operators/ada"]).await?.expect(0)?;
    watching.says("has been revoked").await?;
    let begun = Instant::now();
    while elsewhere.muster_elsewhere(&ask, "").await?.code == 0 {
        ensure!(begun.elapsed() < CUT, "a revoked operator still sees the fleet");
    }
    let begun = Instant::now();
    while elsewhere.muster_elsewhere(&["link", "list", "--context", "home"], "").await?.code == 0 {
        ensure!(begun.elapsed() < CUT, "a revoked operator still sees the links");
    }
    Ok(())
}

#[tokio::test]
async fn keys_that_leaked_are_withdrawn_and_the_network_goes_on_by_others() -> Result<()> {
    let master = Master::up().await?;
    let (lsn, child) = cell(&master).await?;
    let (fleet, name) = (master.fleet()?, child.name()?);
    master.muster(&["run", "--all", "--", "true"]).await?.expect(0)?;
    let words = ["--output", "json", "ca", "withdraw", "tasks", "tickets", "receipts"];
    let shown = master.muster(&words).await?.expect(0)?.documents()?;
    let certificates =
        |of: &str| shown[0][of].as_str().unwrap_or_default().matches("BEGIN CERTIFICATE").count();
    ensure!((certificates("withdrawals"), certificates("signers")) == (3, 3), "{shown:?}");
    ensure!(master.muster(&["audit", "export"]).await?.expect(0)?.stdout.contains("withdraw-signer"));
    // What is asked now is signed by the new key, of which LSN and child hear first.
    master.muster(&["run", "--all", "--", "true"]).await?.expect(0)?;
    for agent in [&lsn, &child] {
        agent.program()?.says("the master signs with other keys").await?;
    }
    // So is the list of revocations, which everybody reads anew.
    master.muster(&["revoke", &name]).await?.expect(0)?;
    fleet.until_node(&name, |node| !is_online(node)).await?;
    until(&lsn, "rid of the revoked child", |status| !lists(status, "children", &name)).await?;
    Ok(())
}
