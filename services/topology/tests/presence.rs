//! The picture of the fleet: who attaches, by whom, and who is not believed.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod world;

use bytes::Bytes;
use muster_kit::status;
use muster_proto::control::v1::attach_response::Frame as Down;
use muster_proto::control::v1::{
    FindLsnsRequest, GetNodeTicketRequest, Heartbeat, Part, ProbeAnswer, attach_request, downstream,
    upstream_item,
};
use muster_proto::fleet::v1 as fleet;
use muster_proto::fleet::v1::NodeState;
use muster_proto::payload_type;
use muster_proto::trust::v1::Envelope;
use muster_topology::domain::admission::Admission;
use muster_types::{NodeId, Role, Timestamp};
use prost::Message;

use world::{World, run_on};

const LINEAGE: u64 = 0x0123_4567_89ab_cdef;

#[tokio::test]
async fn a_node_that_attaches_is_shown_and_one_that_parts_is_offline_with_its_reason() {
    let world = World::start().await;
    let node = world.enroll(1);
    let (mut link, welcome) = node.attach(&world, node.hello()).await;
    assert!(
        world.authority.trust().open(welcome.uptime.as_ref().unwrap(), payload_type::UPTIME_TICKET).is_ok()
    );
    assert_eq!((welcome.subnet_keys.len(), welcome.observed_ip.len()), (1, 4));
    let shown = world.node(node.id).await;
    assert_eq!((shown.state(), shown.role()), (NodeState::Online, fleet::NodeRole::Direct));
    assert_eq!((shown.host_name.as_str(), shown.os.as_str()), ("host-01010101", "linux"));
    assert_eq!(shown.labels["fleet"], "test");

    let only_told = Heartbeat { sequence: 4, unanswered: true, ..Heartbeat::default() };
    link.send(attach_request::Frame::Heartbeat(only_told)).await;
    link.send(attach_request::Frame::Heartbeat(Heartbeat { sequence: 5, ..Heartbeat::default() })).await;
    let answer = link.until(|frame| if let Down::Heartbeat(beat) = frame { Some(beat) } else { None }).await;
    assert_eq!((answer.sequence, answer.answer), (5, true));

    link.send(attach_request::Frame::Part(Part {
        code: 200,
        description: "bye".to_owned(),
        retry_after: None,
    }))
    .await;
    let gone = world.until_node(node.id, NodeState::Offline).await;
    assert_eq!(gone.offline_reason, "parted (200): bye");
}

#[tokio::test]
async fn a_node_that_asks_for_anothers_keys_gets_the_ticket_that_the_other_showed() {
    let world = World::start().await;
    let (asking, other) = (world.enroll(1), world.enroll(2));
    let (_link, _) = other.attach(&world, other.hello()).await;
    let ask = async |node: NodeId| {
        let node_id = Bytes::copy_from_slice(node.as_bytes());
        asking.client(&world).get_node_ticket(GetNodeTicketRequest { node_id }).await
    };
    let told = ask(other.id).await.unwrap().into_inner().ticket.unwrap();
    assert_eq!(told, other.ticket);
    let unknown = ask(NodeId([9; 20])).await.unwrap_err();
    assert_eq!(status::reason(&unknown).unwrap(), "NODE_UNSEEN");
}

#[tokio::test]
async fn a_node_that_auth_admitted_is_known_before_it_comes_and_has_its_task_then() {
    let world = World::start().await;
    let node = world.enroll(1);
    world.authority.admitted.lock().unwrap().push(admission(1));
    let known = world.until_node(node.id, NodeState::NeverSeen).await;
    assert_eq!((known.host_name.as_str(), known.labels["site"].as_str()), ("host-1", "lab"));
    assert!(known.last_seen_time.is_none() && known.enroll_time.is_some());
    let task = world.create(run_on(&[node.id])).await;
    assert!(!task.done);

    let (mut link, _) = node.attach(&world, node.hello()).await;
    link.until(|frame| match frame {
        Down::Downstream(down) => match down.body {
            Some(downstream::Body::TaskOffer(offer)) => Some(offer),
            _ => None,
        },
        _ => None,
    })
    .await;
    // What it shows itself is newer than what auth told.
    let seen = world.node(node.id).await;
    assert_eq!((seen.state(), seen.labels["fleet"].as_str()), (NodeState::Online, "test"));
}

