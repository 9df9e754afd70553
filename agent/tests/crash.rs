//! kill -9 at every step of a task's way: one terminal state in the end, and no effect twice.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod world;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use muster_proto::control::v1::TaskOffer;
use muster_proto::task::v1::TaskState;
use muster_proto::task::v1::task_report::Step;
use prost::Message;

use world::{Life, World};

/// Names the folder of a life; this executable is both the test and the agent that is killed.
const LIFE: &str = "MUSTER_AGENT_TEST_LIFE";

/// Kills at each step.
const KILLS: usize = 3;

const STEPS: [&str; 11] = [
    "order.received",
    "order.verified",
    "journal.delivered",
    "journal.started",
    "process.spawned",
    "output.sent",
    "process.ended",
    "report.sent",
    "journal.finished",
    "ack.received",
    "ack.recorded",
];

/// Not a test of its own: what the others start as another process.
#[test]
fn one_life() {
    let Some(folder) = std::env::var_os(LIFE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(live(Path::new(&folder)));
}

/// The master offers the task, hears it to its end, and writes down each terminal state that it hears.
async fn live(folder: &Path) {
    let offer = TaskOffer::decode(&std::fs::read(folder.join("offer")).unwrap()[..]).unwrap();
    let mut life = Life::begin(folder).await;
    life.tasks.offer(offer).await;
    let heard = folder.join("heard");
    while !heard.exists() {
        if let Some(Step::Finished(finished)) = life.report().await.step {
            // Whole or not at all: the kill may come from another thread.
            let beside = folder.join("heard.new");
            std::fs::write(&beside, finished.state().as_str_name()).unwrap();
            std::fs::rename(&beside, &heard).unwrap();
        }
    }
    let acknowledged = async {
        while !life.journal.unacknowledged(None).await.unwrap().is_empty() {
            // A report may come once more, or its acknowledgement may be on its way.
            let _ = tokio::time::timeout(Duration::from_millis(10), life.report()).await;
        }
    };
    tokio::time::timeout(world::SOON, acknowledged).await.expect("everything is acknowledged in the end");
    life.end().await;
}

fn start(folder: &Path, step: Option<&str>) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["one_life", "--exact", "--nocapture"]).env(LIFE, folder);
    if let Some(step) = step {
        command.env(muster_kit::crash::VARIABLE, step);
    }
    command.output().unwrap()
}

fn killed(folder: &Path, step: &str) {
    let output = start(folder, Some(step));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("crash point {step} hit")), "{step} was not hit:\n{said}");
    assert_eq!(output.status.signal(), Some(9), "{step}");
}

fn prepared() -> tempfile::TempDir {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    world.keep(folder.path());
    let script = format!("echo x >> {}; echo said", folder.path().join("effects").display());
    std::fs::write(folder.path().join("offer"), world.script(1, &script).encode_to_vec()).unwrap();
    folder
}

/// Lives once more without a kill and checks what came of the task.
fn settled(folder: &Path, step: &str) -> TaskState {
    let output = start(folder, None);
    assert!(output.status.success(), "{step}:\n{}", String::from_utf8_lossy(&output.stderr));
    let effects = std::fs::read_to_string(folder.join("effects")).unwrap_or_default();
    assert!(effects.lines().count() <= 1, "{step}: the effect happened {} times", effects.lines().count());
    let state = std::fs::read_to_string(folder.join("heard")).unwrap();
    let state = TaskState::from_str_name(&state).unwrap();
    match state {
        TaskState::Succeeded => assert_eq!(effects, "x\n", "{step}"),
        TaskState::Lost => {}
        other => panic!("{step}: the task ended as {other:?}"),
    }
    state
}

#[test]
fn killed_at_any_step_a_task_ends_in_one_state_and_its_effect_happens_at_most_once() {
    for step in STEPS {
        for _ in 0..KILLS {
            let folder = prepared();
            killed(folder.path(), step);
            let state = settled(folder.path(), step);
            // Before STARTED is durable there is no effect, and the task runs as if nothing had been.
            let early = ["order.received", "order.verified", "journal.delivered"].contains(&step);
            assert!(!early || step == "journal.delivered" || state == TaskState::Succeeded, "{step}");
        }
    }
}

#[test]
fn killed_while_it_reports_a_lost_task_the_agent_reports_it_again() {
    let folder = prepared();
    killed(folder.path(), "process.spawned");
    killed(folder.path(), "journal.lost");
    assert_eq!(settled(folder.path(), "journal.lost"), TaskState::Lost);
}
