//! Enrollment over real TLS on loopback: who gets in, who does not, and what each is told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod world;

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use muster_auth::domain::cooldown::FREE_FAILURES;
use muster_auth::domain::link::REPEAT_WINDOW;
use muster_proto::auth::v1::Role as WireRole;
use muster_types::{NetworkId, NodeId, Role, Token};
use muster_wire::{NodeTicket, TrustStore};
use rustls_pki_types::CertificateDer;
use tonic::Code;
use world::{Backend, DAY, Device, World, reason};

#[tokio::test]
async fn a_device_gets_a_name_a_certificate_and_a_ticket_that_lead_to_the_links_root() {
    let world = World::start().await;
    let (link, device) = (world.node_link().await, Device::new());
    let answer = world.enroll(&link, &device).await.unwrap();
    let node = NodeId::try_from(&answer.node_id[..]).unwrap();
    assert_eq!(answer.role(), WireRole::Node);
    assert_eq!(answer.name, format!("nodes/{node}"));
    assert_eq!(answer.master_addresses, std::slice::from_ref(&world.address));
    let network = NetworkId::try_from(&answer.network_id[..]).unwrap();
    assert_eq!(network, link.root_key.network_id());

    let now = muster_kit::clock::wall();
    let bundle = answer.trust_bundle.clone().unwrap();
    let root = CertificateDer::from(bundle.roots[0].to_vec());
    assert_eq!(muster_kit::tls::root_key(&root).unwrap(), link.root_key);
    let mut trust = TrustStore::new(network, &[root]).unwrap();
    trust.load(&bundle, now).unwrap();
    let ticket = NodeTicket::open(answer.ticket.as_ref().unwrap(), &trust, now).unwrap();
    assert_eq!((ticket.node, ticket.enrollment_generation), (node, 1));
    assert_eq!(ticket.labels["site"], "lab");

    let chain = device.material(&answer).chain;
    let peer = muster_kit::tls::peer_identity(&chain).unwrap();
    assert_eq!(peer.identity.node_id(), Some(node));
    assert_eq!(peer.serial, ticket.certificate_serial);
}

#[tokio::test]
async fn an_operator_enrolls_by_a_link_and_then_makes_links() {
    use muster_auth::join;
    use muster_proto::auth::v1::CreateLinkRequest;
    use muster_proto::auth::v1::link_service_client::LinkServiceClient;
    let world = World::start().await;
    let request = CreateLinkRequest {
        role: WireRole::Operator.into(),
        display_name: "bob".into(),
        ..CreateLinkRequest::default()
    };
    let url = world.admin().await.create_link(request).await.unwrap().into_inner().url;
    let bob = join::enroll(&url.parse().unwrap(), &join::Key::draw().unwrap()).await.unwrap();
    assert_eq!(bob.name, "operators/bob");
    let mut links = LinkServiceClient::new(world.channel(bob.material));
    let request = CreateLinkRequest { role: WireRole::Node.into(), ..CreateLinkRequest::default() };
    let made = links.create_link(request).await.unwrap().into_inner();
    assert_eq!(made.link.unwrap().creator, "operators/bob");
}

#[tokio::test]
async fn a_used_link_enrolls_nobody_else() {
    let world = World::start().await;
    let link = world.node_link().await;
    world.enroll(&link, &Device::new()).await.unwrap();
    let refused = world.enroll(&link, &Device::new()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "LINK_USED"));
}

/// Twenty devices hold the same link and redeem it at once.
async fn race(backend: Backend) {
    let world = World::start_on(backend).await;
    let token = world.node_link().await.token.reveal();
    let racers: Vec<_> = (0..20)
        .map(|_| {
            let (mut client, request) = (world.anonymous(), Device::new().enroll_request(&token));
            tokio::spawn(async move { client.enroll(request).await })
        })
        .collect();
    let mut winners = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Ok(_) => winners += 1,
            Err(refused) => assert_eq!(reason(&refused), "LINK_USED"),
        }
    }
    assert_eq!(winners, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_devices_that_race_for_a_link_one_wins_on_sqlite() {
    race(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_devices_that_race_for_a_link_one_wins_on_postgres() {
    race(Backend::Postgres).await;
}

#[tokio::test]
async fn expired_unknown_and_malformed_links_are_told_apart() {
    let world = World::start().await;
    let link = world.node_link().await;
    world.pass(DAY);
    let refused = world.enroll(&link, &Device::new()).await.unwrap_err();
    assert_eq!(reason(&refused), "LINK_EXPIRED");
    let mut client = world.anonymous();
    let unknown = Token::from_bytes([7; 16]).reveal();
    let refused = client.enroll(Device::new().enroll_request(&unknown)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "LINK_UNKNOWN"));
    for malformed in ["", "abc", &"1".repeat(26), &"a".repeat(27)] {
        let refused = client.enroll(Device::new().enroll_request(malformed)).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "LINK_MALFORMED"));
    }
}

