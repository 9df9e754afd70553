//! One suite for both stores: what is committed is there, what lost a race is not, feeds come in commit order.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use muster_kit::testing::postgres::Postgres;
use muster_topology::domain::attach::Attach;
use muster_topology::domain::clone::{Hold, Resolve};
use muster_topology::domain::deed::{Action, Deed};
use muster_topology::domain::departure::Detach;
use muster_topology::domain::filter::NodeFilter;
use muster_topology::domain::labels::NodeRefusal;
use muster_topology::domain::ledger::{Changes, Ledger, Request};
use muster_topology::domain::node::{Attested, Node, Presence, Profile};
use muster_topology::domain::opaque::Opaque;
use muster_topology::domain::reports::{Report, Reports};
use muster_topology::domain::target::{Ending, Step, TargetState};
use muster_topology::domain::task::{Approval, MasterEnding, OfflinePolicy, Task, TaskId};
use muster_topology::domain::tasks::{CancelTask, CreateTask, EndTargets};
use muster_topology::store::postgres::PostgresStore;
use muster_topology::store::sqlite::SqliteStore;
use muster_topology::store::{DEEDS, Position, Retention, Store, StoreError};
use muster_topology::wake::LocalBus;
use muster_topology::writer::Writer;
use muster_types::{NodeId, Timestamp};
use uuid::Uuid;

fn now() -> Timestamp {
    muster_kit::clock::wall()
}

fn id(name: u8) -> NodeId {
    NodeId([name; 20])
}

fn attach(node: NodeId) -> Attach {
    Attach {
        node,
        attested: Attested::default(),
        profile: Profile { host_name: format!("host-{}", node.short()), ..Profile::default() },
        observed: None,
        claim: None,
        keys: BTreeSet::new(),
        resume_token: Opaque::default(),
        fresh_token: Opaque(vec![1]),
        replica: "r".to_owned(),
        session: 1,
    }
}

fn create(nodes: &[NodeId], offline: OfflinePolicy, lifetime: Duration) -> CreateTask {
    let created = now();
    CreateTask {
        task: Task {
            id: TaskId(Uuid::now_v7()),
            spec: Opaque(vec![1]),
            kind: "run".to_owned(),
            offline,
            created,
            expires: created + lifetime,
            creator: "operators/a".to_owned(),
            display_name: String::new(),
            target_count: u32::try_from(nodes.len()).unwrap(),
            traceparent: String::new(),
            approval: Approval::NotWanted,
        },
        orders: vec![Opaque(vec![2])],
        targets: nodes.iter().map(|node| (*node, 0)).collect(),
        request: None,
    }
}

fn finished(task: TaskId, sequence: u64) -> Report {
    let ending = Ending { reason_code: String::new(), reason: String::new(), word: Opaque::default() };
    Report { task, occurrence: String::new(), sequence, step: Step::Finished(TargetState::Succeeded, ending) }
}

fn said(task: TaskId, sequence: u64, step: Step) -> Report {
    Report { task, occurrence: String::new(), sequence, step }
}

/// Each test of the suite gets a store of its own, and a writer.
struct Bench {
    store: Arc<dyn Store>,
    writer: Writer,
}

impl Bench {
    fn new(store: Arc<dyn Store>) -> Self {
        let (writer, writing) = Writer::new(store.clone(), Arc::new(LocalBus::default()));
        tokio::spawn(writing);
        Self { store, writer }
    }
}

async fn a_write_that_read_an_older_revision_loses(bench: &Bench) {
    let node = Node::new(id(1), Attested::default(), now());
    let changed = |revision: i64| {
        let mut ledger = Ledger::at(now());
        if revision > 0 {
            let row = node.clone();
            ledger.nodes.load(node.id, muster_topology::domain::table::Stored { row, revision });
        }
        let mut after = node.clone();
        after.profile.host_name = format!("written-over-{revision}");
        ledger.nodes.put(node.id, after);
        ledger.close().0
    };
    bench.store.commit(&changed(0), now()).await.unwrap();
    bench.store.commit(&changed(1), now()).await.unwrap();
    assert!(matches!(bench.store.commit(&changed(1), now()).await, Err(StoreError::Conflict)));
    assert!(matches!(bench.store.commit(&changed(0), now()).await, Err(StoreError::Conflict)));
    let stored = bench.store.nodes_by_id(&[node.id]).await.unwrap().pop().unwrap();
    assert_eq!((stored.revision, stored.row.profile.host_name.as_str()), (2, "written-over-1"));
}

