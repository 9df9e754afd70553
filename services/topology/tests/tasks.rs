//! A task's way from CreateTask to its terminal states, over real gRPC and TLS, with nodes that have real keys.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod world;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use muster_proto::control::v1::downstream;
use muster_proto::fleet::v1 as fleet;
use muster_proto::payload_type;
use muster_proto::task::v1::task_report::Step;
use muster_proto::task::v1::{Delivered, Started, TaskOrder, TaskState};
use muster_topology::domain::deed::{Action, Deed};
use muster_topology::domain::ledger::Changes;
use muster_topology::store::{DEEDS, Store};
use muster_types::Role;
use muster_wire::time::span_to_wire;
use prost::Message;

use world::node::{Link, TestNode, finished, output};
use world::{LIMIT, World, done, run_on, states};

/// What the node finds in an offer, after checking the master's signature.
fn open(world: &World, offer: &muster_proto::trust::v1::Envelope) -> TaskOrder {
    TaskOrder::decode(world.authority.trust().open(offer, payload_type::TASK).unwrap()).unwrap()
}

/// Takes the next order and does it.
async fn perform(world: &World, node: &TestNode, link: &mut Link) -> Bytes {
    let order = open(world, &link.offer().await);
    assert!(order.targets.iter().any(|target| target[..] == node.id.as_bytes()[..]));
    let steps = [
        Step::Delivered(Delivered {}),
        Step::Started(Started {}),
        output("hello\n"),
        finished(TaskState::Succeeded, 0),
    ];
    for (sequence, step) in (1..).zip(steps) {
        link.send_up(node.report(&order.task_id, sequence, step)).await;
    }
    link.acknowledged(4).await;
    order.task_id
}

#[tokio::test]
async fn a_task_reaches_its_node_and_every_step_is_told() {
    let world = World::start().await;
    let node = world.enroll(1);
    let (mut link, _) = node.attach(&world, node.hello()).await;
    let task = world.create(run_on(&[node.id])).await;
    assert_eq!((task.target_count, task.done), (1, false));
    perform(&world, &node, &mut link).await;

    let told = world.watch(&task.name, "").await;
    assert_eq!(states(&told, node.id), [TaskState::Delivered, TaskState::Started, TaskState::Succeeded]);
    let ended = done(&told);
    assert!(ended.done);
    assert_eq!(ended.counts.len(), 1);
    let request = fleet::ListTaskOutputRequest {
        name: task.name,
        node: format!("nodes/{}", node.id),
        ..fleet::ListTaskOutputRequest::default()
    };
    let kept = world.fleet().list_task_output(request).await.unwrap().into_inner();
    assert_eq!(kept.outputs[0].data, "hello\n");
}

#[tokio::test]
async fn a_task_waits_for_a_node_that_is_away() {
    let world = World::start().await;
    let node = world.enroll(1);
    let (link, _) = node.attach(&world, node.hello()).await;
    drop(link);
    let task = world.create(run_on(&[node.id])).await;
    let (mut link, _) = node.attach(&world, node.hello()).await;
    perform(&world, &node, &mut link).await;
    assert!(done(&world.watch(&task.name, "").await).done);
}

/// Attaches and parts: known, and offline.
async fn known_and_offline(world: &World, node: &TestNode) {
    use muster_proto::control::v1::{Part, attach_request::Frame};
    let (link, _) = node.attach(world, node.hello()).await;
    link.send(Frame::Part(Part { code: 200, description: "shutdown".to_owned(), retry_after: None })).await;
    world.until_node(node.id, fleet::NodeState::Offline).await;
}

#[tokio::test]
async fn a_task_that_skips_the_absent_ends_for_them_at_once() {
    let world = World::start().await;
    let node = world.enroll(1);
    known_and_offline(&world, &node).await;
    let skip = fleet::OfflinePolicy::Skip.into();
    let task = world.create(fleet::CreateTaskRequest { offline_policy: skip, ..run_on(&[node.id]) }).await;
    assert!(task.done);
    let told = world.watch(&task.name, "").await;
    assert_eq!(states(&told, node.id), [TaskState::Expired]);
    let Some(fleet::watch_task_response::Update::Target(target)) = &told[0].update else { panic!() };
    assert_eq!(target.finished.as_ref().unwrap().reason_code, "NODE_AWAY");
}

#[tokio::test]
async fn a_task_expires_on_a_node_that_does_not_come_back() {
    let world = World::start().await;
    let node = world.enroll(1);
    known_and_offline(&world, &node).await;
    let lifetime = Some(span_to_wire(Duration::from_millis(300)));
    let task = world.create(fleet::CreateTaskRequest { lifetime, ..run_on(&[node.id]) }).await;
    let told = world.watch(&task.name, "").await;
    assert_eq!(states(&told, node.id), [TaskState::Expired]);
}