#[tokio::test]
async fn a_lost_answer_is_repeated_for_the_same_key_only() {
    let world = World::start().await;
    let (link, device) = (world.node_link().await, Device::new());
    let first = world.enroll(&link, &device).await.unwrap();
    let again = world.enroll(&link, &device).await.unwrap();
    assert_eq!(again.certificate_chain, first.certificate_chain);
    assert_eq!(again.node_id, first.node_id);
    let other = world.enroll(&link, &Device::new()).await.unwrap_err();
    assert_eq!(reason(&other), "LINK_USED");
    world.pass(REPEAT_WINDOW + DAY);
    let late = world.enroll(&link, &device).await.unwrap_err();
    assert_eq!(reason(&late), "LINK_USED");
}

#[tokio::test]
async fn a_device_that_enrolls_again_with_its_key_keeps_its_id_and_rises_in_generation() {
    let world = World::start().await;
    let device = Device::new();
    let first = world.enroll(&world.node_link().await, &device).await.unwrap();
    let again = world.enroll(&world.node_link().await, &device).await.unwrap();
    assert_eq!(again.node_id, first.node_id);
    assert_ne!(again.certificate_chain[0], first.certificate_chain[0]);
    let principal = world.auth.store().principal(&again.name).await.unwrap().unwrap().record;
    assert_eq!(principal.generation, 2);
}

#[tokio::test]
async fn a_request_that_proves_nothing_leaves_the_link_open() {
    let world = World::start().await;
    let (link, device) = (world.node_link().await, Device::new());
    let token = link.token.reveal();
    let mut client = world.anonymous();
    let good = device.enroll_request(&token);

    let mut foreign_proof = good.clone();
    let keys = Device::new().node_keys(b"another request");
    foreign_proof.node_keys = Some(keys);
    let mut bent = good.clone();
    let mut der = good.certificate_request.to_vec();
    *der.last_mut().unwrap() ^= 1;
    bent.certificate_request = Bytes::from(der);
    for request in [foreign_proof, bent] {
        let refused = client.enroll(request).await.unwrap_err();
        assert_eq!(reason(&refused), "REQUEST_BAD_PROOF");
    }

    let mut keyless = good.clone();
    keyless.node_keys = None;
    let mut rubbish = good.clone();
    rubbish.certificate_request = Bytes::from_static(b"rubbish");
    let mut trailing = good.clone();
    trailing.certificate_request = [&good.certificate_request[..], b"x"].concat().into();
    for request in [keyless, rubbish, trailing] {
        let refused = client.enroll(request).await.unwrap_err();
        assert_eq!(reason(&refused), "REQUEST_MALFORMED");
    }
    client.enroll(good).await.unwrap();
}

#[tokio::test]
async fn nobody_chooses_his_own_name() {
    use rcgen::{CertificateParams, SanType};
    let world = World::start().await;
    let (link, device) = (world.node_link().await, Device::new());
    let network = link.root_key.network_id();
    let mut params = CertificateParams::new(vec!["auth.muster".to_owned()]).unwrap();
    let wish = format!("spiffe://{network}.muster/operator/alice");
    params.subject_alt_names.push(SanType::URI(wish.try_into().unwrap()));
    let der = Bytes::copy_from_slice(params.serialize_request(&device.key).unwrap().der());
    let mut request = device.enroll_request(&link.token.reveal());
    request.node_keys = Some(device.node_keys(&der));
    request.certificate_request = der;
    let answer = world.anonymous().enroll(request).await.unwrap().into_inner().credentials.unwrap();
    let peer = muster_kit::tls::peer_identity(&device.material(&answer).chain).unwrap();
    assert_eq!(peer.identity.role, Role::Node);
    let leaf = String::from_utf8_lossy(&answer.certificate_chain[0]).into_owned();
    assert!(!leaf.contains("auth.muster") && !leaf.contains("alice"));
}

#[tokio::test]
async fn ids_and_serials_never_repeat() {
    let world = World::start().await;
    let mut seen = HashSet::new();
    for _ in 0..20 {
        let device = Device::new();
        let answer = world.enroll(&world.node_link().await, &device).await.unwrap();
        let peer = muster_kit::tls::peer_identity(&device.material(&answer).chain).unwrap();
        assert_eq!(peer.serial.len(), 16);
        assert!(seen.insert(answer.node_id.to_vec()) && seen.insert(peer.serial));
    }
}

#[tokio::test]
async fn a_source_of_unknown_tokens_must_pause_and_learns_for_how_long() {
    let world = World::start().await;
    let mut client = world.anonymous();
    for n in 0..FREE_FAILURES {
        let token = Token::from_bytes([n as u8; 16]).reveal();
        let refused = client.enroll(Device::new().enroll_request(&token)).await.unwrap_err();
        assert_eq!(reason(&refused), "LINK_UNKNOWN");
    }
    let refused = world.enroll(&world.node_link().await, &Device::new()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "COOL_DOWN"));
    let wait = muster_kit::status::retry_after(&refused).unwrap();
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(2));
}