async fn a_task_goes_from_creation_to_done_with_all_its_traces(bench: &Bench) {
    let Bench { store, writer } = bench;
    for node in [id(1), id(2)] {
        writer.submit(attach(node)).await.unwrap();
    }
    let start = store.events_end().await.unwrap();
    let mut command = create(&[id(1), id(2)], OfflinePolicy::Queue, Duration::from_secs(60));
    let request = Request { caller: "operators/a".to_owned(), id: "1".to_owned() };
    command.request = Some(request.clone());
    let task = writer.submit(command.clone()).await.unwrap();
    command.task.id = TaskId(Uuid::now_v7());
    assert_eq!(writer.submit(command).await.unwrap(), task, "the same request, the same task");
    assert_eq!(store.request(&request).await.unwrap(), Some(task));
    assert_eq!(store.due(id(1), now()).await.unwrap().offers.len(), 1);
    assert_eq!(store.order(task, 0).await.unwrap(), Some(Opaque(vec![2])));

    let output = Step::Output(Opaque(b"x".to_vec()));
    let progress = |text: &[u8]| Step::Progress(Opaque(text.to_vec()));
    let steps = [Step::Delivered, output.clone(), progress(b"1"), progress(b"2")];
    let reports = (1..).zip(steps).map(|(sequence, step)| said(task, sequence, step)).collect();
    let acknowledged = writer.submit(Reports { node: id(1), reports }).await.unwrap();
    assert_eq!(acknowledged[0].upto, 4);
    assert!(store.due(id(1), now()).await.unwrap().offers.is_empty());
    writer.submit(Reports { node: id(1), reports: vec![finished(task, 5)] }).await.unwrap();
    assert_eq!(store.task(task).await.unwrap().unwrap().open, 1);
    writer.submit(Reports { node: id(2), reports: vec![finished(task, 1)] }).await.unwrap();

    let summary = store.task(task).await.unwrap().unwrap();
    assert_eq!((summary.open, summary.counts), (0, BTreeMap::from([(TargetState::Succeeded, 2)])));
    let log = store.task_log(task, Position::default(), 100).await.unwrap().unwrap();
    assert_eq!(log.rows.len(), 5, "delivered, output, the last progress, two ends");
    assert_eq!((log.open, log.rows.last().unwrap().position), (0, log.end));
    assert!(log.rows.is_sorted_by_key(|it| it.position));
    assert_eq!(log.host_names[&id(2)], format!("host-{}", id(2).short()));
    let rest = store.task_log(task, log.end, 100).await.unwrap().unwrap();
    assert_eq!((rest.open, rest.end, rest.rows.len()), (0, log.end, 0));
    assert!(store.task_log(TaskId(Uuid::now_v7()), Position::default(), 1).await.unwrap().is_none());
    assert_eq!(store.outputs(task, id(1), Position::default(), 9).await.unwrap().len(), 1);
    let events = store.events(start, 100).await.unwrap();
    assert_eq!(events.len(), 2, "created, done");
    assert_eq!(store.tasks_before(None, true, 9).await.unwrap().len(), 0);
    assert_eq!(store.targets_of(id(1), None, 9).await.unwrap()[0].task, task);
}

async fn what_a_stream_is_to_say_is_read_at_once(bench: &Bench) {
    let Bench { store, writer } = bench;
    let nodes = [id(51), id(52)];
    for node in nodes {
        writer.submit(attach(node)).await.unwrap();
    }
    assert!(store.due(nodes[0], now()).await.unwrap().offers.is_empty());
    let lifetime = Duration::from_secs(60);
    let mut waiting = create(&nodes, OfflinePolicy::Queue, lifetime);
    waiting.task.approval = Approval::Wanted;
    writer.submit(waiting).await.unwrap();
    let offered = writer.submit(create(&nodes, OfflinePolicy::Queue, lifetime)).await.unwrap();
    let cancelled = writer.submit(create(&nodes, OfflinePolicy::Queue, lifetime)).await.unwrap();
    let (actor, order) = ("operators/a".to_owned(), Opaque(vec![3]));
    writer.submit(CancelTask { task: cancelled, actor, order, carriers: Vec::new() }).await.unwrap();
    let due = store.due(nodes[0], now()).await.unwrap();
    assert_eq!(due.offers.iter().map(|it| (it.task, it.node)).collect::<Vec<_>>(), [(offered, nodes[0])]);
    assert_eq!(due.cancellations, [(cancelled, nodes[0])]);
    assert!(store.due(nodes[0], now() + 2 * lifetime).await.unwrap().offers.is_empty(), "its life is over");
}

