//! From nothing to a working network, and what survives: restarts, kills, services apart, goodbyes.

use anyhow::{Context, Result, ensure};
use muster_e2e::fleet::{command, is_online};
use muster_e2e::{Agent, Fleet, Master};

/// Where auth leaves, below its data directory, the link by which topology joins.
const JOIN: &str = "join/topology.link";

#[tokio::test]
async fn two_commands_give_a_working_network() -> Result<()> {
    // The first of them: a master and an agent of this host.
    let master = Master::up_with(&[]).await?;
    let nodes = master.nodes().await?;
    let [node] = &nodes[..] else { anyhow::bail!("not one node: {nodes:?}") };
    let name = node["name"].as_str().context("a node has a name")?;
    master.fleet()?.until_node(name, is_online).await?;
    // The second: what it prints as the thing to try.
    let ran = master.muster(&["run", "--all", "--", "echo", "it works"]).await?.expect(0)?;
    ensure!(ran.stdout.contains("| it works"), "{ran}");
    Ok(())
}

#[tokio::test]
async fn up_prints_where_the_api_listens_a_link_that_works_and_what_to_type_next() -> Result<()> {
    let master = Master::up().await?;
    let program = master.program()?;
    ensure!(program.says("API").await?.contains(&master.address()));
    let line = program.says("muster-agent enroll '").await?;
    let link = line.split('\'').nth(1).context("the link is quoted")?;
    program.says("run --all -- uptime").await?;
    let agent = Agent::new()?;
    agent.enroll(link).await?.expect(0)?;
    Ok(())
}

#[tokio::test]
async fn an_enrolled_agent_shows_in_the_list_of_nodes_with_what_it_is() -> Result<()> {
    let master = Master::up().await?;
    let mut agent = Agent::enrolled(&master, &["--label", "role=till"]).await?;
    agent.start(&[])?;
    agent.until_online(&master).await?;
    let nodes = master.nodes().await?;
    let [node] = &nodes[..] else { anyhow::bail!("not one node: {nodes:?}") };
    ensure!(node["name"] == agent.name()?.as_str() && node["state"] == "online", "{node}");
    ensure!(
        node["labels"]["role"] == "till" && node["softwareVersion"] == env!("CARGO_PKG_VERSION"),
        "{node}"
    );
    ensure!(node["os"] == "linux" && node["architecture"] == std::env::consts::ARCH, "{node}");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    ensure!(node["hostName"] == host.trim(), "{node}");
    let status = agent.status().await?;
    ensure!(
        status["node"] == agent.name()?.as_str() && status["masterAddress"] == master.address(),
        "{status}"
    );
    Ok(())
}

#[tokio::test]
async fn a_second_start_of_up_resumes_with_the_same_network_and_the_same_nodes() -> Result<()> {
    let mut master = Master::up_with(&[]).await?;
    let before = master.nodes().await?;
    let roots = master.operator()?.roots;
    master.stop().await?;
    master.start(&[]).await?;
    let after = master.nodes().await?;
    ensure!(after.len() == 1 && after[0]["name"] == before[0]["name"], "{after:?}");
    ensure!(master.operator()?.roots == roots, "the root changed");
    let name = after[0]["name"].as_str().context("a node has a name")?;
    master.fleet()?.until_node(name, is_online).await?;
    Ok(())
}

#[tokio::test]
async fn a_second_master_in_the_same_folder_is_refused() -> Result<()> {
    let master = Master::up().await?;
    let refused = master.muster(&["up", "--listen", "127.0.0.1:0", "--observe", "127.0.0.1:0"]).await?;
    ensure!(refused.code != 0 && refused.stderr.contains("error: "), "{refused}");
    Ok(())
}