#[tokio::test]
async fn cancelling_ends_the_queued_at_once_and_tells_who_has_started() {
    let world = World::start().await;
    let (away, busy) = (world.enroll(1), world.enroll(2));
    known_and_offline(&world, &away).await;
    let (mut link, _) = busy.attach(&world, busy.hello()).await;
    let task = world.create(run_on(&[away.id, busy.id])).await;
    let order = open(&world, &link.offer().await);
    link.send_up(busy.report(&order.task_id, 1, Step::Started(Started {}))).await;
    link.acknowledged(1).await;

    let request = fleet::CancelTaskRequest { name: task.name.clone(), request_id: String::new() };
    let cancelled = world.fleet().cancel_task(request).await.unwrap().into_inner();
    assert!(cancelled.cancel_time.is_some());
    let sealed = link
        .down(|body| match body {
            downstream::Body::TaskCancellation(it) => it.cancellation,
            _ => None,
        })
        .await;
    assert!(world.authority.trust().open(&sealed, payload_type::TASK_CANCELLATION).is_ok());
    link.send_up(busy.report(&order.task_id, 2, finished(TaskState::Cancelled, 0))).await;

    let told = world.watch(&task.name, "").await;
    assert_eq!(states(&told, away.id), [TaskState::Cancelled]);
    assert_eq!(states(&told, busy.id), [TaskState::Started, TaskState::Cancelled]);
}

#[tokio::test]
async fn who_has_a_scope_approves_and_cancels_nothing_outside_it_and_an_auditor_nothing_at_all() {
    let world = World::start().await;
    let node = world.enroll(1);
    known_and_offline(&world, &node).await;
    let scope =
        |types: &str| format!("approval_above = 0\n[[scope]]\nwho = [\"cmdbs/tester\"]\ntypes = [{types}]\n");
    world.lay_down(&scope("\"inventory\""));
    let task = world.create(run_on(&[node.id])).await;
    let mut cmdb = world.fleet_as(Role::Cmdb);
    let approve = fleet::ApproveTaskRequest { name: task.name.clone() };
    let cancel = fleet::CancelTaskRequest { name: task.name.clone(), ..Default::default() };
    let reason = |refused: tonic::Status| muster_kit::status::reason(&refused).unwrap();
    assert_eq!(reason(cmdb.approve_task(approve.clone()).await.unwrap_err()), "OUT_OF_SCOPE");
    assert_eq!(reason(cmdb.cancel_task(cancel.clone()).await.unwrap_err()), "OUT_OF_SCOPE");
    let mut auditor = world.fleet_as(Role::Auditor);
    assert_eq!(reason(auditor.cancel_task(cancel.clone()).await.unwrap_err()), "ROLE_NOT_ALLOWED");
    let seen =
        auditor.get_task(fleet::GetTaskRequest { name: task.name.clone() }).await.unwrap().into_inner();
    assert!(seen.cancel_time.is_none() && seen.approver.is_empty());
    // A policy is read anew each time.
    world.lay_down(&scope("\"run\""));
    assert_eq!(cmdb.approve_task(approve).await.unwrap().into_inner().approver, "cmdbs/tester");
    assert!(cmdb.cancel_task(cancel).await.unwrap().into_inner().cancel_time.is_some());
    // All of it stands in the audit log, in its order, refusals too.
    let mut log = world.authority.recorded.subscribe();
    let log =
        tokio::time::timeout(LIMIT, log.wait_for(|log| log.iter().any(|it| it.action == Action::CancelTask)));
    let log: Vec<_> = log.await.unwrap().unwrap().clone();
    let task = log.iter().filter(|it| it.subject == task.name);
    let task: Vec<_> =
        task.map(|it| (it.action, it.actor.as_str(), it.detail.split(':').next().unwrap())).collect();
    assert_eq!(
        task,
        [
            (Action::CreateTask, "operators/tester", "run on 1 hosts, to be approved"),
            (Action::Refuse, "cmdbs/tester", "OUT_OF_SCOPE"),
            (Action::Refuse, "cmdbs/tester", "OUT_OF_SCOPE"),
            (Action::ApproveTask, "cmdbs/tester", ""),
            (Action::CancelTask, "cmdbs/tester", ""),
        ]
    );
}

#[tokio::test]
async fn what_was_done_before_a_crash_stands_in_the_audit_log_after_it() {
    let mut world = World::start().await;
    let node = world.enroll(1);
    known_and_offline(&world, &node).await;
    let task = world.create(run_on(&[node.id])).await;
    world.crash_and_restart().await;
    let mut log = world.authority.recorded.subscribe();
    let told = log.wait_for(|log| log.iter().any(|it| it.subject == task.name));
    tokio::time::timeout(LIMIT, told).await.unwrap().unwrap();
}

#[tokio::test]
async fn while_too_many_deeds_wait_nothing_is_done_that_the_audit_log_would_not_have() {
    let world = World::start().await;
    let node = world.enroll(1);
    known_and_offline(&world, &node).await;
    let task = world.create(run_on(&[node.id])).await;
    world.authority.deaf.store(true, Ordering::Relaxed);
    let now = muster_kit::clock::wall();
    let deed = Deed::new(now, Action::CancelTask, "operators/a", "tasks/1", "");
    let deeds = vec![deed; usize::try_from(DEEDS).unwrap()];
    world.store().await.commit(&Changes { deeds, ..Changes::default() }, now).await.unwrap();

    // They are counted once a second.
    let refused = until(async || world.fleet().create_task(run_on(&[node.id])).await.err()).await;
    assert_eq!(muster_kit::status::reason(&refused).unwrap(), "AUDIT_BEHIND");
    let cancel = fleet::CancelTaskRequest { name: task.name.clone(), ..Default::default() };
    assert!(world.fleet().cancel_task(cancel).await.unwrap().into_inner().cancel_time.is_some());

    world.authority.deaf.store(false, Ordering::Relaxed);
    until(async || world.fleet().create_task(run_on(&[node.id])).await.ok()).await;
    let log = world.authority.recorded.borrow();
    assert!(log.len() as i64 > DEEDS, "{}", log.len());
}

