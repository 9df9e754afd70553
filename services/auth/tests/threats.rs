//! Threats to enrollment, one test named after each.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod world;

use bytes::Bytes;
use muster_auth::domain::link::{Binding, Terms, node_terms};
use muster_auth::domain::revocation::Reason;
use muster_auth::service::Wanted;
use muster_kit::connect::{AUTH, Master};
use muster_kit::tls::ClientTls;
use muster_proto::auth::v1::EnrollRequest;
use muster_proto::auth::v1::enrollment_service_client::EnrollmentServiceClient;
use muster_types::{EnrollmentLink, Identity, Role};
use rcgen::{CertificateParams, DnType};
use tonic::Code;
use world::{Backend, DAY, Device, World, reason};

async fn link(world: &World, terms: Terms) -> EnrollmentLink {
    let operator = Identity {
        network: world.auth.authority().network(),
        role: Role::Operator,
        name: "alice".to_owned(),
    };
    let wanted = Wanted { terms, request_id: None, validate_only: false };
    world.auth.create_link(&operator, &wanted).await.unwrap().secret.unwrap().parse().unwrap()
}

async fn refusal(world: &World, request: EnrollRequest) -> String {
    reason(&world.anonymous().enroll(request).await.unwrap_err())
}

async fn only_link(world: &World) -> muster_auth::domain::Link {
    world.auth.links(None, 1).await.unwrap().remove(0)
}

#[tokio::test]
async fn a_stolen_link_that_the_thief_used_first_is_noticed_when_its_owner_comes() {
    let world = World::start().await;
    let (owner, thief) = (Device::new(), Device::new());
    let link = link(&world, node_terms()).await;
    world.enroll(&link, &thief).await.unwrap();
    let refused = world.enroll(&link, &owner).await.unwrap_err();
    assert_eq!(reason(&refused), "LINK_USED");
    let contest = only_link(&world).await.contest.unwrap();
    assert_eq!(contest.count, 1);
    assert!(contest.source.contains("127.0.0.1") && contest.source.contains("host.example.org"));
    let log = world.auth.audit(0, 1_000).await.unwrap();
    let refused = log.iter().rfind(|entry| entry.action == "refuse").unwrap();
    assert!(refused.subject.starts_with("links/") && refused.detail.contains("used already"), "{refused:?}");
    // The thief's lost answer is the same key again, and no contest.
    world.enroll(&link, &thief).await.unwrap();
    assert_eq!(only_link(&world).await.contest.unwrap().count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_race_for_a_link_as_many_win_as_it_has_uses() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let world = std::sync::Arc::new(World::start_on(backend).await);
        for (use_limit, racers) in [(1, 12), (5, 12)] {
            let link = link(&world, Terms { use_limit, ..node_terms() }).await;
            let racing: Vec<_> = (0..racers)
                .map(|_| {
                    let (world, link) = (world.clone(), link.clone());
                    tokio::spawn(async move { world.enroll(&link, &Device::new()).await })
                })
                .collect();
            let mut names = std::collections::BTreeSet::new();
            for racer in racing {
                match racer.await.unwrap() {
                    Ok(credentials) => assert!(names.insert(credentials.name)),
                    Err(refused) => {
                        assert!(
                            ["LINK_USED", "CONFLICT"].contains(&reason(&refused).as_str()),
                            "{refused:?}"
                        );
                    }
                }
            }
            assert_eq!(names.len(), use_limit as usize, "{backend:?}");
            assert_eq!(only_link(&world).await.use_count, use_limit);
        }
    }
}

