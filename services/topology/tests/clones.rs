//! One identity on several devices, over real streams: who is found out, who is not, and what an operator's word does.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod world;

use bytes::Bytes;
use muster_proto::control::v1 as control;
use muster_proto::control::v1::attach_response::Frame as Down;
use muster_proto::control::v1::{downstream, upstream_item};
use muster_proto::fleet::v1 as fleet;
use muster_proto::fleet::v1::NodeState;
use muster_proto::payload_type;
use muster_topology::domain::deed::Action;
use muster_wire::envelope::sign_ed25519;
use prost::Message;
use ring::signature::Ed25519KeyPair;

use world::World;
use world::node::{Link, TestNode};

const LINEAGE: u64 = 0x0123_4567_89ab_cdef;
/// Codes of Part.
const HELD: u32 = 423;
const SUPERSEDED: u32 = 409;

/// Answers a probe as an agent of this boot nonce does, signed with `key`.
async fn answer(link: &Link, node: &TestNode, probe: control::Probe, boot_nonce: u64, key: &Ed25519KeyPair) {
    let node_id = Bytes::copy_from_slice(node.id.as_bytes());
    let life = control::Life { node_id, nonce: probe.nonce, boot_nonce };
    let life = sign_ed25519(payload_type::LIFE, life.encode_to_vec().into(), key);
    let answer = control::ProbeAnswer { nonce: probe.nonce, life: Some(life), ..Default::default() };
    link.send_up(node.upstream(upstream_item::Body::ProbeAnswer(answer))).await;
}

fn signed_probe(body: downstream::Body) -> Option<control::Probe> {
    match body {
        downstream::Body::Probe(probe) if probe.signed => Some(probe),
        _ => None,
    }
}

/// A device that is alive: it answers every probe, until its stream parts it with this code.
async fn lives_until_parted(mut link: Link, node: &TestNode, boot_nonce: u64) -> u32 {
    loop {
        match link.next().await {
            Down::Part(part) => return part.code,
            Down::Downstream(control::Downstream { body: Some(body), .. }) => {
                if let Some(probe) = signed_probe(body) {
                    answer(&link, node, probe, boot_nonce, &node.key).await;
                }
            }
            _ => {}
        }
    }
}

fn hello(node: &TestNode, boot_nonce: u64) -> control::Hello {
    control::Hello { boot_nonce, ..node.hello() }
}

/// Two devices with one identity, found out; both streams have ended.
async fn found_out(world: &World, node: &TestNode) {
    let (first, _) = node.attach(world, hello(node, 1)).await;
    let (second, _) = node.attach(world, hello(node, 2)).await;
    let (one, two) = tokio::join!(lives_until_parted(first, node, 1), lives_until_parted(second, node, 2));
    assert_eq!((one, two), (HELD, HELD));
}

#[tokio::test]
async fn two_lives_that_answer_at_once_are_both_held_and_everybody_hears_of_it() {
    let world = World::start().await;
    let node = world.enroll(1);
    let mut recorded = world.authority.recorded.subscribe();
    found_out(&world, &node).await;

    let held = world.until_node(node.id, NodeState::Held).await;
    let ids: Vec<_> = held.lives.iter().map(|life| life.id.as_str()).collect();
    assert_eq!(ids, ["0000000000000001", "0000000000000002"]);
    assert!(held.offline_reason.starts_with("alive twice"), "{}", held.offline_reason);
    let held_deed = |deeds: &Vec<muster_topology::domain::deed::Deed>| {
        deeds.iter().any(|deed| deed.action == Action::HoldNode)
    };
    tokio::time::timeout(world::LIMIT, recorded.wait_for(held_deed)).await.unwrap().unwrap();
    let events = fleet::ListEventsRequest { page_size: 100, ..Default::default() };
    let events = world.fleet().list_events(events).await.unwrap().into_inner().events;
    assert!(events.into_iter().any(|event| matches!(
        event.body, Some(fleet::event::Body::OperationFailed(failed)) if failed.reason_code == "CLONED"
    )));
    // They may come, and wait; they are offered nothing.
    let task = world.create(world::run_on(&[node.id])).await;
    let (mut one, welcome) = node.attach(&world, hello(&node, 1)).await;
    let (_two, other) = node.attach(&world, hello(&node, 2)).await;
    assert!(welcome.held && other.held && !task.done);
    assert_eq!(world.node(node.id).await.state(), NodeState::Held);
    let unheard = tokio::time::timeout(std::time::Duration::from_millis(500), one.offer()).await;
    assert!(unheard.is_err(), "a held device was offered a task");
}

