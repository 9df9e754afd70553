//! The journal's promises: nothing is accepted twice, nothing acknowledged is lost, and a copy of yesterday is noticed.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use bytes::Bytes;
use futures::FutureExt;
use muster_agent::journal::{self, Admission, Journal, Offer, Report, Stage, TaskKey, Trust};
use muster_types::Timestamp;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

fn key(number: u8) -> TaskKey {
    TaskKey::new(&[number; 16], "").unwrap()
}

fn report(number: u8, sequence: u64, terminal: bool) -> Report {
    let envelope = Bytes::from(format!("report {sequence}"));
    Report { key: key(number), sequence, class: 3, envelope, terminal, traceparent: String::new() }
}

fn offer(number: u8) -> Offer {
    let bytes = Bytes::from_static(b"offer");
    Offer { key: key(number), bytes, reports: vec![report(number, 1, false)] }
}

async fn open(folder: &TempDir) -> (Journal, Trust) {
    Journal::open(folder.path()).await.unwrap()
}

#[tokio::test]
async fn an_order_is_accepted_once_whatever_happened_to_it_since() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, trust) = open(&folder).await;
    assert_eq!(trust, Trust::Complete);
    assert_eq!(journal.admit(offer(1), false, NOW).await.unwrap(), Admission::New);
    assert_eq!(journal.admit(offer(1), true, NOW).await.unwrap(), Admission::Known(Stage::Delivered));
    assert!(journal.start(report(1, 2, false)).await.unwrap());
    assert!(!journal.start(report(1, 3, false)).await.unwrap(), "it has started already");
    assert_eq!(journal.admit(offer(1), true, NOW).await.unwrap(), Admission::Known(Stage::Started));
    journal.append(report(1, 4, true)).await.unwrap();
    let forgotten = journal.acknowledge(key(1), 4);
    assert_eq!(journal.admit(offer(1), true, NOW).await.unwrap(), Admission::Known(Stage::Finished));
    forgotten.await.unwrap();
}

#[tokio::test]
async fn a_cancellation_that_comes_first_stands_in_the_orders_way() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(&folder).await;
    assert_eq!(journal.cancel(&key(1), NOW).await.unwrap(), None);
    assert_eq!(journal.admit(offer(1), true, NOW).await.unwrap(), Admission::Known(Stage::Cancelled));
}

#[tokio::test]
async fn a_new_life_finds_what_waited_what_was_interrupted_and_what_nobody_has_heard() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (journal, _) = open(&folder).await;
        journal.admit(offer(1), false, NOW).await.unwrap();
        journal.admit(offer(2), true, NOW).await.unwrap();
        journal.admit(offer(3), true, NOW).await.unwrap();
        journal.append(report(3, 2, true)).await.unwrap();
        // Committed when the journal closes.
        drop(journal.acknowledge(key(2), 1));
    }
    let (journal, trust) = open(&folder).await;
    assert_eq!(trust, Trust::Complete);
    let left = journal.recover().await.unwrap();
    assert_eq!(left.waiting, [(key(1), 2, Bytes::from_static(b"offer"))]);
    assert_eq!(left.interrupted, [(key(2), 2)]);
    let unheard: Vec<_> = journal.unacknowledged(None).await.unwrap();
    let names: Vec<_> = unheard.iter().map(|report| (report.key.clone(), report.sequence)).collect();
    assert_eq!(names, [(key(1), 1), (key(3), 1), (key(3), 2)]);
}

#[tokio::test]
async fn what_the_master_has_heard_is_forgotten_with_the_next_work_that_somebody_waits_for() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(&folder).await;
    journal.admit(offer(1), true, NOW).await.unwrap();
    let forgotten = journal.acknowledge(key(1), 1);
    journal.settle().await.unwrap();
    assert!(forgotten.now_or_never().is_some_and(|done| done.is_ok()));
    assert!(journal.unacknowledged(None).await.unwrap().is_empty());
}

#[tokio::test]
async fn unacknowledged_reports_come_page_by_page_and_each_once() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(&folder).await;
    journal.admit(offer(1), true, NOW).await.unwrap();
    let most = journal::REPORT_PAGE as u64 * 2 + 5;
    for sequence in 2..=most {
        journal.append(report(1, sequence, false)).await.unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = journal.unacknowledged(after.take()).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.key.clone(), last.sequence));
        seen.extend(page.into_iter().map(|report| report.sequence));
    }
    assert_eq!(seen, (1..=most).collect::<Vec<_>>());
}

#[tokio::test]
async fn ids_are_forgotten_only_when_old_finished_and_heard_of() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(&folder).await;
    for number in 1..=3 {
        journal.admit(offer(number), true, NOW).await.unwrap();
    }
    journal.append(report(1, 2, true)).await.unwrap();
    journal.append(report(2, 2, true)).await.unwrap();
    drop(journal.acknowledge(key(1), 2));
    let later = Timestamp::from_micros(NOW.as_micros() + 1);
    assert_eq!(journal.purge(NOW).await.unwrap(), 0);
    assert_eq!(journal.purge(later).await.unwrap(), 1, "only the first is old, finished and acknowledged");
}

#[tokio::test]
async fn a_lost_journal_and_an_older_copy_make_the_agent_ask_first() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(journal::FILE);
    let close = |journal: Journal| async move {
        // The writer closes its file when the last handle is gone.
        drop(journal);
    };
    let (first, _) = open(&folder).await;
    first.admit(offer(1), true, NOW).await.unwrap();
    close(first).await;
    let copy = folder.path().join("copy.sqlite");
    backup(&file, &copy).await;
    let (second, trust) = open(&folder).await;
    assert_eq!(trust, Trust::Complete);
    close(second).await;

    remove(&file);
    std::fs::copy(&copy, &file).unwrap();
    let (_third, trust) = open(&folder).await;
    assert_eq!(trust, Trust::AskMaster, "an older copy");

    remove(&file);
    let (_fourth, trust) = open(&folder).await;
    assert_eq!(trust, Trust::AskMaster, "no journal beside a marker");
    let (_fifth, trust) = open(&folder).await;
    assert_eq!(trust, Trust::AskMaster, "until the master has been asked");
    journal::Pairing::of(folder.path()).confirm().unwrap();
    let (_sixth, trust) = open(&folder).await;
    assert_eq!(trust, Trust::Complete);
}

#[tokio::test]
async fn every_commit_is_synced_before_it_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(&folder).await;
    let (mode, synchronous) = journal.durability().await.unwrap();
    assert_eq!((mode.as_str(), synchronous), ("wal", 2), "2 is FULL");
}

/// A whole copy, as a backup would make it.
async fn backup(file: &std::path::Path, copy: &std::path::Path) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).disable_statement_logging();
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("VACUUM INTO $1").bind(copy.to_str().unwrap()).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

fn remove(file: &std::path::Path) {
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
    }
}
