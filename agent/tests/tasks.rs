//! Tasks from order to report, with real programs.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod world;

use std::time::Duration;

use bytes::Bytes;
use muster_proto::task::v1::{
    Content, Inventory, InventoryArguments, Lane, RunArguments, TaskSpec, TaskState, content::Source,
};
use muster_types::limits::{OUTPUT_CHUNK_BYTES, OUTPUT_KEPT_BYTES};
use muster_wire::testing::NOW;
use muster_wire::time::{span_to_wire, to_wire};
use prost::Message;
use tempfile::TempDir;

use world::{DAY, Life, World, run, spec, temporary};

async fn begin() -> (World, TempDir, Life) {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    world.keep(folder.path());
    let life = Life::begin(folder.path()).await;
    (world, folder, life)
}

#[tokio::test]
async fn a_script_runs_and_each_stream_comes_back_with_the_exit_code() {
    let (world, folder, mut life) = begin().await;
    life.tasks.offer(world.script(1, "echo out; echo err >&2; echo $TMPDIR; exit 3")).await;
    let heard = life.until_finished(1).await;
    assert_eq!(heard.steps, ["delivered", "started"]);
    assert_eq!(heard.sequences, (1..=heard.sequences.len() as u64).collect::<Vec<_>>());
    let lines: Vec<_> = heard.stdout().lines().collect();
    assert_eq!((lines[0], &heard.stderr[..]), ("out", &b"err\n"[..]));
    assert!(lines[1].starts_with(temporary(folder.path()).to_str().unwrap()));
    let finished = &heard.finished;
    assert_eq!((finished.state(), finished.exit_code), (TaskState::Failed, Some(3)));
    assert_eq!((finished.reason_code.as_str(), finished.stdout_truncated), ("EXIT_CODE", false));
    assert_eq!(std::fs::read_dir(temporary(folder.path())).unwrap().count(), 0, "its directory is gone");
    life.end().await;
}

#[tokio::test]
async fn of_a_long_output_head_and_tail_are_kept_and_that_is_said() {
    let (world, _folder, mut life) = begin().await;
    let total = 3_000_000;
    life.tasks.offer(world.script(1, &format!("yes 0123456 | head -c {total}"))).await;
    let heard = life.until_finished(1).await;
    assert_eq!(heard.finished.state(), TaskState::Succeeded, "{:?}", heard.finished);
    assert_eq!((heard.finished.stdout_bytes, heard.finished.stdout_truncated), (total, true));
    assert_eq!(heard.stdout.len(), OUTPUT_KEPT_BYTES);
    assert!(heard.stdout_chunks.iter().all(|(_, bytes)| *bytes <= OUTPUT_CHUNK_BYTES));
    let (last_offset, last_bytes) = *heard.stdout_chunks.last().unwrap();
    assert_eq!(last_offset + last_bytes as u64, total);
    let tail = total - OUTPUT_KEPT_BYTES as u64 / 2;
    assert!(heard.stdout_chunks.iter().any(|(offset, _)| *offset == tail));
    life.end().await;
}

#[tokio::test]
async fn output_is_heard_while_the_program_runs() {
    let (world, folder, mut life) = begin().await;
    let gate = folder.path().join("gate");
    life.tasks.offer(world.script(1, &format!("mkfifo {0}; echo waiting; cat {0}", gate.display()))).await;
    let mut seen = String::new();
    while seen != "waiting\n" {
        let report = life.report().await;
        if let Some(muster_proto::task::v1::task_report::Step::Output(output)) = report.step {
            seen.push_str(std::str::from_utf8(&output.data).unwrap());
        }
    }
    std::fs::write(&gate, "open\n").unwrap();
    let heard = life.until_finished(1).await;
    assert_eq!((heard.stdout(), heard.finished.state()), ("open\n", TaskState::Succeeded));
    life.end().await;
}

#[tokio::test]
async fn progress_that_a_program_tells_is_reported() {
    let (world, _folder, mut life) = begin().await;
    life.tasks.offer(world.script(1, "echo '40 unpack 12 of 30' > $MUSTER_PROGRESS")).await;
    let heard = life.until_finished(1).await;
    assert_eq!(heard.progress, [(40, "12 of 30".to_owned())]);
    life.end().await;
}

#[tokio::test]
async fn time_out_and_cancellation_end_a_program_and_say_which() {
    let (world, _folder, mut life) = begin().await;
    let slow =
        TaskSpec { timeout: Some(span_to_wire(Duration::from_millis(300))), ..run("echo here; sleep 600") };
    life.tasks.offer(world.sign(&world.order(1, slow))).await;
    let heard = life.until_finished(1).await;
    assert_eq!((heard.finished.state(), heard.stdout()), (TaskState::TimedOut, "here\n"));

    life.tasks.offer(world.script(2, "sleep 600")).await;
    life.until_started(2).await;
    life.tasks.cancel(world.cancellation(2)).await;
    assert_eq!(life.until_finished(2).await.finished.state(), TaskState::Cancelled);
    life.end().await;
}

#[tokio::test]
async fn a_task_cancelled_before_it_came_is_never_started() {
    let (world, folder, mut life) = begin().await;
    let effects = folder.path().join("effects");
    life.tasks.cancel(world.cancellation(1)).await;
    life.tasks.offer(world.script(1, &format!("echo x >> {}", effects.display()))).await;
    let heard = life.until_finished(1).await;
    assert_eq!(heard.finished.state(), TaskState::Cancelled);
    assert!(!effects.exists());
    life.end().await;
}

