//! Renewal by proof of possession, on a clock that the test moves.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod world;

use std::time::Duration;

use bytes::Bytes;
use muster_auth::domain::revocation::Reason;
use muster_auth::join;
use muster_proto::auth::v1::{CreateRenewalChallengeRequest, RenewRequest};
use muster_types::Role;
use tonic::Code;
use world::{DAY, Device, World, reason};

/// A certificate's life.
const LIFE: Duration = Duration::from_secs(14 * 24 * 3_600);

async fn challenge(world: &World) -> Bytes {
    let request = CreateRenewalChallengeRequest {};
    world.anonymous().create_renewal_challenge(request).await.unwrap().into_inner().challenge
}

async fn refusal(world: &World, request: RenewRequest) -> String {
    reason(&world.anonymous().renew(request).await.unwrap_err())
}

#[tokio::test]
async fn sixty_days_after_expiry_a_device_renews_and_keeps_name_and_labels() {
    let world = World::start().await;
    let device = Device::new();
    let first = world.enroll(&world.node_link().await, &device).await.unwrap();
    world.pass(LIFE + 60 * DAY);
    let renewed = world.renew(&device, &first.certificate_chain[0]).await.unwrap();
    assert_eq!(renewed.name, first.name);
    assert!(renewed.ticket.is_some());
    let principal = world.auth.store().principal(&renewed.name).await.unwrap().unwrap().record;
    assert_eq!((principal.generation, principal.labels["site"].as_str()), (1, "lab"));
    assert_eq!(principal.host_name, "host.example.org");
}

#[tokio::test]
async fn a_hundred_and_eighty_one_days_after_expiry_it_is_too_late() {
    let world = World::start().await;
    let device = Device::new();
    let first = world.enroll(&world.node_link().await, &device).await.unwrap();
    world.pass(LIFE + 179 * DAY);
    world.renew(&device, &first.certificate_chain[0]).await.unwrap();
    world.pass(2 * DAY);
    let refused = world.renew(&device, &first.certificate_chain[0]).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "RENEWAL_TOO_LATE"));
}

#[tokio::test]
async fn a_device_may_change_its_key_on_the_way() {
    let world = World::start().await;
    let (old, new) = (Device::new(), Device::new());
    let first = world.enroll(&world.node_link().await, &old).await.unwrap();
    let request = new.renew_request(&first.certificate_chain[0], challenge(&world).await, &old.key);
    let renewed = world.anonymous().renew(request).await.unwrap().into_inner().credentials.unwrap();
    assert_eq!(renewed.node_id, first.node_id);
    world.renew(&new, &renewed.certificate_chain[0]).await.unwrap();
}

#[tokio::test]
async fn without_the_certificates_key_there_is_no_renewal() {
    let world = World::start().await;
    let (device, thief) = (Device::new(), Device::new());
    let first = world.enroll(&world.node_link().await, &device).await.unwrap();
    let certificate = &first.certificate_chain[0];
    let stolen = thief.renew_request(certificate, challenge(&world).await, &thief.key);
    assert_eq!(refusal(&world, stolen).await, "REQUEST_BAD_PROOF");

    // A proof that was overheard fits one request and no other.
    let mut replayed = device.renew_request(certificate, challenge(&world).await, &device.key);
    replayed.certificate_request = thief.certificate_request();
    assert_eq!(refusal(&world, replayed).await, "REQUEST_BAD_PROOF");
}

#[tokio::test]
async fn a_challenge_lasts_a_minute_and_is_ours() {
    let world = World::start().await;
    let device = Device::new();
    let first = world.enroll(&world.node_link().await, &device).await.unwrap();
    let certificate = &first.certificate_chain[0];
    let old = challenge(&world).await;
    world.pass(Duration::from_secs(62));
    let late = device.renew_request(certificate, old.clone(), &device.key);
    assert_eq!(refusal(&world, late).await, "CHALLENGE_EXPIRED");
    let mut postponed = old.to_vec();
    postponed[7] ^= 1;
    for foreign in [Bytes::new(), Bytes::from_static(&[0; 56]), Bytes::from(postponed)] {
        let request = device.renew_request(certificate, foreign, &device.key);
        assert_eq!(refusal(&world, request).await, "CHALLENGE_INVALID");
    }
}