#[tokio::test]
async fn a_link_that_is_bound_to_another_host_serial_or_key_does_not_enroll_and_is_not_used_up() {
    let world = World::start().await;
    let device = Device::new();
    let request = |link: &EnrollmentLink| EnrollRequest {
        hardware_serial: "S-1".into(),
        ..device.enroll_request(&link.token.reveal())
    };
    let bindings = [
        Binding { host_name: "elsewhere.example.org".into(), ..Binding::default() },
        Binding { hardware_serial: "S-2".into(), ..Binding::default() },
        Binding { key: Some(muster_auth::domain::request::KeyHash([7; 32])), ..Binding::default() },
    ];
    for binding in bindings {
        let link = link(&world, Terms { binding, ..node_terms() }).await;
        assert_eq!(refusal(&world, request(&link)).await, "LINK_BOUND");
        assert_eq!(only_link(&world).await.use_count, 0);
    }
    let binding =
        Binding { host_name: "HOST.example.org".into(), hardware_serial: "S-1".into(), ..Binding::default() };
    let link = link(&world, Terms { binding, ..node_terms() }).await;
    world.anonymous().enroll(request(&link)).await.unwrap();
}

#[tokio::test]
async fn a_token_with_another_key_than_the_one_it_was_used_by_gets_nothing() {
    let world = World::start().await;
    let (device, thief) = (Device::new(), Device::new());
    let link = world.node_link().await;
    let first = world.enroll(&link, &device).await.unwrap();
    // The thief heard the whole request: without the key it cannot use the answer, and with its own it gets none.
    let mut replayed = device.enroll_request(&link.token.reveal());
    let repeated =
        world.anonymous().enroll(replayed.clone()).await.unwrap().into_inner().credentials.unwrap();
    assert_eq!(repeated.certificate_chain, first.certificate_chain);
    replayed.certificate_request = thief.certificate_request();
    assert_eq!(refusal(&world, replayed).await, "REQUEST_BAD_PROOF");
}

