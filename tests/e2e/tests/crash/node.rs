//! The node dies at each step.

use anyhow::{Context, Result, ensure};
use muster_e2e::fleet::command;
use muster_proto::task::v1::TaskState::{self, Lost, Succeeded};

use super::scene::{Scene, Step, repeat};

pub(crate) const STEPS: &[Step] = &[
    // Nothing is durable: the order comes again.
    Step { point: "order.received", may_end: &[Succeeded], least_lines: 1 },
    Step { point: "order.verified", may_end: &[Succeeded], least_lines: 1 },
    // STARTED is durable: whether it took effect is unknown to the next life, which never starts it again.
    Step { point: "journal.delivered", may_end: &[Lost], least_lines: 0 },
    Step { point: "journal.started", may_end: &[Lost], least_lines: 0 },
    Step { point: "process.spawned", may_end: &[Lost], least_lines: 0 },
    Step { point: "output.sent", may_end: &[Lost], least_lines: 1 },
    Step { point: "process.ended", may_end: &[Lost], least_lines: 1 },
    // The result is on its way to network and disk at once: one of them, both or none may have it.
    Step { point: "report.sent", may_end: &[Lost, Succeeded], least_lines: 1 },
    Step { point: "journal.finished", may_end: &[Succeeded], least_lines: 1 },
    // The first acknowledgement is of an early report: the program may still run.
    Step { point: "ack.received", may_end: &[Lost, Succeeded], least_lines: 0 },
    Step { point: "ack.recorded", may_end: &[Lost, Succeeded], least_lines: 0 },
];

/// Hit by tests of their own.
pub(crate) const APART: [&str; 1] = ["journal.lost"];

async fn strike(scene: &mut Scene, step: &Step) -> Result<()> {
    let deed = scene.deed();
    scene.agent.kill().await?;
    scene.agent.start(&[("MUSTER_CRASH", step.point)])?;
    let task = scene.master.fleet()?.create(&deed.request).await?;
    scene.agent.dies_at(step.point).await?;
    scene.agent.start(&[])?;
    scene.judge(&task, &deed, step).await
}

#[tokio::test]
async fn a_node_killed_at_any_step_starts_nothing_twice_and_loses_nothing() -> Result<()> {
    let mut scene = Scene::set().await?;
    for round in 0..repeat() {
        for step in STEPS {
            strike(&mut scene, step).await.with_context(|| format!("{}, round {round}", step.point))?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_node_killed_again_while_it_reports_what_was_lost_reports_it_once() -> Result<()> {
    let mut scene = Scene::set().await?;
    for _ in 0..repeat() {
        let fleet = scene.master.fleet()?;
        let request = command(&[&scene.node], &["sleep", "300"], "");
        let task = fleet.create(&request).await?;
        fleet.until_target(&task, &scene.node, |state| state == TaskState::Started).await?;
        scene.agent.kill().await?;
        scene.agent.start(&[("MUSTER_CRASH", "journal.lost")])?;
        scene.agent.dies_at("journal.lost").await?;
        scene.agent.start(&[])?;
        let ended = fleet.until_ended(&task, &scene.node).await?;
        ensure!(ended.state() == Lost, "it ended as {:?}", ended.state());
        ensure!(ended.finished.is_some_and(|finished| finished.reason_code == "AGENT_ENDED"));
    }
    Ok(())
}
