//! Tasks as an operator types them: output as it comes, exit codes for scripts, time-outs, cancels, queues.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use muster_e2e::fleet::{command, is_online};
use muster_e2e::{Agent, Master};
use muster_proto::fleet::v1::{Node, NodeRole};
use muster_proto::task::v1::TaskState;
use serde_json::Value;

/// Exit codes of `muster` (its module `exit` lists them).
const HOSTS_FAILED: i32 = 1;
const USAGE: i32 = 2;
const INCOMPLETE: i32 = 5;

#[tokio::test]
async fn stdout_and_stderr_come_separately_with_the_host_in_front_and_a_summary() -> Result<()> {
    let master = Master::up().await?;
    let _agent = Agent::of(&master).await?;
    let ran =
        master.muster(&["run", "--all", "--", "sh", "-c", "echo out; echo err >&2"]).await?.expect(0)?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let host = host.trim();
    ensure!(ran.stdout == format!("{host} | out\n"), "{ran}");
    ensure!(ran.stderr.contains(&format!("{host} ! err")), "{ran}");
    ensure!(ran.stderr.contains("1 host: 1 succeeded"), "{ran}");
    Ok(())
}

#[tokio::test]
async fn output_is_shown_while_the_command_still_runs() -> Result<()> {
    let master = Master::up().await?;
    let agent = Agent::of(&master).await?;
    let gate = agent.folder().join("gate");
    let script = format!("echo begun; until [ -e {} ]; do sleep 0.05; done; echo done", gate.display());
    let mut run = master.muster_on(&["run", "--all", "--", "sh", "-c", &script])?;
    run.says("| begun").await?;
    ensure!(!run.has_said("| done"));
    std::fs::write(&gate, "")?;
    run.says("| done").await?;
    ensure!(run.ended().await?.success());
    Ok(())
}

#[tokio::test]
async fn the_exit_code_tells_that_a_host_failed_and_the_json_how() -> Result<()> {
    let master = Master::up().await?;
    let _agent = Agent::of(&master).await?;
    let ran = master.muster(&["run", "--all", "--output", "json", "--", "sh", "-c", "exit 7"]).await?;
    let ran = ran.expect(HOSTS_FAILED)?;
    let done = ran.document_among("TaskDone")?;
    let finished = &done["targets"][0]["finished"];
    ensure!(finished["state"] == "failed" && finished["exitCode"] == 7, "{ran}");
    let missing = master.muster(&["run", "--all", "--", "no-such-program"]).await?.expect(HOSTS_FAILED)?;
    ensure!(
        missing.stderr.contains("SPAWN_FAILED") && missing.stderr.contains("no-such-program"),
        "{missing}"
    );
    Ok(())
}

#[tokio::test]
async fn every_answer_in_json_is_in_the_versioned_envelope() -> Result<()> {
    let master = Master::up().await?;
    let _agent = Agent::of(&master).await?;
    let ran = master.muster(&["run", "--all", "--output", "json", "--", "echo", "x"]).await?.expect(0)?;
    let done = ran.document_among("TaskDone")?;
    let task = done["task"]["name"].as_str().context("a task has a name")?;
    for (arguments, kind) in [
        (&["nodes"][..], "Nodes"),
        (&["topology"], "Topology"),
        (&["tasks"], "Tasks"),
        (&["task", task], "Task"),
        (&["link", "list"], "Links"),
        (&["link", "create"], "Link"),
    ] {
        let asked = [arguments, &["--output", "json"]].concat();
        master.muster(&asked).await?.expect(0)?.document(kind).with_context(|| asked.join(" "))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_timeout_ends_the_whole_process_tree() -> Result<()> {
    let master = Master::up().await?;
    let agent = Agent::of(&master).await?;
    let tree = tree_script(agent.folder());
    let ran = master.muster(&["run", "--all", "--timeout", "1s", "--", "sh", "-c", &tree]).await?;
    let ran = ran.expect(INCOMPLETE)?;
    ensure!(ran.stderr.contains("timed_out"), "{ran}");
    all_gone(agent.folder())
}

#[tokio::test]
async fn cancelling_while_it_runs_ends_the_whole_process_tree() -> Result<()> {
    let master = Master::up().await?;
    let agent = Agent::of(&master).await?;
    let tree = tree_script(agent.folder());
    let mut run = master.muster_on(&["run", "--all", "--", "sh", "-c", &tree])?;
    run.says("| grown").await?;
    let tasks = master.muster(&["tasks", "--output", "json"]).await?.expect(0)?.document("Tasks")?;
    let task = tasks["tasks"][0]["name"].as_str().context("a task has a name")?;
    master.muster(&["cancel", task]).await?.expect(0)?;
    ensure!(run.ended().await?.code() == Some(INCOMPLETE));
    ensure!(run.has_said("cancelled"));
    all_gone(agent.folder())
}

/// A shell, its child that ignores SIGTERM, and a grandchild in a session of its own; each writes its process id.
fn tree_script(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "echo $$ > {folder}/one.pid; \
         sh -c 'trap \"\" TERM; echo $$ > {folder}/two.pid; \
                setsid sh -c \"echo \\$\\$ > {folder}/three.pid; sleep 300\" & sleep 300' & \
         until [ -s {folder}/two.pid ] && [ -s {folder}/three.pid ]; do sleep 0.02; done; echo grown; wait"
    )
}

fn all_gone(folder: &Path) -> Result<()> {
    for name in ["one", "two", "three"] {
        let id = std::fs::read_to_string(folder.join(format!("{name}.pid")))?;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.trim()));
        // A zombie has ended; that nobody has waited for it yet is its parent's business.
        let lives = stat.is_ok_and(|stat| !stat.contains(") Z "));
        ensure!(!lives, "process {name} ({}) still runs", id.trim());
    }
    Ok(())
}

