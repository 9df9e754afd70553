//! Revoked and lost nodes at topology: cut off at once, on every way in, and what a lost one still gets.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod world;

use muster_proto::control::v1::{attach_response, downstream};
use muster_proto::fleet::v1::fleet_service_client::FleetServiceClient;
use muster_proto::fleet::v1::{self as fleet, NodeState};
use muster_proto::task::v1::{TaskOrder, TaskState};
use muster_types::Role;
use muster_wire::revocation::Reason;
use prost::Message;

use world::node::finished;
use world::{LIMIT, World, done, run_on};

const LINEAGE: u64 = 0x0123_4567_89ab_cdef;

#[tokio::test]
async fn a_revoked_node_hears_of_it_loses_its_stream_and_is_not_admitted_again() {
    let world = World::start().await;
    let node = world.enroll(1);
    let (mut link, _) = node.attach(&world, node.hello()).await;
    world.authority.revoke(node.id, Reason::Revoked);
    let list = link.down(|body| if let downstream::Body::Revocations(it) = body { Some(it) } else { None });
    let mut trust = world.authority.trust();
    assert!(trust.revoke([&list.await]).is_ok());
    assert!(trust.revocations().of_node(node.id).is_some());
    let part = link.part().await;
    assert_eq!((part.code, part.description.as_str()), (403, "this device is revoked"));
    assert!(link.ended().await);
    let gone = world.until_node(node.id, NodeState::Offline).await;
    assert_eq!(gone.offline_reason, "revoked");
    let part = node.open(&world, node.hello()).await.part().await;
    assert_eq!(part.code, 403);
    assert!(part.description.contains("revoked"), "{}", part.description);
}

#[tokio::test]
async fn an_lsn_shows_no_revoked_child_and_hears_of_revocations_before_and_after_it_attached() {
    let world = World::start().await;
    let (lsn, child, early) = (world.enroll(1), world.enroll(2), world.enroll(3));
    world.authority.revoke(early.id, Reason::Revoked);
    let (mut link, welcome) = lsn.attach(&world, lsn.hello_as_lsn(LINEAGE, 1)).await;
    let mut trust = world.authority.trust();
    // The list may still be on its way from auth when the first node comes; then it follows the Welcome.
    trust.revoke(&welcome.revocations).unwrap();
    while trust.revocations().of_node(early.id).is_none() {
        let list =
            link.down(|body| if let downstream::Body::Revocations(it) = body { Some(it) } else { None });
        trust.revoke([&list.await]).unwrap();
    }
    let attached = vec![child.attach_under(lsn.id, LINEAGE, 1), early.attach_under(lsn.id, LINEAGE, 1)];
    link.update(1, true, attached).await;
    assert_eq!(link.update_ack().await.receipts.len(), 1);
    world.until_node(child.id, NodeState::Online).await;

    world.authority.revoke(child.id, Reason::Revoked);
    let gone = world.until_node(child.id, NodeState::Offline).await;
    assert_eq!(gone.offline_reason, "revoked");
    // A lying LSN goes on showing it.
    link.update(2, false, vec![child.attach_under(lsn.id, LINEAGE, 1)]).await;
    assert!(link.update_ack().await.receipts.is_empty());
    assert_eq!(world.node(child.id).await.state(), NodeState::Offline);
}

#[tokio::test]
async fn a_lost_node_is_admitted_for_a_lock_and_for_nothing_else() {
    let world = World::start().await;
    let node = world.enroll(1);
    let (mut link, _) = node.attach(&world, node.hello_as_lsn(LINEAGE, 1)).await;
    world.authority.revoke(node.id, Reason::Lost);
    assert_eq!(link.part().await.description, "this device is lost");
    let run = world.create(run_on(&[node.id])).await;
    let mut lock = run_on(&[node.id]);
    lock.spec.as_mut().unwrap().r#type = "lock".to_owned();
    let lock = world.create(lock).await;

    let (mut link, welcome) = node.attach(&world, node.hello_as_lsn(LINEAGE, 2)).await;
    assert!(!welcome.resync, "it is no LSN any more");
    let offered = TaskOrder::decode(link.offer().await.payload).unwrap();
    assert_eq!(format!("tasks/{}", uuid::Uuid::from_slice(&offered.task_id).unwrap()), lock.name);
    link.send_up(node.report(&offered.task_id, 1, finished(TaskState::Succeeded, 0))).await;
    link.acknowledged(1).await;
    assert!(done(&world.watch(&lock.name, "").await).done);
    // Of the other task it hears nothing: the next frame is the answer to a child that it has no right to show.
    link.update(1, true, vec![world.enroll(2).attach_under(node.id, LINEAGE, 2)]).await;
    match link.next().await {
        attach_response::Frame::Part(part) => assert_eq!(part.code, 400),
        other => panic!("a lost device gets nothing but its lock: {other:?}"),
    }
    let still = world.fleet().get_task(fleet::GetTaskRequest { name: run.name }).await.unwrap().into_inner();
    assert!(!still.done);
}

#[tokio::test]
async fn streams_that_a_revoked_operator_watches_are_cut_and_those_of_others_go_on() {
    let world = World::start().await;
    let node = world.enroll(1);
    let (_link, _) = node.attach(&world, node.hello()).await;
    let task = world.create(run_on(&[node.id])).await;
    let material = world.pki.leaf(&world.pki.identity(Role::Operator, "ada"));
    let serial = muster_kit::tls::peer_identity(&material.chain).unwrap().serial;
    let mut ada = FleetServiceClient::new(world.channel(material));
    let watched = fleet::WatchTaskRequest { name: task.name, resume_token: String::new() };
    let mut of_task = ada.watch_task(watched).await.unwrap().into_inner();
    let mut of_all = ada.watch_events(fleet::WatchEventsRequest::default()).await.unwrap().into_inner();
    let mut others =
        world.fleet().watch_events(fleet::WatchEventsRequest::default()).await.unwrap().into_inner();

    world.authority.revoke_serial(serial.into(), None, Reason::Revoked);
    for refused in [ended(&mut of_task).await, ended(&mut of_all).await] {
        assert_eq!(muster_kit::status::reason(&refused).as_deref(), Some("CERTIFICATE_REVOKED"));
    }
    world.authority.revoke(node.id, Reason::Revoked);
    tokio::time::timeout(LIMIT, others.message()).await.unwrap().unwrap().unwrap();
}

/// How a stream ended, after whatever it still told.
async fn ended<T>(stream: &mut tonic::Streaming<T>) -> tonic::Status {
    let end = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a word"),
                Err(refused) => return refused,
            }
        }
    };
    tokio::time::timeout(LIMIT, end).await.unwrap()
}
