//! Several masters as one, on PostgreSQL and NATS: whoever of them dies, and whatever of the two, no acknowledged task is
//! lost, no effect happens twice, and a watch misses nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_e2e::{Agent, Master};
use uuid::Uuid;

#[path = "replicas/cable.rs"]
mod cable;
#[path = "replicas/scene.rs"]
mod scene;
#[path = "replicas/standby.rs"]
mod standby;

use scene::{HOSTS, Load, Replicas, Watch};
use standby::Standby;

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
    tell(&table, tasks.len());
    scene::nothing_is_lost_or_doubled(&fleet, &agents[..HOSTS], watch, &tasks).await?;
    ensure!(table.iter().all(|(_, took)| *took < Duration::from_secs(60)), "{table:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_takes_the_place_of_a_lost_postgresql_has_all_that_was_acknowledged() -> Result<()> {
    let replicas = Replicas::start().await?;
    let agents = replicas.agents().await?;
    let fleet = replicas.fleet()?;
    let watch = Watch::begin(fleet.clone());
    let load = Load::begin(fleet.clone(), &agents)?;
    load.goes_on().await?;
    let standby = Standby::of(&replicas.primary())?;
    load.goes_on().await?;
    let begin = Instant::now();
    standby::kill(&replicas.primary())?;
    standby.promote()?;
    replicas.move_address(standby.folder())?;
    load.goes_on().await?;
    let table = vec![("PostgreSQL killed, its synchronous standby promoted".to_owned(), begin.elapsed())];
    load.goes_on().await?;
    let tasks = load.end().await?;
    tell(&table, tasks.len());
    scene::nothing_is_lost_or_doubled(&fleet, &agents, watch, &tasks).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_cut_off_from_bus_or_store_lets_its_hosts_go_to_others() -> Result<()> {
    let mut replicas = Replicas::start_with_cables().await?;
    let agents = replicas.agents().await?;
    let fleet = replicas.fleet()?;
    let watch = Watch::begin(fleet.clone());
    let load = Load::begin(fleet.clone(), &agents)?;
    let mut table = Vec::new();
    load.goes_on().await?;
    replicas.cables()?.1.cut();
    let begin = Instant::now();
    load.goes_on().await?;
    table.push(("replica 1 of 3 cut off from NATS".to_owned(), begin.elapsed()));
    replicas.cables()?.1.mend();
    load.goes_on().await?;
    replicas.cables()?.0.cut();
    let begin = Instant::now();
    load.goes_on().await?;
    table.push(("replica 1 of 3 cut off from PostgreSQL, without a sign".to_owned(), begin.elapsed()));
    // Its successor finds the way mended.
    replicas.cables()?.0.mend();
    replicas.all[0].take_program()?.ended().await?;
    replicas.restart(0).await?;
    load.goes_on().await?;
    let tasks = load.end().await?;
    tell(&table, tasks.len());
    scene::nothing_is_lost_or_doubled(&fleet, &agents, watch, &tasks).await
}

/// The rows of the results' table.
fn tell(table: &[(String, Duration)], tasks: usize) {
    println!("| until a new task has run on all {HOSTS} hosts, after | seconds |\n|---|---|");
    for (what, took) in table {
        println!("| {what} | {:.1} |", took.as_secs_f64());
    }
    println!("{tasks} tasks on {HOSTS} hosts");
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
        replicas.environment(1).into_iter().filter(|(name, _)| name != "MUSTER_NATS_URL").collect();
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