#[tokio::test]
async fn a_task_for_a_host_that_is_away_waits_until_it_comes() -> Result<()> {
    let master = Master::up().await?;
    let mut agent = Agent::enrolled(&master, &[]).await?;
    agent.start(&[])?;
    agent.until_online(&master).await?;
    agent.stop().await?;
    agent.until_offline(&master).await?;
    let mut run = master.muster_on(&["run", "--all", "--queue-for", "1h", "--", "echo", "at last"])?;
    let name = agent.name()?;
    let task = newest_task(&master).await?;
    let waiting = master.fleet()?.targets(&task).await?;
    ensure!(waiting.len() == 1 && waiting[0].node == name && waiting[0].state() == TaskState::Queued);
    agent.start(&[])?;
    run.says("| at last").await?;
    ensure!(run.ended().await?.success());
    Ok(())
}

/// The only task there will be, once it is there.
async fn newest_task(master: &Master) -> Result<String> {
    let watch = master.muster_on(&["watch", "--all", "--output", "json"])?;
    watch.says("InitialStateEnd").await?;
    let tasks = master.muster(&["tasks", "--output", "json"]).await?.expect(0)?.document("Tasks")?;
    if let Some(name) = tasks["tasks"][0]["name"].as_str() {
        return Ok(name.to_owned());
    }
    let event: Value = serde_json::from_str(&watch.says("taskChanged").await?)?;
    let name = event["event"]["body"]["taskChanged"]["task"]["name"].as_str().map(str::to_owned);
    name.context("a task's event names it")
}

#[tokio::test]
async fn hosts_that_are_away_are_left_out_if_so_wanted() -> Result<()> {
    let master = Master::up().await?;
    let present = Agent::of(&master).await?;
    let mut away = Agent::of(&master).await?;
    away.stop().await?;
    away.until_offline(&master).await?;
    let ran = master.muster(&["run", "--all", "--skip-offline", "--output", "json", "--", "true"]).await?;
    let done = ran.expect(INCOMPLETE)?.document_among("TaskDone")?;
    let targets = done["targets"].as_array().context("a task has targets")?;
    let state = |name: &str| -> Option<&Value> {
        targets.iter().find(|target| target["node"] == name).map(|target| &target["state"])
    };
    ensure!(state(&present.name()?).is_some_and(|state| state == "succeeded"), "{done}");
    ensure!(state(&away.name()?).is_some_and(|state| state == "expired"), "{done}");
    Ok(())
}

#[tokio::test]
async fn a_dry_run_says_who_would_do_it_and_nobody_does() -> Result<()> {
    let master = Master::up().await?;
    let agent = Agent::of(&master).await?;
    let file = agent.folder().join("effect");
    let touch = ["run", "--all", "--dry-run", "--output", "json", "--", "touch", &file.to_string_lossy()];
    let planned = master.muster(&touch).await?.expect(0)?.document("DryRun")?;
    ensure!(planned["nodes"][0]["name"] == agent.name()?.as_str(), "{planned}");
    let tasks = master.muster(&["tasks", "--output", "json"]).await?.expect(0)?.document("Tasks")?;
    ensure!(tasks["tasks"].as_array().is_some_and(Vec::is_empty), "{tasks}");
    ensure!(!file.exists());
    Ok(())
}