/// As auth tells of a node that it has admitted.
fn admission(name: u8) -> Admission {
    Admission {
        node: NodeId([name; 20]),
        host_name: format!("host-{name}"),
        software_version: "0.1.0".to_owned(),
        labels: [("site".to_owned(), "lab".to_owned())].into(),
        enrolled: Timestamp::from_micros(1_000_000),
    }
}

#[tokio::test]
async fn who_deletes_a_great_part_of_the_fleet_is_stopped_until_it_says_that_it_means_it() {
    let world = World::start().await;
    let admitted = |name| world.authority.admitted.lock().unwrap().push(admission(name));
    (1..=30).for_each(admitted);
    world.until_node(NodeId([30; 20]), NodeState::NeverSeen).await;
    let request = |name: u8, confirm_mass_delete| {
        let name = format!("nodes/{}", NodeId([name; 20]));
        fleet::DeleteNodeRequest { name, confirm_mass_delete, ..Default::default() }
    };
    for name in 1..=20 {
        world.fleet().delete_node(request(name, false)).await.unwrap();
    }
    let stopped = world.fleet().delete_node(request(21, false)).await.unwrap_err();
    assert_eq!(status::reason(&stopped).as_deref(), Some("MASS_DELETE"));
    assert!(stopped.message().contains("20 nodes"), "{stopped}");
    // Somebody else has not deleted anything.
    world.fleet_as(Role::Admin).delete_node(request(22, false)).await.unwrap();
    world.fleet().delete_node(request(21, true)).await.unwrap();
}