async fn a_host_name_that_several_bear_is_told_twice(bench: &Bench) {
    let twins = [id(61), id(62), id(63)];
    for (node, name) in twins.into_iter().chain([id(64)]).zip(["twin", "twin", "twin", "one"]) {
        let mut attach = attach(node);
        attach.profile.host_name = name.to_owned();
        bench.writer.submit(attach).await.unwrap();
    }
    let mut found = bench.store.ids_by_host_name(&["twin", "one", "no\"body"]).await.unwrap();
    found.sort();
    let bears = |name: &str, node| (name.to_owned(), node);
    assert_eq!(found, [bears("one", id(64)), bears("twin", id(61)), bears("twin", id(62))]);
}

/// More rows than one statement takes.
async fn a_large_task_is_written_whole(bench: &Bench) {
    let Bench { store, writer } = bench;
    let nodes: Vec<_> = (0..1_201_u32)
        .map(|number| NodeId(std::array::from_fn(|at| (number >> (8 * (at % 4))) as u8)))
        .collect();
    let task = writer.submit(create(&nodes, OfflinePolicy::Skip, Duration::from_secs(60))).await.unwrap();
    let counts = store.task(task).await.unwrap().unwrap().counts;
    assert_eq!(counts, BTreeMap::from([(TargetState::Expired, 1_201)]));
    let log = store.task_log(task, Position::default(), 2_000).await.unwrap().unwrap();
    assert_eq!((log.open, log.rows.len()), (0, 1_201));
}

async fn a_held_node_stays_held_until_an_operator_has_decided(bench: &Bench) {
    let Bench { store, writer } = bench;
    let node = id(21);
    let live = |boot_nonce: u64, session: u64| {
        let mut attach = attach(node);
        (attach.profile.boot_nonce, attach.session) = (boot_nonce, session);
        attach
    };
    assert_eq!(writer.submit(live(1, 1)).await.unwrap().suspicion, None);
    let suspicion = writer.submit(live(2, 2)).await.unwrap().suspicion.unwrap();
    let start = store.events_end().await.unwrap();
    assert!(writer.submit(Hold { suspicion: suspicion.clone() }).await.unwrap());
    assert!(!writer.submit(Hold { suspicion }).await.unwrap(), "it is no news twice");
    assert_eq!(store.events(start, 9).await.unwrap().len(), 2, "changed, and failed");
    assert!(writer.submit(live(1, 3)).await.unwrap().held && writer.submit(live(2, 4)).await.unwrap().held);
    // One device is started again: its earlier start does not count as a device.
    writer.submit(Detach { node, session: 3, parted: None, heard: now(), life: 1 }).await.unwrap();
    writer.submit(live(3, 5)).await.unwrap();
    let stored = store.nodes_by_id(&[node]).await.unwrap().pop().unwrap().row;
    let lives: Vec<_> = stored.lives.iter().map(|life| life.boot_nonce).collect();
    assert_eq!((stored.presence, lives), (Presence::Held, vec![2, 3]));
    let held = NodeFilter { states: vec![Presence::Held], ..NodeFilter::default() };
    assert_eq!(store.nodes_like(&held, &[], None).await.unwrap().len(), 1);

    let resolve = |life| Resolve { node, actor: "operators/a".to_owned(), life };
    assert_eq!(writer.submit(resolve(Some(1))).await.unwrap(), Err(NodeRefusal::UnknownLife));
    assert_eq!(writer.submit(resolve(Some(3))).await.unwrap(), Ok(true));
    assert_eq!(writer.submit(resolve(None)).await.unwrap(), Err(NodeRefusal::NotHeld));
    let deeds = store.deeds(100).await.unwrap();
    let actions: Vec<_> = deeds.iter().map(|it| it.deed.action).collect();
    assert!(actions.contains(&Action::HoldNode) && actions.contains(&Action::ResolveClone));
    let back = writer.submit(live(2, 6)).await.unwrap();
    assert!(!back.held && back.suspicion.is_none());
}

