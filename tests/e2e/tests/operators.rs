//! Signed and sealed tasks with the real programs: the operators' own root, and what only the ends can read.

use anyhow::{Context, Result, ensure};
use muster_e2e::fleet::{command, is_online};
use muster_e2e::{Agent, Master};
use muster_proto::fleet::v1::NodeRole;
use muster_proto::task::v1::TaskState;

/// An operators' root in the master's folder, its policy installed; answers the key of an operator.
async fn operators(master: &Master, require: bool) -> Result<String> {
    let at = |name: &str| master.folder().join(name).display().to_string();
    let (root, key, policy) = (at("operators"), at("ada.pem"), at("policy"));
    master.muster(&["operator-root", "init", &root]).await?.expect(0)?;
    master.muster(&["operator-root", "sign", &root, "--name", "ada", "--out", &key]).await?.expect(0)?;
    let link = master.link(&[]).await?;
    let mut words = vec!["operator-root", "policy", &root, "--network", &link, "--out", &policy];
    if require {
        words.push("--require");
    }
    master.muster(&words).await?.expect(0)?;
    master.muster(&["operator-root", "install", &policy]).await?.expect(0)?;
    Ok(key)
}

#[tokio::test]
async fn a_network_that_requires_operators_signatures_does_nothing_that_its_master_says_alone() -> Result<()>
{
    let master = Master::up().await?;
    let key = operators(&master, true).await?;
    let agent = Agent::of(&master).await?;
    let (fleet, name) = (master.fleet()?, agent.name()?);
    let alone = fleet.create(&command(&[&name], &["true"], "")).await?;
    let refused = fleet.until_ended(&alone, &name).await?;
    let code = refused.finished.clone().unwrap_or_default().reason_code;
    ensure!(refused.state() == TaskState::Rejected && code == "OPERATOR_SIGNATURE_REQUIRED", "{refused:?}");
    let ran = master.muster(&["run", "--on", &name, "--sign-with", &key, "--", "echo", "signed"]).await?;
    ensure!(ran.expect(0)?.stdout.contains("| signed"));
    // Signed and sealed at once.
    let words = ["run", "--on", &name, "--sign-with", &key, "--confidential", "--", "echo", "sealed"];
    ensure!(master.muster(&words).await?.expect(0)?.stdout.contains("| sealed"));
    Ok(())
}

#[tokio::test]
async fn a_later_policy_of_the_pinned_root_reaches_nodes_and_another_roots_does_not() -> Result<()> {
    let mut master = Master::up().await?;
    operators(&master, true).await?;
    let agent = Agent::of(&master).await?;
    let (fleet, name) = (master.fleet()?, agent.name()?);
    let folder = master.folder().to_owned();
    let at = |name: &str| folder.join(name).display().to_string();
    // A master that was taken over makes an operators' root of its own.
    let (root, policy) = (at("usurpers"), at("usurpers-policy"));
    master.muster(&["operator-root", "init", &root]).await?.expect(0)?;
    let link = master.link(&[]).await?;
    let words = ["operator-root", "policy", &root, "--network", &link, "--out", &policy];
    master.muster(&words).await?.expect(0)?;
    master.muster(&["operator-root", "install", &policy]).await?.expect(0)?;
    master.stop().await?;
    master.start(&[]).await?;
    agent.program()?.says("an operators' policy is refused").await?;
    let alone = fleet.create(&command(&[&name], &["true"], "")).await?;
    ensure!(fleet.until_ended(&alone, &name).await?.state() == TaskState::Rejected);

    // The root itself may withdraw what it demanded.
    let (root, policy) = (at("operators"), at("policy-2"));
    let words = ["operator-root", "policy", &root, "--network", &link, "--out", &policy];
    master.muster(&words).await?.expect(0)?;
    master.muster(&["operator-root", "install", &policy]).await?.expect(0)?;
    master.stop().await?;
    master.start(&[]).await?;
    agent.program()?.says("the operators' root says something new").await?;
    let alone = fleet.create(&command(&[&name], &["true"], "")).await?;
    ensure!(fleet.until_ended(&alone, &name).await?.state() == TaskState::Succeeded);
    Ok(())
}

