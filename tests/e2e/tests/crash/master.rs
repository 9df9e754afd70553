//! The master dies at each step. Its node does not, so that every task is done in the end.

use anyhow::{Context, Result, ensure};
use muster_e2e::fleet::command;
use muster_proto::fleet::v1::CancelTaskRequest;
use muster_proto::task::v1::TaskState::{self, Succeeded};

use super::scene::{Scene, Step, repeat};

pub(crate) const STEPS: &[Step] = &[
    Step { point: "task.created", may_end: &[Succeeded], least_lines: 1 },
    Step { point: "task.offered", may_end: &[Succeeded], least_lines: 1 },
    Step { point: "report.received", may_end: &[Succeeded], least_lines: 1 },
    Step { point: "report.committed", may_end: &[Succeeded], least_lines: 1 },
];

/// Hit by tests of their own.
pub(crate) const APART: [&str; 2] = ["presence.attached", "task.cancelled"];

async fn strike(scene: &mut Scene, step: &Step) -> Result<()> {
    let deed = scene.deed();
    scene.master.kill().await?;
    scene.master.start(&[("MUSTER_CRASH", step.point)]).await?;
    // The caller does not give up: it asks under its request id until somebody answers.
    let (fleet, request) = (scene.master.fleet()?, deed.request.clone());
    let created = tokio::spawn(async move { fleet.create(&request).await });
    scene.master.dies_at(step.point).await?;
    scene.master.start(&[]).await?;
    let task = created.await??;
    scene.judge(&task, &deed, step).await
}

#[tokio::test]
async fn a_master_killed_at_any_step_makes_each_task_once_and_loses_nothing() -> Result<()> {
    let mut scene = Scene::set().await?;
    for round in 0..repeat() {
        for step in STEPS {
            strike(&mut scene, step).await.with_context(|| format!("{}, round {round}", step.point))?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_master_killed_when_a_node_has_just_attached_sees_it_again() -> Result<()> {
    let mut scene = Scene::set().await?;
    for _ in 0..repeat() {
        scene.master.kill().await?;
        scene.master.spawn(&[("MUSTER_CRASH", "presence.attached")])?;
        scene.master.dies_at("presence.attached").await?;
        scene.master.start(&[]).await?;
        let deed = scene.deed();
        let task = scene.master.fleet()?.create(&deed.request).await?;
        let step = Step { point: "presence.attached", may_end: &[Succeeded], least_lines: 1 };
        scene.judge(&task, &deed, &step).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_cancellation_that_was_committed_outlives_the_master() -> Result<()> {
    let mut scene = Scene::set().await?;
    for _ in 0..repeat() {
        scene.master.kill().await?;
        scene.master.start(&[("MUSTER_CRASH", "task.cancelled")]).await?;
        let fleet = scene.master.fleet()?;
        let task = fleet.create(&command(&[&scene.node], &["sleep", "300"], "")).await?;
        fleet.until_target(&task, &scene.node, |state| state == TaskState::Started).await?;
        let request = CancelTaskRequest { name: task.clone(), request_id: String::new() };
        let unanswered = fleet.client().cancel_task(request).await;
        ensure!(unanswered.is_err(), "it was answered by a dead master");
        scene.master.dies_at("task.cancelled").await?;
        scene.master.start(&[]).await?;
        let ended = scene.master.fleet()?.until_ended(&task, &scene.node).await?;
        ensure!(ended.state() == TaskState::Cancelled, "it ended as {:?}", ended.state());
    }
    Ok(())
}