#[tokio::test]
async fn the_picture_heals_after_the_master_was_killed_and_nobody_enrolls_again() -> Result<()> {
    let mut master = Master::up().await?;
    let agents = [Agent::of(&master).await?, Agent::of(&master).await?];
    let identities = agents.iter().map(Agent::kept_identity).collect::<Result<Vec<_>>>()?;
    master.kill().await?;
    master.start(&[]).await?;
    for (agent, identity) in agents.iter().zip(identities) {
        let name = agent.name()?;
        let task = command(&[&name], &["true"], "");
        agent.until_online(&master).await?;
        let task = master.fleet()?.create(&task).await?;
        let ended = master.fleet()?.until_ended(&task, &name).await?;
        ensure!(ended.finished.is_some_and(|finished| finished.exit_code == Some(0)));
        ensure!(agent.kept_identity()? == identity, "the agent enrolled again");
    }
    Ok(())
}

#[tokio::test]
async fn a_killed_agent_is_seen_offline_and_is_back_under_its_name_after_a_restart() -> Result<()> {
    let master = Master::up().await?;
    let mut agent = Agent::of(&master).await?;
    agent.kill().await?;
    agent.until_offline(&master).await?;
    agent.start(&[])?;
    agent.until_online(&master).await?;
    ensure!(master.nodes().await?.len() == 1);
    Ok(())
}

#[tokio::test]
async fn an_agent_that_is_told_to_end_says_goodbye() -> Result<()> {
    let master = Master::up().await?;
    let mut agent = Agent::of(&master).await?;
    agent.stop().await?;
    let fleet = master.fleet()?;
    let node = fleet.until_node(&agent.name()?, |node| !is_online(node)).await?;
    ensure!(node.offline_reason.contains("parted (200)"), "{node:?}");
    Ok(())
}

#[tokio::test]
async fn a_master_that_is_told_to_end_drains_its_streams_and_ends_well() -> Result<()> {
    let mut master = Master::up().await?;
    let _agent = Agent::of(&master).await?;
    let watch = master.muster_on(&["watch", "--all", "--output", "json"])?;
    watch.says("InitialStateEnd").await?;
    master.stop().await
}

#[tokio::test]
async fn topology_and_auth_run_as_processes_of_their_own() -> Result<()> {
    let (mut auth, mut topology) = (Master::nowhere()?, Master::nowhere()?);
    auth.serve(&["--target", "auth"], &topology.address()).await?;
    // All that topology needs of auth's folder is the link that lets it join.
    std::fs::create_dir_all(topology.data_dir().join("join"))?;
    std::fs::copy(auth.data_dir().join(JOIN), topology.data_dir().join(JOIN))?;
    topology.serve(&["--target", "topology"], &auth.address()).await?;
    let fleet = Fleet::new(topology.topology_as(auth.operator()?)?);
    let mut agent = Agent::enrolled(&auth, &[]).await?;
    agent.start(&[])?;
    let name = agent.name()?;
    fleet.until_node(&name, is_online).await?;
    let task = fleet.create(&command(&[&name], &["echo", "from afar"], "")).await?;
    fleet.until_ended(&task, &name).await?;
    ensure!(fleet.stdout(&task, &name).await? == "from afar\n");
    Ok(())
}

#[tokio::test]
async fn uninstall_parts_and_removes_everything() -> Result<()> {
    let master = Master::up().await?;
    let mut agent = Agent::of(&master).await?;
    let name = agent.name()?;
    agent.says(&["uninstall"], "").await?.expect(0)?;
    ensure!(!agent.state_dir().exists(), "{:?} is left", agent.kept());
    let status = agent.take_program()?.ended().await?;
    ensure!(status.success(), "the agent ended with {status}");
    let node = master.fleet()?.until_node(&name, |node| !is_online(node)).await?;
    ensure!(node.offline_reason.contains("parted (200)"), "{node:?}");
    Ok(())
}

#[tokio::test]
async fn a_second_agent_with_the_same_state_is_refused() -> Result<()> {
    let master = Master::up().await?;
    let agent = Agent::of(&master).await?;
    let refused = agent.says(&["run", "--port", "0"], "").await?;
    ensure!(
        refused.code == 1 && refused.stderr.contains("another agent runs with the state in"),
        "{refused}"
    );
    Ok(())
}
