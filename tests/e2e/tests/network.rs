//! From nothing to a working network, and what survives: restarts, kills, services apart, goodbyes.

use anyhow::{Context, Result, ensure};
use muster_e2e::fleet::{command, is_online};
use muster_e2e::{Agent, Fleet, Master};
use muster_proto::fleet::v1::NodeState;
use muster_proto::task::v1::TaskState;

/// Where auth leaves, below its data directory, the link by which topology joins.
const JOIN: &str = "join/topology.link";

#[tokio::test]
async fn two_commands_give_a_working_network() -> Result<()> {
    // The first of them: a master and an agent of this host, which is there when `up` says so.
    let master = Master::up_with(&[]).await?;
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
    ensure!(
        node["os"].as_str().is_some_and(|os| !os.is_empty())
            && node["architecture"] == std::env::consts::ARCH,
        "{node}"
    );
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
async fn an_enrolled_device_is_listed_before_it_ever_came_and_its_task_waits_for_it() -> Result<()> {
    let master = Master::up().await?;
    let mut agent = Agent::enrolled(&master, &[]).await?;
    let (fleet, name) = (master.fleet()?, agent.name()?);
    fleet.until_node(&name, |node| node.state() == NodeState::NeverSeen).await?;
    let listed = master.muster(&["nodes", "--state", "never-seen"]).await?.expect(0)?;
    ensure!(listed.stdout.contains("never seen"), "{listed}");
    let task = fleet.create(&command(&[&name], &["true"], "")).await?;
    agent.start(&[])?;
    let ended = fleet.until_ended(&task, &name).await?;
    ensure!(ended.state() == TaskState::Succeeded, "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn up_leaves_one_open_link_however_often_it_starts() -> Result<()> {
    let mut master = Master::up().await?;
    master.stop().await?;
    master.start(&[]).await?;
    let listed = master.muster(&["link", "list", "--output", "json"]).await?.expect(0)?;
    let links = listed.document("Links")?;
    let states: Vec<_> = links["links"].as_array().context("a list")?.iter().map(|it| &it["state"]).collect();
    ensure!(states.iter().filter(|state| **state == "open").count() == 1, "{states:?}");
    Ok(())
}

#[tokio::test]
async fn a_second_start_of_up_resumes_with_the_same_network_and_the_same_nodes() -> Result<()> {
    let mut master = Master::up_with(&[]).await?;
    let before = own_node(&master).await?;
    master.fleet()?.until_node(&before, is_online).await?;
    let roots = master.operator()?.roots;
    master.stop().await?;
    master.start(&[]).await?;
    ensure!(own_node(&master).await? == before, "the agent of this host enrolled again");
    ensure!(master.operator()?.roots == roots, "the root changed");
    master.fleet()?.until_node(&before, is_online).await?;
    ensure!(master.nodes().await?.len() == 1);
    Ok(())
}

/// The agent beside the master, as `muster up` names it.
async fn own_node(master: &Master) -> Result<String> {
    let line = master.program()?.says("this host  nodes/").await?;
    let name = line.split_whitespace().nth(2).context("a name")?;
    Ok(name.trim_end_matches(',').to_owned())
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
async fn a_killed_agent_goes_on_under_its_name_and_does_what_was_asked_meanwhile() -> Result<()> {
    let master = Master::up().await?;
    let mut agent = Agent::of(&master).await?;
    agent.kill().await?;
    let (fleet, name) = (master.fleet()?, agent.name()?);
    let task = fleet.create(&command(&[&name], &["true"], "")).await?;
    agent.start(&[])?;
    let ended = fleet.until_ended(&task, &name).await?;
    ensure!(ended.state() == TaskState::Succeeded, "{ended:?}");
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
    auth.muster(&["init", "--address", &auth.address()]).await?.expect(0)?;
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
    operators_reach_both(&auth, &topology, &name).await
}

/// At auth's folder, and by a context of an operator elsewhere: some commands are topology's, others auth's.
async fn operators_reach_both(auth: &Master, topology: &Master, node: &str) -> Result<()> {
    let here = |words: &'static [&'static str]| auth.muster(words);
    ensure!(here(&["nodes"]).await?.expect(0)?.stdout.contains("online"));
    let ran = here(&["run", "--all", "--", "echo", "here"]).await?.expect(0)?;
    ensure!(ran.stdout.contains("| here"), "{ran}");
    let link = auth.link(&["--role", "operator", "--name", "ada"]).await?;
    topology.muster_elsewhere(&["login", "--name", "far", "-"], &link).await?.expect(0)?;
    let far =
        async |words: &[&str]| topology.muster_elsewhere(&[&["--context", "far"], words].concat(), "").await;
    let ran = far(&["run", "--on", node, "--", "echo", "there"]).await?.expect(0)?;
    ensure!(ran.stdout.contains("| there"), "{ran}");
    far(&["link", "create"]).await?.expect(0)?;
    far(&["topology"]).await?.expect(0)?;
    Ok(())
}

#[tokio::test]
async fn a_service_that_is_down_is_not_mistaken_for_a_stranger() -> Result<()> {
    let mut auth = Master::nowhere()?;
    auth.muster(&["init", "--address", &auth.address()]).await?.expect(0)?;
    let nobody = Master::nowhere()?.address();
    auth.serve(&["--target", "auth"], &nobody).await?;
    auth.muster(&["link", "list"]).await?.expect(0)?;
    let answer = auth.muster(&["nodes"]).await?;
    ensure!(answer.code != 0 && answer.stderr.contains(&nobody), "it does not name who is missing\n{answer}");
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
    ensure!(node.offline_reason.contains("parted (210)"), "{node:?}");
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

#[tokio::test]
async fn processes_that_start_together_in_one_fresh_folder_found_one_network() -> Result<()> {
    for _ in 0..3 {
        let place = Master::nowhere()?;
        let words = ["--output", "json", "init", "--address", "localhost:27431"];
        let answers = futures::future::join_all((0..8).map(|_| place.muster(&words))).await;
        let mut networks = std::collections::BTreeSet::new();
        for answer in answers {
            let documents = answer?.expect(0)?.documents()?;
            networks.insert(documents[0]["network"].as_str().unwrap_or_default().to_owned());
        }
        ensure!(networks.len() == 1, "{networks:?}");
    }
    Ok(())
}
