//! A cell of two on this host: the LSN dies at each step of a task's way through it, or the master does with the LSN's
//! word; the target is the LSN's child.

use anyhow::{Context, Result, ensure};
use muster_e2e::fleet::{command, is_online};
use muster_e2e::{Agent, Master};
use muster_proto::fleet::v1::NodeRole;
use muster_proto::task::v1::TaskState::{Started, Succeeded};

use super::scene::{Scene, Step, repeat};

/// What a node says goes on to the master by another way, so that every task is done in the end.
pub(crate) const STEPS: &[Step] = &[
    Step { point: "lsn.order.received", may_end: &[Succeeded], least_lines: 1 },
    Step { point: "lsn.order.forwarded", may_end: &[Succeeded], least_lines: 1 },
    Step { point: "lsn.report.received", may_end: &[Succeeded], least_lines: 1 },
    Step { point: "lsn.report.forwarded", may_end: &[Succeeded], least_lines: 1 },
    Step { point: "lsn.ack.received", may_end: &[Succeeded], least_lines: 1 },
];

/// Hit by tests of their own.
pub(crate) const APART: [&str; 1] = ["presence.committed"];

/// An LSN, and a scene whose node is its child.
async fn cell() -> Result<(Agent, Scene)> {
    let master = Master::up().await?;
    let mut lsn = Agent::enrolled(&master, &[]).await?;
    let agent = Agent::enrolled(&master, &[]).await?;
    let node = agent.name()?;
    let mut scene = Scene { master, agent, node };
    gather(&mut lsn, &mut scene, &[]).await?;
    Ok((lsn, scene))
}

/// Brings up the LSN, with these variables in its environment, and then the scene's agent below it.
async fn gather(lsn: &mut Agent, scene: &mut Scene, environment: &[(&str, &str)]) -> Result<()> {
    let (fleet, lead) = (scene.master.fleet()?, lsn.name()?);
    lsn.start(environment)?;
    // The master may still show what it was before it was killed.
    lsn.program()?.says("attached to the master").await?;
    fleet.until_node(&lead, |node| is_online(node) && node.role() == NodeRole::Lsn).await?;
    scene.agent.start(&[])?;
    fleet.until_node(&scene.node, |node| is_online(node) && node.lsn == lead).await?;
    Ok(())
}

#[tokio::test]
async fn an_lsn_killed_at_any_step_of_a_childs_task_neither_loses_nor_repeats_it() -> Result<()> {
    let (mut lsn, mut scene) = cell().await?;
    lsn.stop().await?;
    for round in 0..repeat() {
        for step in STEPS {
            strike(&mut lsn, &mut scene, step)
                .await
                .with_context(|| format!("{}, round {round}", step.point))?;
        }
    }
    Ok(())
}

/// The child has become the LSN when the last one was gone: it goes, so that the armed one is LSN again.
async fn strike(lsn: &mut Agent, scene: &mut Scene, step: &Step) -> Result<()> {
    scene.agent.stop().await?;
    gather(lsn, scene, &[("MUSTER_CRASH", step.point)]).await?;
    let deed = scene.deed();
    let task = scene.master.fleet()?.create(&deed.request).await?;
    lsn.dies_at(step.point).await?;
    scene.judge(&task, &deed, step).await
}

#[tokio::test]
async fn a_master_killed_with_an_lsns_word_just_committed_sees_the_cell_again() -> Result<()> {
    let (_lsn, mut scene) = cell().await?;
    for _ in 0..repeat() {
        scene.master.kill().await?;
        scene.master.spawn(&[("MUSTER_CRASH", "presence.committed")])?;
        // The LSN attaches, and its table is asked for with the next change of it.
        scene.agent.kill().await?;
        scene.agent.start(&[])?;
        scene.master.dies_at("presence.committed").await?;
        scene.master.start(&[]).await?;
        let deed = scene.deed();
        scene.agent.until_online(&scene.master).await?;
        let task = scene.master.fleet()?.create(&deed.request).await?;
        let step = Step { point: "presence.committed", may_end: &[Succeeded], least_lines: 1 };
        scene.judge(&task, &deed, &step).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_task_of_a_child_is_done_once_and_reported_though_its_lsn_is_killed_meanwhile() -> Result<()> {
    let (mut lsn, scene) = cell().await?;
    for round in 0..repeat() {
        let fleet = scene.master.fleet()?;
        let effects = scene.agent.folder().join(format!("effects-{round}"));
        let gate = scene.agent.folder().join(format!("gate-{round}"));
        let (written, open) = (effects.display(), gate.display());
        let script = format!("echo done >> {written}; until [ -e {open} ]; do sleep 0.02; done; echo said");
        let task = fleet.create(&command(&[&scene.node], &["sh", "-c", &script], "")).await?;
        fleet.until_target(&task, &scene.node, |state| state == Started).await?;
        lsn.kill().await?;
        std::fs::write(&gate, "")?;
        let ended = fleet.until_ended(&task, &scene.node).await?;
        ensure!(ended.state() == Succeeded, "it ended as {:?}", ended.state());
        ensure!(std::fs::read_to_string(&effects)? == "done\n", "its effect happened twice");
        ensure!(fleet.stdout(&task, &scene.node).await? == "said\n");
        lsn.start(&[])?;
        lsn.until_online(&scene.master).await?;
    }
    Ok(())
}
