//! Device or auth die during an enrollment: the same link finishes it, and there is one node in the end.

use anyhow::{Context, Result, ensure};
use muster_e2e::{Agent, Master, Program};

use super::scene::repeat;

/// Steps on the device.
pub(crate) const ON_THE_DEVICE: [&str; 3] = ["enroll.keys", "enroll.answered", "enroll.kept"];
/// Steps at auth.
pub(crate) const AT_AUTH: [&str; 2] = ["auth.enroll.before-commit", "auth.enroll.after-commit"];
/// Steps of every durable change of auth: hit while it founds a network, by `services/auth/tests/founding.rs`.
pub(crate) const AT_FOUNDING: [&str; 2] = ["auth.store.before-commit", "auth.store.after-commit"];

/// Steps at an operator's own host.
pub(crate) const AT_THE_OPERATOR: [&str; 1] = ["login.answered"];

#[tokio::test]
async fn a_device_killed_at_any_step_of_its_enrollment_finishes_it_by_the_same_link() -> Result<()> {
    let master = Master::up().await?;
    for _ in 0..repeat() {
        for point in ON_THE_DEVICE {
            interrupted(&master, point).await.context(point)?;
        }
    }
    Ok(())
}

async fn interrupted(master: &Master, point: &str) -> Result<()> {
    let before = master.nodes().await?.len();
    let (mut agent, link) = (Agent::new()?, master.link(&[]).await?);
    let enroll = ["enroll", "--no-service", &link];
    let mut killed: Program = agent.says_on(&enroll, &[("MUSTER_CRASH", point)])?;
    killed.says(&format!("crash point {point} hit")).await?;
    killed.killed().await?;
    if point == "enroll.kept" {
        // The identity is durable: the device is enrolled, and says so.
        ensure!(agent.enroll(&link).await?.stderr.contains("is enrolled already"));
    } else {
        agent.enroll(&link).await?.expect(0)?;
    }
    agent.start(&[])?;
    agent.until_online(master).await?;
    ensure!(master.nodes().await?.len() == before + 1, "the device is there twice");
    Ok(())
}

#[tokio::test]
async fn auth_killed_before_or_after_the_commit_of_an_enrollment_admits_the_device_once() -> Result<()> {
    for _ in 0..repeat() {
        for point in AT_AUTH {
            unanswered(point).await.context(point)?;
        }
    }
    Ok(())
}

async fn unanswered(point: &str) -> Result<()> {
    let mut master = Master::up().await?;
    let (mut agent, link) = (Agent::new()?, master.link(&[]).await?);
    master.kill().await?;
    master.start(&[("MUSTER_CRASH", point)]).await?;
    let unanswered = agent.enroll(&link).await?;
    ensure!(unanswered.code != 0, "it was answered by a dead master\n{unanswered}");
    master.dies_at(point).await?;
    master.start(&[]).await?;
    agent.enroll(&link).await?.expect(0)?;
    agent.start(&[])?;
    agent.until_online(&master).await?;
    ensure!(master.nodes().await?.len() == 1, "the device is there twice");
    Ok(())
}

#[tokio::test]
async fn an_operator_killed_with_the_answer_in_hand_logs_in_by_the_same_link() -> Result<()> {
    let (master, elsewhere) = (Master::up().await?, Master::nowhere()?);
    for round in 0..repeat() {
        for point in AT_THE_OPERATOR {
            let (link, name) = (master.link(&["--role", "operator"]).await?, format!("home-{round}"));
            let login = ["login", &link, "--name", &name];
            let mut killed = elsewhere.muster_elsewhere_on(&[("MUSTER_CRASH", point)], &login)?;
            killed.says(&format!("crash point {point} hit")).await?;
            killed.killed().await?;
            elsewhere.muster_elsewhere(&login, "").await?.expect(0)?;
            elsewhere.muster_elsewhere(&["nodes", "--context", &name], "").await?.expect(0)?;
        }
    }
    Ok(())
}