#[tokio::test]
async fn a_request_that_asks_for_somebody_elses_name_gets_its_own() {
    let world = World::start().await;
    let device = Device::new();
    let mut params = CertificateParams::new(vec!["topology.muster".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "operators/alice");
    let spiffe = format!("spiffe://{}.muster/operator/alice", world.auth.authority().network());
    params.subject_alt_names.push(rcgen::SanType::URI(spiffe.try_into().unwrap()));
    let request = params.serialize_request(&device.key).unwrap();
    let der = Bytes::copy_from_slice(request.der());
    let mut enroll = device.enroll_request(&world.node_link().await.token.reveal());
    enroll.node_keys = Some(device.node_keys(&der));
    enroll.certificate_request = der;
    let credentials = world.anonymous().enroll(enroll).await.unwrap().into_inner().credentials.unwrap();
    let peer = muster_kit::tls::peer_identity(&device.material(&credentials).chain).unwrap();
    assert_eq!(peer.identity.role, Role::Node);
    assert_eq!(peer.identity.resource_name(), credentials.name);
    let leaf = String::from_utf8_lossy(&credentials.certificate_chain[0]).into_owned();
    assert!(!leaf.contains("topology.muster") && !leaf.contains("alice"));
}

#[tokio::test]
async fn oversized_malformed_and_cut_requests_are_refused_and_use_nothing_up() {
    let world = World::start().await;
    let device = Device::new();
    let link = world.node_link().await;
    let good = device.certificate_request();
    let mut wrong =
        vec![Bytes::new(), Bytes::from(vec![0x30; 5_000]), Bytes::from_static(b"\x30\x80\x00\x00")];
    wrong.extend((0..good.len()).step_by(7).map(|end| good.slice(..end)));
    for certificate_request in wrong {
        let request = EnrollRequest { certificate_request, ..device.enroll_request(&link.token.reveal()) };
        let refused = world.anonymous().enroll(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    }
    let huge = EnrollRequest {
        certificate_request: Bytes::from(vec![0; 200_000]),
        ..device.enroll_request(&link.token.reveal())
    };
    assert!(world.anonymous().enroll(huge).await.is_err());
    world.enroll(&link, &device).await.unwrap();
}

#[tokio::test]
async fn a_master_with_an_unknown_root_is_not_spoken_to() {
    let (world, elsewhere) = (World::start().await, World::start().await);
    let tls = ClientTls::trusting(elsewhere.auth.authority().root_key()).unwrap();
    let mut client = EnrollmentServiceClient::new(Master::new([world.address.clone()], tls).service(AUTH));
    let link = world.node_link().await;
    let refused = client.enroll(Device::new().enroll_request(&link.token.reveal())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert_eq!(only_link(&world).await.use_count, 0, "the token never left the device");
}

#[tokio::test]
async fn by_a_wrong_clock_a_link_ends_and_a_certificate_of_the_future_still_renews() {
    let world = World::start().await;
    let device = Device::new();
    let link = world.node_link().await;
    world.pass(2 * DAY);
    assert_eq!(reason(&world.enroll(&link, &device).await.unwrap_err()), "LINK_EXPIRED");
    let late = world.enroll(&world.node_link().await, &device).await.unwrap();
    // The master's clock is set back: what it issued lies in its future, and renews all the same.
    world.pass_back(2 * DAY);
    world.renew(&device, &late.certificate_chain[0]).await.unwrap();
}

#[tokio::test]
async fn a_lost_device_renews_to_stay_reachable_and_what_it_gets_is_lost_too() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let world = World::start_on(backend).await;
        let device = Device::new();
        let first = world.enroll(&world.node_link().await, &device).await.unwrap();
        world.revoke(&first.name, Reason::Lost).await;
        world.pass(60 * DAY);
        world.renew(&device, &first.certificate_chain[0]).await.unwrap();
        let list = world.auth.revocation_list(0).await.unwrap();
        assert_eq!(list.entries.len(), 2);
        assert!(list.entries.iter().all(|entry| entry.reason == Reason::Lost && entry.node().is_some()));
        // Found again, it is as before; compromised, it never renews.
        world.auth.reinstate("operators/alice", &first.name, "in the drawer").await.unwrap();
        assert!(world.auth.revocation_list(0).await.unwrap().entries.is_empty());
        let second = world.renew(&device, &first.certificate_chain[0]).await.unwrap();
        world.revoke(&first.name, Reason::KeyCompromise).await;
        let refused = world.renew(&device, &second.certificate_chain[0]).await.unwrap_err();
        assert_eq!(reason(&refused), "KEY_REVOKED");
    }
}

#[tokio::test]
async fn a_challenge_for_scep_is_no_link_to_become_a_node() {
    let world = World::start().await;
    let operator =
        Identity { network: world.auth.authority().network(), role: Role::Operator, name: "a".into() };
    let terms = muster_auth::domain::link::challenge_terms("printer-3");
    let wanted = Wanted { terms, request_id: None, validate_only: false };
    let challenge = world.auth.create_link(&operator, &wanted).await.unwrap().secret.unwrap();
    let request = Device::new().enroll_request(&challenge);
    assert_eq!(refusal(&world, request).await, "LINK_PROTOCOL");
}

#[tokio::test]
async fn an_enrollment_that_needs_an_operators_word_waits_for_it() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let world = World::start_on(backend).await;
        let (device, other) = (Device::new(), Device::new());
        let terms = Terms { needs_approval: true, use_limit: 5, ..node_terms() };
        let link = link(&world, terms).await;
        for _ in 0..2 {
            let waits = world.enroll(&link, &device).await.unwrap_err();
            assert_eq!(reason(&waits), "APPROVAL_PENDING");
        }
        assert_eq!(reason(&world.enroll(&link, &other).await.unwrap_err()), "APPROVAL_PENDING");
        let requests = world.auth.approvals(10).await.unwrap();
        assert_eq!(requests.len(), 2);
        let operator =
            Identity { network: world.auth.authority().network(), role: Role::Operator, name: "bob".into() };
        let of = |device: &Device| {
            let spki = rcgen::PublicKeyData::subject_public_key_info(&device.key);
            let hash = ring::digest::digest(&ring::digest::SHA256, &spki);
            requests.iter().find(|request| request.key.0 == hash.as_ref()).unwrap().id.clone()
        };
        world.auth.decide(&operator, &of(&device), true).await.unwrap();
        world.auth.decide(&operator, &of(&other), false).await.unwrap();
        assert!(world.auth.decide(&operator, &of(&other), true).await.is_err());
        world.enroll(&link, &device).await.unwrap();
        assert_eq!(reason(&world.enroll(&link, &other).await.unwrap_err()), "APPROVAL_DENIED");
    }
}