#[tokio::test]
async fn a_confidential_command_runs_and_the_master_keeps_no_word_of_it() -> Result<()> {
    const SECRET: &str = "hunter2-in-the-arguments";
    let master = Master::up().await?;
    let agent = Agent::of(&master).await?;
    let name = agent.name()?;
    let words = ["run", "--on", &name, "--confidential", "--output", "json", "--", "sh", "-c"];
    let script = format!("test -n {SECRET} && echo heard");
    let ran = master.muster(&[&words[..], &[script.as_str()]].concat()).await?.expect(0)?;
    ensure!(!ran.stdout.contains(SECRET), "{ran}");
    // Neither in the database nor beside it.
    let mut looked = 0;
    for entry in std::fs::read_dir(master.data_dir())? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("topology.db")) {
            let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
            looked += 1;
            ensure!(
                !bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()),
                "{path:?} has it"
            );
        }
    }
    ensure!(looked > 0, "no database was looked into");
    Ok(())
}

#[tokio::test]
async fn a_task_on_many_hosts_waits_for_a_second_person() -> Result<()> {
    let master = Master::up().await?;
    std::fs::write(master.data_dir().join("task-policy.toml"), "approval_above = 1\n")?;
    let agents = [Agent::of(&master).await?, Agent::of(&master).await?];
    let (fleet, names) = (master.fleet()?, [agents[0].name()?, agents[1].name()?]);
    // One host needs nobody else.
    let one = fleet.create(&command(&[&names[0]], &["true"], "")).await?;
    fleet.until_ended(&one, &names[0]).await?;

    let task = fleet.create(&command(&[&names[0], &names[1]], &["echo", "agreed"], "")).await?;
    let own = master.muster(&["approve", &task]).await?;
    ensure!(own.code != 0 && own.stderr.contains("somebody else"), "{own}");
    // The next task goes; this one does not, although it came first.
    let next = fleet.create(&command(&[&names[1]], &["true"], "")).await?;
    fleet.until_ended(&next, &names[1]).await?;
    ensure!(fleet.targets(&task).await?.iter().all(|target| target.state() == TaskState::Queued));

    let link = master.link(&["--role", "operator", "--name", "ada"]).await?;
    let ada = Master::nowhere()?;
    ada.muster_elsewhere(&["login", "-", "--name", "home"], &link).await?.expect(0)?;
    ada.muster_elsewhere(&["approve", &task, "--context", "home"], "").await?.expect(0)?;
    for name in &names {
        fleet.until_ended(&task, name).await?;
    }
    ensure!(fleet.task(&task).await?.approver == "operators/ada");

    // Who did what stands in the audit log, and the log can be proven whole.
    let log = master.until_audited(&["approve-task"]).await?;
    let of = |action: &str| log.lines().filter(|line| line.contains(&task) && line.contains(action)).count();
    ensure!((of("create-task"), of("refuse"), of("approve-task")) == (1, 1, 1), "{log}");
    ensure!(log.lines().any(|line| line.contains("approve-task") && line.contains("operators/ada")), "{log}");
    let file = master.folder().join("audit.jsonl");
    std::fs::write(&file, &log)?;
    master.muster(&["audit", "verify", &file.display().to_string()]).await?.expect(0)?;
    Ok(())
}