#[tokio::test]
async fn four_run_side_by_side_the_fifth_waits_and_an_exclusive_one_does_not() {
    let (world, folder, mut life) = begin().await;
    let gate = folder.path().join("gate");
    assert!(std::process::Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let blocked = format!("read line < {}", gate.display());
    for task in 1..=4 {
        life.tasks.offer(world.script(task, &blocked)).await;
        life.until_started(task).await;
    }
    life.tasks.offer(world.script(5, "true")).await;
    let exclusive = TaskSpec { lane: Lane::Exclusive.into(), ..run("true") };
    life.tasks.offer(world.sign(&world.order(6, exclusive))).await;
    let heard = life.until_finished(6).await;
    assert_eq!(heard.finished.state(), TaskState::Succeeded);
    life.tasks.cancel(world.cancellation(1)).await;
    life.until_finished(1).await;
    let heard = life.until_finished(5).await;
    assert_eq!((&heard.steps[..], heard.finished.state()), (&["started"][..], TaskState::Succeeded));
    life.end().await;
}

#[tokio::test]
async fn an_order_that_is_not_for_us_or_not_understood_is_refused_with_its_reason() {
    let (world, _folder, mut life) = begin().await;
    let good = world.order(1, run("true"));
    let with = |change: &dyn Fn(&mut muster_proto::task::v1::TaskOrder), task: u8| {
        let mut order = world.order(task, run("true"));
        change(&mut order);
        world.sign(&order)
    };
    let mut forged = world.sign(&good);
    let mut other = good.clone();
    other.lifetime = Some(span_to_wire(DAY * 2));
    forged.order.as_mut().unwrap().payload = other.encode_to_vec().into();
    let cases = [
        (forged, 1, "BAD_SIGNATURE"),
        (with(&|order| order.targets = vec![Bytes::from_static(&[9; 20])], 2), 2, "NOT_A_TARGET"),
        (with(&|order| order.network_id = Bytes::from_static(&[9; 16]), 3), 3, "WRONG_NETWORK"),
        (with(&|order| order.lifetime = Some(span_to_wire(DAY * 31)), 4), 4, "BAD_LIFETIME"),
        (with(&|order| order.issue_time = Some(to_wire(NOW + DAY)), 5), 5, "BAD_LIFETIME"),
        (with(&|order| order.issue_time = Some(to_wire(NOW - DAY * 2)), 6), 6, "EXPIRED"),
        (with(&|order| order.spec.as_mut().unwrap().r#type = "sing".to_owned(), 7), 7, "UNKNOWN_TYPE"),
        (with(&|order| order.spec.as_mut().unwrap().class = 2, 8), 8, "BAD_ARGUMENTS"),
        (with(&|order| order.spec = Some(spec(RunArguments::default())), 9), 9, "BAD_ARGUMENTS"),
    ];
    for (offer, task, code) in cases {
        life.tasks.offer(offer).await;
        let heard = life.until_finished(task).await;
        assert_eq!(heard.finished.reason_code, code);
        assert!(heard.steps.is_empty() && !heard.finished.reason.is_empty());
    }
    life.end().await;
}

#[tokio::test]
async fn an_order_offered_again_is_reported_again_and_not_run_again() {
    let (world, folder, life) = begin().await;
    let mut life = life.unacknowledged();
    let effects = folder.path().join("effects");
    let offer = world.script(1, &format!("echo x >> {}", effects.display()));
    life.tasks.offer(offer.clone()).await;
    let first = life.until_finished(1).await;
    life.tasks.offer(offer).await;
    let second = life.until_finished(1).await;
    assert_eq!((first.sequences, first.finished), (second.sequences, second.finished));
    assert_eq!(std::fs::read_to_string(&effects).unwrap(), "x\n");
    life.end().await;
}

#[tokio::test]
async fn an_inventory_comes_back_as_a_document() {
    let (world, _folder, mut life) = begin().await;
    let arguments = InventoryArguments { sections: vec!["host".to_owned(), "hardware".to_owned()] };
    let spec = TaskSpec {
        r#type: "inventory".to_owned(),
        arguments: Some(Content { source: Some(Source::Inline(arguments.encode_to_vec().into())) }),
        ..TaskSpec::default()
    };
    life.tasks.offer(world.sign(&world.order(1, spec))).await;
    let heard = life.until_finished(1).await;
    let Some(Source::Inline(document)) = heard.finished.result.unwrap().source else { panic!("not inline") };
    assert!(!Inventory::decode(document).unwrap().host.unwrap().host_name.is_empty());
    life.end().await;
}

#[tokio::test]
async fn after_the_loss_of_its_journal_a_node_starts_nothing_that_the_master_knows_as_begun() {
    let (world, folder, life) = begin().await;
    life.end().await;
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(folder.path().join(format!("{}{suffix}", muster_agent::journal::FILE)));
    }
    let mut life = Life::begin(folder.path()).await;
    let effects = folder.path().join("effects");
    let offer = world.script(1, &format!("echo x >> {}", effects.display()));
    life.tasks.offer(offer.clone()).await;
    life.tasks.adopt(vec![(world::key(1), "STARTED".to_owned())]).await;
    let heard = life.until_finished(1).await;
    assert_eq!(
        (heard.finished.state(), heard.finished.reason_code.as_str()),
        (TaskState::Lost, "JOURNAL_LOST")
    );
    life.tasks.offer(offer).await;
    life.tasks.offer(world.script(2, "true")).await;
    assert_eq!(life.until_finished(2).await.finished.state(), TaskState::Succeeded, "new tasks run");
    assert!(!effects.exists());
    life.end().await;
}
