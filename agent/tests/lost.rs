//! What a lost device does when it is told: lock, and erase after the master knows.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod world;

use muster_agent::journal::Journal;
use muster_proto::task::v1::task_report::Step;
use muster_proto::task::v1::{
    Content, EraseArguments, LockArguments, TaskClass, TaskSpec, TaskState, content::Source,
};
use prost::Message;

use world::{Life, World};

fn spec(kind: &str, arguments: &impl Message) -> TaskSpec {
    TaskSpec {
        r#type: kind.to_owned(),
        arguments: Some(Content { source: Some(Source::Inline(arguments.encode_to_vec().into())) }),
        class: TaskClass::Open.into(),
        ..TaskSpec::default()
    }
}

#[tokio::test]
async fn a_locked_device_blocks_logins_until_it_is_released() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    world.keep(folder.path());
    let mut life = Life::begin(folder.path()).await;
    let arguments = LockArguments { message: "call 555".to_owned(), release: false };
    life.tasks.offer(world.sign(&world.order(1, spec("lock", &arguments)))).await;
    assert_eq!(life.until_finished(1).await.finished.state(), TaskState::Succeeded);
    assert_eq!(std::fs::read_to_string(folder.path().join("nologin")).unwrap(), "call 555\n");
    assert!(folder.path().join("sessions-ended").exists());
    let release = LockArguments { release: true, ..LockArguments::default() };
    life.tasks.offer(world.sign(&world.order(2, spec("lock", &release)))).await;
    assert_eq!(life.until_finished(2).await.finished.state(), TaskState::Succeeded);
    assert!(!folder.path().join("nologin").exists());
    life.end().await;
}

#[tokio::test]
async fn a_device_erases_itself_only_after_the_master_acknowledged_that_it_will() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    world.keep(folder.path());
    let home = folder.path().join("home");
    std::fs::create_dir_all(home.join("ada")).unwrap();
    let (journal, trusted) = Journal::open(folder.path()).await.unwrap();
    let mut life = Life::with(folder.path(), journal, trusted).await.unacknowledged();
    life.tasks.offer(world.sign(&world.order(1, spec("erase", &EraseArguments {})))).await;
    let word = loop {
        let report = life.report().await;
        if matches!(report.step, Some(Step::Progress(_))) {
            break report;
        }
    };
    assert!(home.join("ada").exists(), "it does not wait for the master");
    let kept = life.journal.unacknowledged(None).await.unwrap();
    assert!(kept.iter().any(|report| report.sequence == word.sequence), "its word is not durable");
    let (task_id, occurrence, sequence) = (word.task_id, word.occurrence, word.sequence);
    let ack = muster_proto::control::v1::TaskReportAck { task_id, occurrence, sequence };
    life.tasks.acknowledged(ack).await;
    assert_eq!(life.until_finished(1).await.finished.state(), TaskState::Succeeded);
    assert!(!home.exists());
    life.end().await;
}