/// Asks until there is an answer.
async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let answer = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    tokio::time::timeout(LIMIT, answer).await.unwrap()
}

#[tokio::test]
async fn a_report_that_comes_twice_counts_once_and_is_acknowledged_twice() {
    let world = World::start().await;
    let node = world.enroll(1);
    let (mut link, _) = node.attach(&world, node.hello()).await;
    let task = world.create(run_on(&[node.id])).await;
    let order = open(&world, &link.offer().await);
    for _ in 0..2 {
        link.send_up(node.report(&order.task_id, 1, output("once"))).await;
        link.acknowledged(1).await;
    }
    link.send_up(node.report(&order.task_id, 2, finished(TaskState::Failed, 3))).await;
    link.acknowledged(2).await;
    link.send_up(node.report(&order.task_id, 3, finished(TaskState::Succeeded, 0))).await;
    link.acknowledged(3).await;
    let told = world.watch(&task.name, "").await;
    let outputs =
        told.iter().filter(|it| matches!(it.update, Some(fleet::watch_task_response::Update::Output(_))));
    assert_eq!(outputs.count(), 1);
    assert_eq!(states(&told, node.id), [TaskState::Failed]);
}

#[tokio::test]
async fn a_report_signed_by_another_node_is_dropped() {
    let world = World::start().await;
    let (node, liar) = (world.enroll(1), world.enroll(2));
    let (mut link, _) = node.attach(&world, node.hello()).await;
    let task = world.create(run_on(&[node.id])).await;
    let order = open(&world, &link.offer().await);
    let mut forged = liar.report(&order.task_id, 1, finished(TaskState::Succeeded, 0));
    forged.node_id = Bytes::copy_from_slice(node.id.as_bytes());
    link.send_up(forged).await;
    link.send_up(node.report(&order.task_id, 1, finished(TaskState::Failed, 1))).await;
    link.acknowledged(1).await;
    assert_eq!(states(&world.watch(&task.name, "").await, node.id), [TaskState::Failed]);
}

#[tokio::test]
async fn a_request_id_makes_one_task_however_often_it_is_sent() {
    let world = World::start().await;
    let node = world.enroll(1);
    let (_link, _) = node.attach(&world, node.hello()).await;
    let request = fleet::CreateTaskRequest { request_id: "r-1".to_owned(), ..run_on(&[node.id]) };
    let (one, two) = tokio::join!(world.create(request.clone()), world.create(request.clone()));
    assert_eq!(one.name, two.name);
    let preview = world.create(fleet::CreateTaskRequest { validate_only: true, ..run_on(&[node.id]) }).await;
    assert_eq!(preview.target_count, 1);
    let listed = world.fleet().list_tasks(fleet::ListTasksRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.tasks.len(), 1);
}

#[tokio::test]
async fn a_crash_of_topology_loses_no_task_and_no_watcher() {
    let mut world = World::start().await;
    let node = world.enroll(1);
    let (mut link, _) = node.attach(&world, node.hello()).await;
    let task = world.create(run_on(&[node.id])).await;
    let order = open(&world, &link.offer().await);
    link.send_up(node.report(&order.task_id, 1, Step::Started(Started {}))).await;
    link.acknowledged(1).await;
    let request = fleet::WatchTaskRequest { name: task.name.clone(), resume_token: String::new() };
    let mut watch = world.fleet().watch_task(request).await.unwrap().into_inner();
    let token = watch.message().await.unwrap().unwrap().resume_token;

    world.crash_and_restart().await;
    let (mut link, _) = node.attach(&world, node.hello()).await;
    link.send_up(node.report(&order.task_id, 2, finished(TaskState::Succeeded, 0))).await;
    link.acknowledged(2).await;
    let told = world.watch(&task.name, &token).await;
    assert_eq!(states(&told, node.id), [TaskState::Succeeded]);
}

#[tokio::test]
async fn a_node_whose_journal_was_lost_learns_what_it_had_started() {
    let world = World::start().await;
    let node = world.enroll(1);
    let (mut link, _) = node.attach(&world, node.hello()).await;
    world.create(run_on(&[node.id])).await;
    let task = perform(&world, &node, &mut link).await;
    let request = muster_proto::control::v1::ListOwnTasksRequest::default();
    let own = node.client(&world).list_own_tasks(request).await.unwrap().into_inner();
    assert_eq!((own.tasks[0].task_id.clone(), own.tasks[0].state.as_str()), (task, "SUCCEEDED"));
}