#[tokio::test]
async fn an_operator_with_a_scope_does_nothing_outside_it() -> Result<()> {
    let master = Master::up().await?;
    let policy = "[[scope]]\nwho = [\"operators/ada\"]\ntypes = [\"run\"]\nlabels = { role = \"till\" }\n";
    std::fs::write(master.data_dir().join("task-policy.toml"), policy)?;
    let mut till = Agent::enrolled(&master, &["--label", "role=till"]).await?;
    till.start(&[])?;
    till.until_online(&master).await?;
    let desk = Agent::of(&master).await?;
    let link = master.link(&["--role", "operator", "--name", "ada"]).await?;
    let ada = Master::nowhere()?;
    ada.muster_elsewhere(&["login", "-", "--name", "home"], &link).await?.expect(0)?;
    let (till, desk) = (till.name()?, desk.name()?);
    let run = |node: String| {
        let ada = &ada;
        async move { ada.muster_elsewhere(&["run", "--context", "home", "--on", &node, "--", "true"], "").await }
    };
    run(till.clone()).await?.expect(0)?;
    let refused = run(desk.clone()).await?;
    ensure!(refused.code != 0 && refused.stderr.contains("has no say"), "{refused}");
    let erase = ada.muster_elsewhere(&["erase", &till, "--context", "home"], "").await?;
    ensure!(erase.code != 0 && erase.stderr.contains("has no say"), "{erase}");
    for (node, label, reason) in
        [(&desk, "role=till", "has no say"), (&till, "role=desk", "may not change"), (&till, "floor=3", "")]
    {
        let label = ada.muster_elsewhere(&["label", node, label, "--context", "home"], "").await?;
        ensure!(label.stderr.contains(reason) && (label.code == 0) == reason.is_empty(), "{label}");
    }
    Ok(())
}

/// Certificates in the section of `muster ca show` that lists who signs in the master's name.
fn signers(shown: &muster_e2e::Answer) -> Result<usize> {
    let document = shown.document("CertificateAuthority")?;
    let pem = document["signers"].as_str().context("signers")?;
    Ok(pem.matches("BEGIN CERTIFICATE").count())
}

#[tokio::test]
async fn the_keys_that_sign_tasks_are_replaced_and_running_nodes_follow_in_any_place() -> Result<()> {
    let mut master = Master::up().await?;
    let agents = [Agent::of(&master).await?, Agent::of(&master).await?];
    let (fleet, names) = (master.fleet()?, [agents[0].name()?, agents[1].name()?]);
    fleet.until_node(&names[1], |node| node.role() == NodeRole::Child && is_online(node)).await?;
    let shown = master.muster(&["ca", "show", "--output", "json"]).await?.expect(0)?;
    ensure!(signers(&shown)? == 3);
    // Signed by the old keys, and carried out when the new ones are there: the host is away meanwhile.
    let mut away = Agent::enrolled(&master, &[]).await?;
    fleet.until_node(&away.name()?, |_| true).await?;
    let early = fleet.create(&command(&[&away.name()?], &["echo", "early"], "")).await?;

    let shown = master.muster(&["ca", "rotate", "signers", "--output", "json"]).await?.expect(0)?;
    ensure!(signers(&shown)? == 6, "the old ones are not believed any more");
    // LSN and child run what the new keys sign, on the sessions that they have.
    let begun = std::time::Instant::now();
    let task = fleet.create(&command(&[&names[0], &names[1]], &["echo", "later"], "")).await?;
    for name in &names {
        ensure!(fleet.until_ended(&task, name).await?.state() == TaskState::Succeeded);
    }
    ensure!(
        begun.elapsed() < std::time::Duration::from_secs(15),
        "{:?}: they were asked twice",
        begun.elapsed()
    );
    away.start(&[])?;
    ensure!(fleet.until_ended(&early, &away.name()?).await?.state() == TaskState::Succeeded);
    // Cancellations and what comes after a restart as well.
    let long = fleet.create(&command(&[&names[1]], &["sleep", "600"], "")).await?;
    fleet.until_target(&long, &names[1], |state| state == TaskState::Started).await?;
    master.stop().await?;
    master.start(&[]).await?;
    master.muster(&["cancel", &long]).await?.expect(0)?;
    ensure!(fleet.until_ended(&long, &names[1]).await?.state() == TaskState::Cancelled);
    Ok(())
}