#[tokio::test]
async fn another_networks_certificate_is_not_renewed() {
    let (world, elsewhere) = (World::start().await, World::start().await);
    let device = Device::new();
    let foreign = elsewhere.enroll(&elsewhere.node_link().await, &device).await.unwrap();
    let refused = world.renew(&device, &foreign.certificate_chain[0]).await.unwrap_err();
    assert_eq!(reason(&refused), "CERTIFICATE_INVALID");
}

#[tokio::test]
async fn whoever_is_revoked_neither_renews_nor_enrolls_with_that_key_again() {
    let world = World::start().await;
    let (link, device) = (world.node_link().await, Device::new());
    let first = world.enroll(&link, &device).await.unwrap();
    world.revoke(&first.name, Reason::KeyCompromise).await;
    let refused = world.renew(&device, &first.certificate_chain[0]).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "KEY_REVOKED"));
    let repeated = world.enroll(&link, &device).await.unwrap_err();
    assert_eq!(reason(&repeated), "KEY_REVOKED");
    let anew = world.enroll(&world.node_link().await, &device).await.unwrap_err();
    assert_eq!(reason(&anew), "KEY_REVOKED");
}

#[tokio::test]
async fn a_service_in_another_process_joins_by_its_file_and_resumes_without_a_link() {
    use muster_auth::bootstrap;
    use muster_kit::shutdown::Shutdown;
    use muster_kit::tls::CallerCertificate::Required;
    use muster_proto::auth::v1::GetTrustBundleRequest;
    use muster_proto::auth::v1::authority_service_client::AuthorityServiceClient;
    let world = World::start().await;
    let (link, state) = (world.config.join_file("topology"), world.folder.path().join("topology/tls.pem"));
    bootstrap::write_join_link(&world.auth, "topology", &link).await.unwrap();
    let shutdown = Shutdown::new();
    join::join(&link, state.clone(), Required, &shutdown).await.unwrap();
    // The link is spent: what counts now is the state.
    let tls = join::join(&link, state.clone(), Required, &shutdown).await.unwrap();
    let channel = muster_kit::connect::Master::new([world.address.clone()], tls.client);
    let mut authority = AuthorityServiceClient::new(channel.service(muster_kit::connect::AUTH));
    let bundle = authority.get_trust_bundle(GetTrustBundleRequest {}).await.unwrap().into_inner();
    assert_eq!(bundle.trust_bundle.unwrap().signers.len(), 3);
    std::fs::remove_file(state).unwrap();
    let spent = join::join(&link, world.folder.path().join("new.pem"), Required, &shutdown).await;
    assert!(matches!(spent, Err(join::JoinError::Refused(status)) if reason(&status) == "LINK_USED"));
    shutdown.trigger();
}

#[tokio::test]
async fn the_local_admins_file_is_good_for_a_client() {
    use muster_auth::bootstrap;
    use muster_auth::join::pem::{State, from_pem};
    use muster_kit::shutdown::Shutdown;
    use muster_proto::auth::v1::ListLinksRequest;
    use muster_proto::auth::v1::link_service_client::LinkServiceClient;
    let world = World::start().await;
    let (file, shutdown) = (world.config.operator_file(), Shutdown::new());
    bootstrap::local_admin(&world.auth, file.clone(), &shutdown).await.unwrap();
    shutdown.trigger();
    let Some(State::Admitted(material)) = from_pem(&std::fs::read_to_string(file).unwrap()) else {
        panic!("the file holds no credentials");
    };
    let peer = muster_kit::tls::peer_identity(&material.chain).unwrap();
    assert_eq!((peer.identity.role, peer.identity.name.as_str()), (Role::Admin, "local"));
    let mut links = LinkServiceClient::new(world.channel(material.clone()));
    links.list_links(ListLinksRequest::default()).await.unwrap();
    let renewed = join::renew(&material, std::slice::from_ref(&world.address), "").await.unwrap();
    assert_eq!(renewed.name, "admins/local");
}