#[tokio::test]
async fn a_script_runs_with_its_interpreter_and_its_arguments_as_root_in_a_clean_environment() -> Result<()> {
    let master = Master::up().await?;
    let agent = Agent::of(&master).await?;
    let file = agent.folder().join("script.sh");
    std::fs::write(&file, "#!/bin/bash\necho \"$BASH ${1:-none} $GREETING ${HOME:-}\"; cat; env | wc -l\n")?;
    let script = file.to_string_lossy().into_owned();
    let ran = master
        .muster(&["run", "--all", "--script", &script, "--env", "GREETING=hei", "--", "first argument"])
        .await?
        .expect(0)?;
    ensure!(ran.stdout.contains("/bin/bash first argument hei"), "{ran}");
    Ok(())
}

#[tokio::test]
async fn labels_come_from_link_or_operator_and_choose_hosts() -> Result<()> {
    let master = Master::up().await?;
    let mut till = Agent::enrolled(&master, &["--label", "role=till"]).await?;
    till.start(&[])?;
    till.until_online(&master).await?;
    let other = Agent::of(&master).await?;
    let chosen = |label: &'static str| {
        let master = &master;
        async move {
            let asked = ["run", "--label", label, "--dry-run", "--output", "json", "--", "true"];
            let planned = master.muster(&asked).await?.expect(0)?.document("DryRun")?;
            let nodes = planned["nodes"].as_array().context("nodes are a list")?.iter();
            anyhow::Ok(
                nodes.map(|node| node["name"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>(),
            )
        }
    };
    let (till, other) = (till.name()?, other.name()?);
    ensure!(chosen("role=till").await? == std::slice::from_ref(&till));
    master.muster(&["label", &other, "role=till", "floor=3"]).await?.expect(0)?;
    let mut both = chosen("role=till").await?;
    both.sort();
    let mut expected = vec![till.clone(), other.clone()];
    expected.sort();
    ensure!(both == expected, "{both:?}");
    master.muster(&["label", &other, "role-"]).await?.expect(0)?;
    ensure!(chosen("role=till").await? == [till] && chosen("floor=3").await? == [other]);
    Ok(())
}

#[tokio::test]
async fn a_run_that_names_no_host_is_not_understood() -> Result<()> {
    let master = Master::up().await?;
    let ran = master.muster(&["run", "--", "true"]).await?.expect(USAGE)?;
    ensure!(ran.stderr.contains("no host is named") && ran.stderr.contains("next:"), "{ran}");
    Ok(())
}

#[tokio::test]
async fn refresh_asks_the_host_itself() -> Result<()> {
    let master = Master::up().await?;
    let agent = Agent::of(&master).await?;
    let asked = master.muster(&["refresh", "--all", "--output", "json"]).await?.expect(0)?;
    ensure!(asked.stdout.contains(&agent.name()?), "{asked}");
    let fleet = master.fleet()?;
    fleet.until_node(&agent.name()?, is_online).await?;
    Ok(())
}

#[tokio::test]
async fn a_host_that_is_busy_with_one_task_does_the_next_meanwhile() -> Result<()> {
    let master = Master::up().await?;
    let agent = Agent::of(&master).await?;
    let gate = agent.folder().join("gate");
    let script = format!("echo begun; until [ -e {} ]; do sleep 0.05; done", gate.display());
    let mut slow = master.muster_on(&["run", "--all", "--", "sh", "-c", &script])?;
    slow.says("| begun").await?;
    master.muster(&["run", "--all", "--", "echo", "quick"]).await?.expect(0)?;
    std::fs::write(&gate, "")?;
    ensure!(slow.ended().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_child_whose_journal_was_lost_asks_the_master_and_then_does_its_tasks() -> Result<()> {
    let master = Master::up().await?;
    let (_lsn, mut child) = (Agent::of(&master).await?, Agent::of(&master).await?);
    let (name, fleet) = (child.name()?, master.fleet()?);
    let is_child = |node: &Node| is_online(node) && node.role() == NodeRole::Child;
    fleet.until_node(&name, is_child).await?;
    child.stop().await?;
    child.until_offline(&master).await?;
    for entry in std::fs::read_dir(child.state_dir())? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("journal.sqlite")) {
            std::fs::remove_file(path)?;
        }
    }
    let task = fleet.create(&command(&[&name], &["true"], "")).await?;
    child.start(&[])?;
    ensure!(fleet.until_ended(&task, &name).await?.state() == TaskState::Succeeded);
    child.program()?.says("the master said what was begun here").await?;
    fleet.until_node(&name, is_child).await.map(drop)
}