async fn time_ends_what_no_host_will(bench: &Bench) {
    let Bench { store, writer } = bench;
    let (away, online) = (id(11), id(12));
    for node in [away, online] {
        writer.submit(attach(node)).await.unwrap();
    }
    let parted = Some("parted".to_owned());
    writer.submit(Detach { node: away, session: 1, parted, heard: now(), life: 0 }).await.unwrap();
    let task = create(&[away, online], OfflinePolicy::Queue, Duration::from_micros(1));
    let task = writer.submit(task).await.unwrap();
    let mine = |overdue: Vec<muster_topology::domain::tasks::Overdue>| -> Vec<_> {
        overdue.into_iter().filter(|it| it.task == task).collect()
    };
    let ripe = mine(store.overdue(now(), 100).await.unwrap());
    assert_eq!((ripe.len(), ripe[0].node, ripe[0].ending), (1, away, MasterEnding::LifetimeOver));
    writer.submit(EndTargets { overdue: ripe }).await.unwrap();
    assert!(
        mine(store.overdue(now(), 100).await.unwrap()).is_empty(),
        "an online host has time for its word"
    );
    let later = now() + Duration::from_secs(31);
    let ripe = mine(store.overdue(later, 100).await.unwrap());
    assert_eq!(ripe[0].node, online);
    writer.submit(EndTargets { overdue: ripe }).await.unwrap();
    let counts = store.task(task).await.unwrap().unwrap().counts;
    assert_eq!(counts, BTreeMap::from([(TargetState::Expired, 2)]));
}

async fn many_writers_at_once_lose_nothing(bench: &Bench) {
    let Bench { store, writer } = bench;
    let node = id(21);
    writer.submit(attach(node)).await.unwrap();
    let task = create(&[node], OfflinePolicy::Queue, Duration::from_secs(60));
    let task = writer.submit(task).await.unwrap();
    let reports = (1..=200).map(|sequence| {
        let output = said(task, sequence, Step::Output(Opaque(vec![7; 100])));
        writer.submit(Reports { node, reports: vec![output] })
    });
    let answers = futures::future::join_all(reports).await;
    assert_eq!(answers.into_iter().map(|it| it.unwrap()[0].upto).max(), Some(200));
    assert_eq!(store.outputs(task, node, Position::default(), 1_000).await.unwrap().len(), 200);
}

async fn what_is_too_old_or_too_much_goes_in_batches(bench: &Bench) {
    let Bench { store, writer } = bench;
    let node = id(31);
    writer.submit(attach(node)).await.unwrap();
    let task = writer.submit(create(&[node], OfflinePolicy::Queue, Duration::from_secs(60))).await.unwrap();
    let reports = (1..=10).map(|it| said(task, it, Step::Output(Opaque(vec![7; 1_000])))).collect();
    writer.submit(Reports { node, reports }).await.unwrap();
    writer.submit(Reports { node, reports: vec![finished(task, 11)] }).await.unwrap();
    let kept = Retention::default();
    assert_eq!(store.purge(now(), kept).await.unwrap(), 0);
    let little = Retention { output_bytes: 0, batch: 4, ..kept };
    assert_eq!(store.purge(now(), little).await.unwrap(), 4);
    let left = store.outputs(task, node, Position::default(), 100).await.unwrap();
    assert!(left.len() <= 10);
    let much_later = now() + Duration::from_secs(91 * 24 * 3600);
    while store.purge(much_later, kept).await.unwrap() > 0 {}
    assert!(store.task(task).await.unwrap().is_none());
    assert!(store.events(Position::default(), 10).await.unwrap().is_empty());
}

async fn a_replica_whose_lease_ends_leaves_its_streams(bench: &Bench) {
    let Bench { store, writer } = bench;
    let begin = now();
    store.renew_lease("r", begin, begin + Duration::from_secs(15)).await.unwrap();
    writer.submit(attach(id(41))).await.unwrap();
    let mine = |found: Vec<muster_topology::store::OrphanedStream>| found.iter().any(|it| it.node == id(41));
    assert!(!mine(store.orphaned(begin).await.unwrap()));
    assert!(mine(store.orphaned(begin + Duration::from_secs(16)).await.unwrap()));
    store.end_lease("r").await.unwrap();
    assert!(mine(store.orphaned(begin).await.unwrap()));
}