#[tokio::test]
async fn an_operators_word_makes_one_of_them_another_device_and_frees_the_other() {
    let world = World::start().await;
    let node = world.enroll(1);
    found_out(&world, &node).await;
    let (mut one, _) = node.attach(&world, hello(&node, 1)).await;
    let (mut two, _) = node.attach(&world, hello(&node, 2)).await;
    let link = format!("https://127.0.0.1:1/enroll#1.{}.{}", "a".repeat(26), root_key(&world));
    let wanted = |life: &str, link: &str| fleet::ResolveCloneRequest {
        name: format!("nodes/{}", node.id),
        life: life.to_owned(),
        enrollment_link: link.to_owned(),
    };
    let unknown = world.fleet().resolve_clone(wanted("00000000000000ff", &link)).await.unwrap_err();
    assert_eq!(muster_kit::status::reason(&unknown).as_deref(), Some("LIFE_NOT_ATTACHED"));
    let nonsense = world.fleet().resolve_clone(wanted("2", "no link")).await.unwrap_err();
    assert_eq!(muster_kit::status::reason(&nonsense).as_deref(), Some("BAD_LINK"));

    let freed = world.fleet().resolve_clone(wanted("2", &link)).await.unwrap().into_inner();
    assert_eq!((freed.state(), freed.lives.len()), (NodeState::Offline, 0));
    let new = two.until(|frame| if let Down::NewIdentity(new) = frame { Some(new) } else { None }).await;
    assert_eq!(new.enrollment_link, link);
    assert_eq!(one.part().await.code, SUPERSEDED);
    let (_one, welcome) = node.attach(&world, hello(&node, 1)).await;
    assert!(!welcome.held);
    assert_eq!(world.node(node.id).await.state(), NodeState::Online);
    let again = world.fleet().resolve_clone(wanted("", "")).await.unwrap_err();
    assert_eq!(muster_kit::status::reason(&again).as_deref(), Some("NODE_NOT_HELD"));
}

fn root_key(world: &World) -> String {
    muster_kit::tls::root_key(&world.pki.root_der()).unwrap().to_string()
}

#[tokio::test]
async fn a_laptop_with_a_stale_stream_is_online_at_once_and_no_clone() {
    let world = World::start().await;
    let node = world.enroll(1);
    // It roams: the old stream stands, and nobody is at its other end. A crash changed the boot nonce on the way.
    let (mut stale, _) = node.attach(&world, hello(&node, 1)).await;
    let (live, welcome) = node.attach(&world, hello(&node, 2)).await;
    assert!(!welcome.held);
    assert_eq!(world.node(node.id).await.state(), NodeState::Online);
    let code = tokio::select! {
        code = lives_until_parted(live, &node, 2) => panic!("the living one was parted: {code}"),
        part = stale.part() => part.code,
    };
    assert_eq!(code, SUPERSEDED);
}

#[tokio::test]
async fn the_same_life_on_a_new_way_takes_over_without_a_question() {
    let world = World::start().await;
    let node = world.enroll(1);
    let (mut earlier, _) = node.attach(&world, hello(&node, 1)).await;
    let (_later, _) = node.attach(&world, hello(&node, 1)).await;
    let first = earlier.until(|frame| match frame {
        Down::Part(part) => Some(part.code),
        Down::Downstream(down) => down.body.and_then(signed_probe).map(|_| 0),
        _ => None,
    });
    assert_eq!(first.await, SUPERSEDED);
}

#[tokio::test]
async fn a_child_whose_copy_stands_elsewhere_is_found_out_through_its_lsn_and_summoned() {
    let world = World::start().await;
    let (lsn, node) = (world.enroll(1), world.enroll(2));
    let (mut office, _) = lsn.attach(&world, lsn.hello_as_lsn(LINEAGE, 1)).await;
    office.update(1, true, vec![node.attach_under(lsn.id, LINEAGE, 1)]).await;
    office.update_ack().await;
    let (copy, _) = node.attach(&world, hello(&node, 9)).await;
    let shared = &node;
    let child = async {
        loop {
            match office.down(Some).await {
                downstream::Body::Summons(_) => return,
                body => {
                    if let Some(probe) = signed_probe(body) {
                        answer(&office, shared, probe, 7, &shared.key).await;
                    }
                }
            }
        }
    };
    let (code, ()) = tokio::join!(lives_until_parted(copy, &node, 9), child);
    assert_eq!(code, HELD);
    // Its LSN shows it again, in vain.
    office.update(2, false, vec![node.attach_under(lsn.id, LINEAGE, 1)]).await;
    office.down(|body| matches!(body, downstream::Body::Summons(_)).then_some(())).await;
    assert_eq!(world.node(node.id).await.state(), NodeState::Held);
}

#[tokio::test]
async fn an_lsn_cannot_make_a_clone_of_its_child_without_the_childs_hand() {
    let world = World::start().await;
    let (lsn, node) = (world.enroll(1), world.enroll(2));
    let (mut office, _) = lsn.attach(&world, lsn.hello_as_lsn(LINEAGE, 1)).await;
    office.update(1, true, vec![node.attach_under(lsn.id, LINEAGE, 1)]).await;
    office.update_ack().await;
    let (live, _) = node.attach(&world, hello(&node, 9)).await;
    let probe = office.down(signed_probe).await;
    answer(&office, &node, probe, 7, &lsn.key).await;
    let task = world.create(world::run_on(&[node.id])).await;
    let mut live = live;
    live.offer().await;
    assert!(!task.done);
    assert_eq!(world.node(node.id).await.state(), NodeState::Online);
}
