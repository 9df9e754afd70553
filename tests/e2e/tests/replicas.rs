//! Several masters as one, on PostgreSQL and NATS: whoever of them dies, and whatever of the two, no acknowledged task is
//! lost, no effect happens twice, and a watch misses nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_e2e::{Agent, Master};
use uuid::Uuid;

#[path = "replicas/scene.rs"]
mod scene;

use scene::{HOSTS, Load, Replicas, Watch};

#[tokio::test(flavor = "multi_thread")]
async fn any_replica_answers_for_every_host_and_reaches_it_wherever_its_stream_stands() -> Result<()> {
    let replicas = Replicas::start().await?;
    let agents = replicas.agents().await?;
    for replica in &replicas.all {
        let seen = replica.nodes().await?;
        ensure!(seen.len() == HOSTS, "{} knows {} hosts", replica.address(), seen.len());
        let refreshed = replica.muster(&["refresh", "--all", "--output", "json"]).await?.expect(0)?;
        let document = refreshed.document("Refresh")?;
        let answered = document["answered"].as_array().context("a list")?.len();
        ensure!(answered == HOSTS, "through {} only {answered} hosts answered", replica.address());
        let ran = replica.muster(&["run", "--all", "--", "echo", "here"]).await?.expect(0)?;
        ensure!(ran.stdout.matches("| here").count() == HOSTS, "{}", ran.stdout);
    }
    drop(agents);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_each_replica_and_restarting_nats_and_postgresql_under_load_loses_and_doubles_nothing()
-> Result<()> {
    let mut replicas = Replicas::start().await?;
    let mut agents = replicas.agents().await?;
    let fleet = replicas.fleet()?;
    let watch = Watch::begin(fleet.clone());
    let load = Load::begin(fleet.clone(), &agents)?;
    let mut table = Vec::new();
    for at in 0..replicas.all.len() {
        load.goes_on().await?;
        replicas.all[at].kill().await?;
        let begin = Instant::now();
        load.goes_on().await?;
        table.push((format!("replica {} of 3 killed (SIGKILL)", at + 1), begin.elapsed()));
        // Somebody joins while it is away, through another one.
        let through = (at + 1) % replicas.all.len();
        agents.push(Agent::of(&replicas.all[through]).await?);
        replicas.restart(at).await?;
    }
    load.goes_on().await?;
    replicas.nats.kill();
    let begin = Instant::now();
    load.goes_on().await?;
    table.push(("NATS killed, and away".to_owned(), begin.elapsed()));
    replicas.nats.resume()?;
    let begin = Instant::now();
    load.goes_on().await?;
    table.push(("NATS back".to_owned(), begin.elapsed()));
    let begin = Instant::now();
    replicas.postgres.crash_and_restart()?;
    load.goes_on().await?;
    table.push(("PostgreSQL killed and started again".to_owned(), begin.elapsed()));
    let tasks = load.end().await?;
    println!("| until a new task has run on all {HOSTS} hosts, after | seconds |\n|---|---|");
    for (what, took) in &table {
        println!("| {what} | {:.1} |", took.as_secs_f64());
    }
    println!("{} tasks on {HOSTS} hosts", tasks.len());
    for task in &tasks {
        let done = fleet.task(task).await?;
        ensure!(done.done, "{task} was acknowledged and is not done");
        for target in fleet.targets(task).await? {
            ensure!(target.state().as_str_name() == "TASK_STATE_SUCCEEDED", "{task}: {target:?}");
        }
    }
    for agent in &agents[..HOSTS] {
        scene::effects_are_one_each(agent, tasks.len())?;
    }
    watch.saw_the_end_of(&tasks).await?;
    ensure!(table.iter().all(|(_, took)| *took < Duration::from_secs(60)), "{table:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn combinations_that_cannot_work_are_refused_with_a_sentence() -> Result<()> {
    let mut sqlite = Master::nowhere()?;
    let nats = [("MUSTER_NATS_URL", "nats://127.0.0.1:4222")];
    sqlite.spawn_words(&["serve", "--target", "all"], &nats)?;
    sqlite.program()?.says("NATS wakes replicas, and there can be only one on SQLite").await?;

    let replicas = Replicas::start().await?;
    let mut lonely = Master::nowhere()?;
    let environment: Vec<_> =
        replicas.environment().into_iter().filter(|(name, _)| name != "MUSTER_NATS_URL").collect();
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    lonely.spawn_words(&["serve", "--target", "all"], &environment)?;
    lonely.program()?.says("another replica serves the same database, and no bus joins them").await?;
    Ok(())
}

/// A request id that nobody had before.
fn fresh() -> String {
    Uuid::now_v7().to_string()
}