#[tokio::test]
async fn a_node_that_was_deleted_does_not_come_back_by_auths_old_word() {
    let mut world = World::start().await;
    let admit = |world: &World, name| world.authority.admitted.lock().unwrap().push(admission(name));
    for name in [7, 8] {
        // The second is read only after the first's place in the feed is kept.
        admit(&world, name);
        world.until_node(NodeId([name; 20]), NodeState::NeverSeen).await;
    }
    let name = format!("nodes/{}", NodeId([7; 20]));
    let request = fleet::DeleteNodeRequest { name: name.clone(), ..Default::default() };
    world.fleet().delete_node(request).await.unwrap();
    world.crash_and_restart().await;
    admit(&world, 9);
    world.until_node(NodeId([9; 20]), NodeState::NeverSeen).await;
    let gone = world.fleet().get_node(fleet::GetNodeRequest { name }).await.unwrap_err();
    assert_eq!(gone.code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn the_topology_is_read_page_by_page_and_misses_nobody() {
    let world = World::start().await;
    let (one, two) = (world.enroll(1), world.enroll(2));
    let _links = (one.attach(&world, one.hello()).await, two.attach(&world, two.hello()).await);
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = fleet::GetTopologyRequest { page_size: 1, page_token };
        let page = world.fleet().get_topology(request).await.unwrap().into_inner();
        assert!(page.direct.len() <= 1);
        seen.extend(page.direct.into_iter().map(|node| node.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, [format!("nodes/{}", one.id), format!("nodes/{}", two.id)]);
}

#[tokio::test]
async fn auth_is_told_of_lsns_for_those_whom_it_will_enroll() {
    let world = World::start().await;
    let lsn = world.enroll(1);
    let (_link, _) = lsn.attach(&world, lsn.hello_as_lsn(LINEAGE, 1)).await;
    let mut published = world.authority.published.subscribe();
    let told = published.wait_for(|contacts| !contacts.is_empty());
    let told = tokio::time::timeout(world::LIMIT, told).await.unwrap().unwrap().clone();
    let [contact] = &told[..] else { panic!("one LSN, not {told:?}") };
    assert_eq!(Envelope::decode(&contact.claim.0[..]).unwrap(), lsn.claim(LINEAGE, 1));
    assert_eq!(contact.observed.map(|ip| ip.to_string()).as_deref(), Some("127.0.0.1"));
}

#[tokio::test]
async fn a_ticket_of_another_node_is_refused() {
    let world = World::start().await;
    let (node, other) = (world.enroll(1), world.enroll(2));
    let mut hello = node.hello();
    hello.ticket = Some(other.ticket.clone());
    let part = node.open(&world, hello).await.part().await;
    assert_eq!(part.code, 403);
    let mut hello = node.hello();
    hello.software_version = "0.0.9".to_owned();
    let part = node.open(&world, hello).await.part().await;
    assert_eq!(part.code, 426);
}

#[tokio::test]
async fn each_role_has_its_own_door_and_no_other() {
    let world = World::start().await;
    let node = world.enroll(1);
    let mut fleet =
        fleet::fleet_service_client::FleetServiceClient::new(world.channel(node.material.clone()));
    let refused = fleet.list_nodes(fleet::ListNodesRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    assert_eq!(status::reason(&refused).as_deref(), Some("ROLE_NOT_ALLOWED"));
    let operator = world.pki.leaf(&world.pki.identity(Role::Operator, "anna"));
    let mut control =
        muster_proto::control::v1::control_service_client::ControlServiceClient::new(world.channel(operator));
    let refused = control.find_lsns(FindLsnsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
}

#[tokio::test]
async fn an_lsn_shows_its_children_and_hands_them_receipts() {
    let world = World::start().await;
    let (lsn, child) = (world.enroll(1), world.enroll(2));
    let (mut link, welcome) = lsn.attach(&world, lsn.hello_as_lsn(LINEAGE, 1)).await;
    assert!(welcome.resync);
    link.update(1, true, vec![child.attach_under(lsn.id, LINEAGE, 1)]).await;
    let ack = link.update_ack().await;
    assert_eq!((ack.number, ack.receipts.len()), (1, 1));
    assert!(world.authority.trust().open(&ack.receipts[0], payload_type::PRESENCE_RECEIPT).is_ok());
    let shown = world.node(child.id).await;
    assert_eq!((shown.state(), shown.role()), (NodeState::Online, fleet::NodeRole::Child));
    assert_eq!(shown.route, [format!("nodes/{}", child.id), format!("nodes/{}", lsn.id)]);
    assert_eq!(shown.place, "192.168.1.0/24 via 127.0.0.1");

    let topology =
        world.fleet().get_topology(fleet::GetTopologyRequest::default()).await.unwrap().into_inner();
    assert_eq!((topology.cells.len(), topology.cells[0].nodes.len(), topology.direct.len()), (1, 2, 0));
    assert_eq!(topology.cells[0].lsn, format!("nodes/{}", lsn.id));

    let request = FindLsnsRequest { prefixes: child.hello().prefixes, ..FindLsnsRequest::default() };
    let found = child.client(&world).find_lsns(request).await.unwrap().into_inner();
    assert_eq!(found.claims, [lsn.claim(LINEAGE, 1)]);
}

#[tokio::test]
async fn a_child_that_its_lsn_reports_as_gone_hears_of_it() {
    let world = World::start().await;
    let (lsn, child) = (world.enroll(1), world.enroll(2));
    let (mut link, _) = lsn.attach(&world, lsn.hello_as_lsn(LINEAGE, 1)).await;
    link.update(1, true, vec![child.attach_under(lsn.id, LINEAGE, 1)]).await;
    link.update_ack().await;
    link.update(2, true, Vec::new()).await;
    let targets = link.until(|frame| match frame {
        Down::Downstream(down) if matches!(down.body, Some(downstream::Body::Missed(_))) => {
            Some(down.targets)
        }
        _ => None,
    });
    assert_eq!(targets.await, [child.id.as_bytes()]);
}

#[tokio::test]
async fn an_attach_that_the_child_did_not_sign_shows_nobody() {
    let world = World::start().await;
    let (lsn, child) = (world.enroll(1), world.enroll(2));
    let (mut link, _) = lsn.attach(&world, lsn.hello_as_lsn(LINEAGE, 1)).await;
    let forged = child.attach_signed_by(&lsn.key, lsn.id, LINEAGE, 1);
    let elsewhere = world.enroll(3).attach_under(child.id, LINEAGE, 1);
    let earlier = world.enroll(4).attach_under(lsn.id, LINEAGE, 0);
    link.update(1, true, vec![forged, elsewhere, earlier]).await;
    assert!(link.update_ack().await.receipts.is_empty());
    let listed = world.fleet().list_nodes(fleet::ListNodesRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.nodes.len(), 1);
}

#[tokio::test]
async fn an_lsn_whose_update_was_lost_attaches_again_and_sends_what_is_missing() {
    let world = World::start().await;
    let (lsn, one, two) = (world.enroll(1), world.enroll(2), world.enroll(3));
    let (mut link, welcome) = lsn.attach(&world, lsn.hello_as_lsn(LINEAGE, 1)).await;
    link.update(1, true, vec![one.attach_under(lsn.id, LINEAGE, 1)]).await;
    link.update_ack().await;
    link.update(3, false, vec![two.attach_under(lsn.id, LINEAGE, 1)]).await;
    let part = link.part().await;
    assert_eq!((part.code, part.description.as_str()), (410, "update 2 is missing"));

    let mut hello = lsn.hello_as_lsn(LINEAGE, 1);
    hello.resume_token = welcome.resume_token;
    let (mut link, welcome) = lsn.attach(&world, hello).await;
    assert_eq!((welcome.known_update, welcome.resync), (1, false));
    link.update(4, true, vec![two.attach_under(lsn.id, LINEAGE, 1)]).await;
    assert_eq!(link.update_ack().await.number, 4);
    assert_eq!(world.node(two.id).await.state(), NodeState::Online);
    let lost = world.node(one.id).await;
    assert_eq!((lost.state(), lost.offline_reason.as_str()), (NodeState::Offline, "lost connection"));
}

#[tokio::test]
async fn an_lsn_resumes_its_numbering_after_topology_crashed() {
    let mut world = World::start().await;
    let (lsn, child) = (world.enroll(1), world.enroll(2));
    let (mut link, welcome) = lsn.attach(&world, lsn.hello_as_lsn(LINEAGE, 1)).await;
    link.update(1, true, vec![child.attach_under(lsn.id, LINEAGE, 1)]).await;
    link.update_ack().await;
    world.crash_and_restart().await;
    assert_eq!(world.node(child.id).await.state(), NodeState::Online);
    let mut hello = lsn.hello_as_lsn(LINEAGE, 1);
    hello.resume_token = welcome.resume_token;
    let (_link, resumed) = lsn.attach(&world, hello).await;
    assert_eq!((resumed.resync, resumed.known_update), (false, 1));
}

#[tokio::test]
async fn an_older_claim_of_a_lineage_and_two_lsns_of_one_subnet_are_told_of_each_other() {
    let world = World::start().await;
    let (first, second, third) = (world.enroll(1), world.enroll(2), world.enroll(3));
    let (mut link, _) = first.attach(&world, first.hello_as_lsn(LINEAGE, 5)).await;
    let (_old, welcome) = second.attach(&world, second.hello_as_lsn(LINEAGE, 4)).await;
    assert_eq!(welcome.rivals[0].claim, Some(first.claim(LINEAGE, 5)));
    assert_eq!(world.node(second.id).await.role(), fleet::NodeRole::Direct);

    let (_other, welcome) = third.attach(&world, third.hello_as_lsn(77, 1)).await;
    assert_eq!(welcome.rivals[0].claim, Some(first.claim(LINEAGE, 5)));
    let told = link.until(|frame| if let Down::Rival(rival) = frame { rival.claim } else { None }).await;
    assert_eq!(told, third.claim(77, 1));
}

#[tokio::test]
async fn an_lsn_that_holds_to_an_overruled_claim_is_heard_and_its_claim_is_judged_anew() {
    let world = World::start().await;
    let (first, second, child) = (world.enroll(1), world.enroll(2), world.enroll(3));
    let (usurper, _) = first.attach(&world, first.hello_as_lsn(LINEAGE, 5)).await;
    let (mut link, _) = second.attach(&world, second.hello_as_lsn(LINEAGE, 4)).await;
    link.update(1, true, vec![child.attach_under(second.id, LINEAGE, 4)]).await;
    let beat = Heartbeat { sequence: 7, ..Heartbeat::default() };
    link.send(attach_request::Frame::Heartbeat(beat)).await;
    let answered =
        link.until(|frame| if let Down::Heartbeat(beat) = frame { Some(beat) } else { None }).await;
    assert_eq!((answered.sequence, answered.answer), (7, true));
    assert_eq!(world.node(second.id).await.role(), fleet::NodeRole::Direct);

    usurper.send(attach_request::Frame::Part(Part { code: 1, ..Part::default() })).await;
    world.until_node(first.id, NodeState::Offline).await;
    assert_eq!(link.part().await.code, 409);
    let (mut link, _) = second.attach(&world, second.hello_as_lsn(LINEAGE, 4)).await;
    link.update(1, true, vec![child.attach_under(second.id, LINEAGE, 4)]).await;
    assert_eq!(link.update_ack().await.number, 1);
    assert_eq!(world.node(child.id).await.role(), fleet::NodeRole::Child);
}

#[tokio::test]
async fn a_second_stream_of_a_node_ends_the_first() {
    let world = World::start().await;
    let node = world.enroll(1);
    let (mut first, _) = node.attach(&world, node.hello()).await;
    let (_second, _) = node.attach(&world, node.hello()).await;
    assert_eq!(first.part().await.code, 409);
    assert!(first.ended().await);
    assert_eq!(world.node(node.id).await.state(), NodeState::Online);
}

#[tokio::test]
async fn refreshing_asks_the_nodes_themselves() {
    let world = World::start().await;
    let (here, mute) = (world.enroll(1), world.enroll(2));
    let (mut link, _) = here.attach(&world, here.hello()).await;
    let (_mute, _) = mute.attach(&world, mute.hello()).await;
    let answer = async {
        let nonce = link
            .down(|body| if let downstream::Body::Probe(probe) = body { Some(probe.nonce) } else { None })
            .await;
        let answer = ProbeAnswer { nonce, ..ProbeAnswer::default() };
        link.send_up(here.upstream(upstream_item::Body::ProbeAnswer(answer))).await;
    };
    let timeout = Some(muster_wire::time::span_to_wire(std::time::Duration::from_secs(1)));
    let request = fleet::RefreshPresenceRequest { timeout, ..Default::default() };
    let mut fleet = world.fleet();
    let (refreshed, ()) = tokio::join!(fleet.refresh_presence(request), answer);
    let refreshed = refreshed.unwrap().into_inner();
    let names = |nodes: &[fleet::Node]| nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&refreshed.answered), [format!("nodes/{}", here.id)]);
    assert_eq!(names(&refreshed.silent), [format!("nodes/{}", mute.id)]);
}

#[tokio::test]
async fn the_event_feed_resumes_where_its_reader_left_it_after_a_crash() {
    let mut world = World::start().await;
    let node = world.enroll(1);
    let request = fleet::WatchEventsRequest { resume_token: String::new(), send_initial_state: true };
    let mut feed = world.fleet().watch_events(request).await.unwrap().into_inner();
    let token = feed.message().await.unwrap().unwrap().resume_token;
    let (link, _) = node.attach(&world, node.hello()).await;
    drop(link);
    world.crash_and_restart().await;
    let request = fleet::WatchEventsRequest { resume_token: token, send_initial_state: false };
    let mut feed = world.fleet().watch_events(request).await.unwrap().into_inner();
    let missed = feed.message().await.unwrap().unwrap();
    let Some(fleet::watch_events_response::Update::Event(event)) = missed.update else { panic!() };
    let Some(fleet::event::Body::NodeChanged(changed)) = event.body else { panic!() };
    assert_eq!(changed.node.unwrap().state(), NodeState::Online);
    assert!(changed.changed_fields.is_empty(), "the node is new");
}

#[tokio::test]
async fn labels_are_the_operators_and_a_stale_etag_is_refused() {
    let world = World::start().await;
    let node = world.enroll(1);
    let (_link, _) = node.attach(&world, node.hello()).await;
    let shown = world.node(node.id).await;
    let request = fleet::UpdateNodeLabelsRequest {
        name: shown.name.clone(),
        set: [("place".to_owned(), "Turku".to_owned())].into(),
        remove: vec!["fleet".to_owned()],
        etag: shown.etag.clone(),
        ..fleet::UpdateNodeLabelsRequest::default()
    };
    let labelled = world.fleet().update_node_labels(request.clone()).await.unwrap().into_inner();
    assert_eq!((labelled.place.as_str(), labelled.labels.contains_key("fleet")), ("Turku", false));
    let stale = world.fleet().update_node_labels(request).await.unwrap_err();
    assert_eq!(status::reason(&stale).as_deref(), Some("ETAG_MISMATCH"));
    let delete = fleet::DeleteNodeRequest { name: shown.name, ..Default::default() };
    let refused = world.fleet().delete_node(delete).await.unwrap_err();
    assert_eq!(status::reason(&refused).as_deref(), Some("NODE_ONLINE"));
}