/// While auth is away.
async fn when_too_many_deeds_wait_those_of_hosts_are_counted_and_confessed(bench: &Bench) {
    let deed = |action| Deed::new(now(), action, "operators/a", "tasks/1", "");
    let write = async |actions: Vec<Action>| {
        let changes = Changes { deeds: actions.into_iter().map(deed).collect(), ..Changes::default() };
        bench.store.commit(&changes, now()).await.unwrap();
    };
    let before = bench.store.waiting_deeds().await.unwrap();
    write(vec![Action::CancelTask; usize::try_from(DEEDS - before).unwrap()]).await;
    write(vec![Action::Refuse, Action::CreateTask, Action::ChangeRole]).await;
    assert_eq!(bench.store.waiting_deeds().await.unwrap(), DEEDS + 1);
    let waiting = bench.store.deeds(2 * DEEDS).await.unwrap();
    assert_eq!(waiting.last().unwrap().deed.action, Action::CreateTask);
    bench.store.forget_deeds(&waiting.iter().map(|it| it.number).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(bench.store.confess_omissions(now()).await.unwrap(), 2);
    assert_eq!(bench.store.confess_omissions(now()).await.unwrap(), 0);
    let confessed = bench.store.deeds(10).await.unwrap();
    assert_eq!((confessed.len(), confessed[0].deed.action), (1, Action::Omit));
    assert!(confessed[0].deed.detail.starts_with("2 "), "{:?}", confessed[0]);
}

async fn suite(store: Arc<dyn Store>) {
    let bench = Bench::new(store);
    a_write_that_read_an_older_revision_loses(&bench).await;
    a_task_goes_from_creation_to_done_with_all_its_traces(&bench).await;
    what_a_stream_is_to_say_is_read_at_once(&bench).await;
    a_host_name_that_several_bear_is_told_twice(&bench).await;
    a_large_task_is_written_whole(&bench).await;
    time_ends_what_no_host_will(&bench).await;
    a_held_node_stays_held_until_an_operator_has_decided(&bench).await;
    many_writers_at_once_lose_nothing(&bench).await;
    a_replica_whose_lease_ends_leaves_its_streams(&bench).await;
    what_is_too_old_or_too_much_goes_in_batches(&bench).await;
    when_too_many_deeds_wait_those_of_hosts_are_counted_and_confessed(&bench).await;
    bench.store.commit(&Changes::default(), now()).await.unwrap();
}

#[tokio::test]
async fn the_suite_holds_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    suite(Arc::new(SqliteStore::open(&folder.path().join("topology.db")).await.unwrap())).await;
}

#[tokio::test]
async fn the_suite_holds_on_postgres() {
    let server = Postgres::start().unwrap();
    suite(Arc::new(PostgresStore::connect(server.url().parse().unwrap()).await.unwrap())).await;
}

/// Two writers as of two replicas, and a slow transaction that a reader of the feed must not pass.
#[tokio::test]
async fn a_feed_on_postgres_is_read_below_the_oldest_open_transaction() {
    let server = Postgres::start().unwrap();
    let store = Arc::new(PostgresStore::connect(server.url().parse().unwrap()).await.unwrap());
    let bench = Bench::new(store.clone());
    let mut slow =
        sqlx::postgres::PgPoolOptions::new().connect(&server.url()).await.unwrap().begin().await.unwrap();
    sqlx::query("INSERT INTO events (at, doc) VALUES (0, '{\"task_changed\":{\"task\":\"00000000-0000-0000-0000-000000000000\"}}')")
        .execute(&mut *slow)
        .await
        .unwrap();
    bench.writer.submit(attach(id(1))).await.unwrap();
    assert!(store.events(Position::default(), 10).await.unwrap().is_empty());
    slow.commit().await.unwrap();
    let events = store.events(Position::default(), 10).await.unwrap();
    assert_eq!(events.len(), 2);
    assert!(events[0].position.number < events[1].position.number);
}

#[tokio::test]
async fn two_replicas_on_postgres_settle_their_races() {
    let server = Postgres::start().unwrap();
    let connect = || async { Arc::new(PostgresStore::connect(server.url().parse().unwrap()).await.unwrap()) };
    let (one, two) = (Bench::new(connect().await), Bench::new(connect().await));
    let nodes: Vec<_> = (1..=20).map(id).collect();
    for node in &nodes {
        one.writer.submit(attach(*node)).await.unwrap();
    }
    let task = create(&nodes, OfflinePolicy::Queue, Duration::from_secs(60));
    let task = one.writer.submit(task).await.unwrap();
    let ends = nodes.iter().flat_map(|node| {
        [&one, &two]
            .map(|bench| bench.writer.submit(Reports { node: *node, reports: vec![finished(task, 1)] }))
    });
    for end in futures::future::join_all(ends).await {
        assert_eq!(end.unwrap()[0].upto, 1);
    }
    let summary = one.store.task(task).await.unwrap().unwrap();
    assert_eq!((summary.open, summary.counts[&TargetState::Succeeded]), (0, 20));
    assert_eq!(one.store.task_log(task, Position::default(), 100).await.unwrap().unwrap().rows.len(), 20);
}

#[tokio::test]
async fn sqlite_writes_ahead_and_waits_for_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("topology.db")).await.unwrap();
    assert_eq!(store.pragma("journal_mode").await.unwrap(), "wal");
    assert_eq!(store.pragma("synchronous").await.unwrap(), "2", "FULL");
}
