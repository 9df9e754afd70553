//! Who may call what, and what links and signatures they get.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod world;

use std::time::Duration;

use muster_proto::auth::v1::admission_service_client::AdmissionServiceClient;
use muster_proto::auth::v1::audit_service_client::AuditServiceClient;
use muster_proto::auth::v1::authority_service_client::AuthorityServiceClient;
use muster_proto::auth::v1::link_service_client::LinkServiceClient;
use muster_proto::auth::v1::{
    Contact, CreateLinkRequest, GetLinkRequest, GetTrustBundleRequest, LinkState, ListAdmissionsRequest,
    ListAuditEntriesRequest, ListLinksRequest, Payload, PublishContactsRequest, RevokeLinkRequest,
    Role as WireRole, SignRequest,
};
use muster_proto::payload_type::{CLAIM, NODE_TICKET, TASK, UPTIME_TICKET};
use muster_proto::trust::v1::Envelope;
use muster_types::Role;
use muster_wire::TrustStore;
use rustls_pki_types::CertificateDer;
use tonic::Code;
use world::{Device, World, reason};

fn node_link() -> CreateLinkRequest {
    CreateLinkRequest { role: WireRole::Node.into(), ..CreateLinkRequest::default() }
}

fn payload(payload_type: &str) -> Payload {
    Payload { payload_type: payload_type.to_owned(), payload: "something".into() }
}

#[tokio::test]
async fn a_nodes_certificate_opens_neither_links_nor_signatures() {
    let world = World::start().await;
    let device = Device::new();
    let answer = world.enroll(&world.node_link().await, &device).await.unwrap();
    let channel = world.channel(device.material(&answer));
    let mut links = LinkServiceClient::new(channel.clone());
    let refused = links.list_links(ListLinksRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = links.create_link(node_link()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let sign = SignRequest { payloads: vec![payload(TASK)] };
    let refused = AuthorityServiceClient::new(channel).sign(sign).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn what_topology_publishes_stands_in_the_answer_of_the_next_enrollment() {
    let world = World::start().await;
    let mut admissions = AdmissionServiceClient::new(world.channel_of(Role::Service, "topology").await);
    let claim = Envelope { payload_type: CLAIM.to_owned(), payload: "signed".into(), ..Envelope::default() };
    let contacts = vec![Contact { claim: Some(claim.clone()), observed_ip: vec![127, 0, 0, 1].into() }];
    admissions.publish_contacts(PublishContactsRequest { contacts }).await.unwrap();
    let answer = world.enroll(&world.node_link().await, &Device::new()).await.unwrap();
    assert_eq!(answer.contacts, [claim]);
    // And topology learns of who was enrolled.
    let listed = admissions.list_admissions(ListAdmissionsRequest::default()).await.unwrap().into_inner();
    let [admission] = &listed.admissions[..] else { panic!("one node, not {listed:?}") };
    assert_eq!((&admission.node_id, admission.labels["site"].as_str()), (&answer.node_id, "lab"));
    let after_revision = listed.last_revision;
    let rest = ListAdmissionsRequest { after_revision, page_size: 0 };
    let rest = admissions.list_admissions(rest).await.unwrap().into_inner();
    assert_eq!((rest.admissions.len(), rest.last_revision), (0, after_revision));

    let mut operator = AdmissionServiceClient::new(world.channel_of(Role::Operator, "alice").await);
    let refused = operator.list_admissions(ListAdmissionsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn an_operators_certificate_signs_nothing() {
    let world = World::start().await;
    let mut authority = AuthorityServiceClient::new(world.channel_of(Role::Operator, "alice").await);
    let refused = authority.sign(SignRequest { payloads: vec![payload(TASK)] }).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn without_a_certificate_only_enrollment_is_open() {
    use muster_kit::connect::{AUTH, Master};
    use muster_kit::tls::ClientTls;
    let world = World::start().await;
    let tls = ClientTls::trusting(world.auth.authority().root_key()).unwrap();
    let channel = Master::new([world.address.clone()], tls).service(AUTH);
    let refused =
        LinkServiceClient::new(channel.clone()).list_links(ListLinksRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let refused =
        AuthorityServiceClient::new(channel).get_trust_bundle(GetTrustBundleRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn operators_and_cmdbs_make_links_for_devices_only_and_an_admin_for_all() {
    let world = World::start().await;
    let mut admin = LinkServiceClient::new(world.channel_of(Role::Admin, "eve").await);
    for creator in [Role::Cmdb, Role::Operator] {
        let mut links = LinkServiceClient::new(world.channel_of(creator, "somebody").await);
        links.create_link(node_link()).await.unwrap();
        for role in
            [WireRole::Admin, WireRole::Operator, WireRole::Auditor, WireRole::Cmdb, WireRole::Service]
        {
            let request =
                CreateLinkRequest { role: role.into(), display_name: "relay".into(), ..node_link() };
            let refused = links.create_link(request.clone()).await.unwrap_err();
            assert_eq!(reason(&refused), "LINK_NOT_ALLOWED");
            admin.create_link(request).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_auditor_sees_links_and_the_audit_log_and_changes_nothing() {
    let world = World::start().await;
    let made = world.operator().await.create_link(node_link()).await.unwrap().into_inner();
    let name = made.link.unwrap().name;
    let channel = world.channel_of(Role::Auditor, "noa").await;
    let mut links = LinkServiceClient::new(channel.clone());
    assert_eq!(links.get_link(GetLinkRequest { name: name.clone() }).await.unwrap().into_inner().name, name);
    let mut audit = AuditServiceClient::new(channel);
    let log = audit.list_audit_entries(ListAuditEntriesRequest::default()).await.unwrap().into_inner();
    assert!(log.entries.iter().any(|entry| entry.action == "create-link" && entry.subject == name));
    let refused = links.revoke_link(RevokeLinkRequest { name }).await.unwrap_err();
    assert_eq!(reason(&refused), "ROLE_NOT_ALLOWED");
    let mut operator = AuditServiceClient::new(world.channel_of(Role::Operator, "alice").await);
    let refused = operator.list_audit_entries(ListAuditEntriesRequest::default()).await.unwrap_err();
    assert_eq!(reason(&refused), "ROLE_NOT_ALLOWED");
}

#[tokio::test]
async fn an_operator_takes_no_other_person_out_and_an_admin_does() {
    use muster_proto::auth::v1::RevokeCertificateRequest;
    use muster_proto::auth::v1::revocation_service_client::RevocationServiceClient;
    use muster_proto::auth::v1::revoke_certificate_request::Subject;
    let world = World::start().await;
    let request = |name: &str| RevokeCertificateRequest {
        subject: Some(Subject::Name(name.to_owned())),
        ..RevokeCertificateRequest::default()
    };
    world.auth.issue(Role::Operator, "bob").await.unwrap();
    let mut alice = RevocationServiceClient::new(world.channel_of(Role::Operator, "alice").await);
    let refused = alice.revoke_certificate(request("operators/bob")).await.unwrap_err();
    assert_eq!(reason(&refused), "REVOCATION_NOT_ALLOWED");
    let node = world.enroll(&world.node_link().await, &Device::new()).await.unwrap();
    alice.revoke_certificate(request(&node.name)).await.unwrap();
    let mut admin = RevocationServiceClient::new(world.channel_of(Role::Admin, "eve").await);
    admin.revoke_certificate(request("operators/bob")).await.unwrap();
}

#[tokio::test]
async fn a_repeated_call_returns_the_first_ones_link_without_its_secret() {
    let world = World::start().await;
    let mut links = world.operator().await;
    let request_id = "01939c9e-1f00-7000-8000-000000000001".to_owned();
    let request = CreateLinkRequest { request_id, ..node_link() };
    let first = links.create_link(request.clone()).await.unwrap().into_inner();
    let again = links.create_link(request).await.unwrap().into_inner();
    assert!(first.url.contains("/enroll#1.") && again.url.is_empty());
    assert_eq!(first.link.unwrap().name, again.link.unwrap().name);
    let refused = links.create_link(CreateLinkRequest { request_id: "x".into(), ..node_link() }).await;
    assert_eq!(reason(&refused.unwrap_err()), "REQUEST_ID_INVALID");
}

#[tokio::test]
async fn what_is_only_validated_is_not_made() {
    let world = World::start().await;
    let mut links = world.operator().await;
    let dry = CreateLinkRequest { validate_only: true, ..node_link() };
    assert!(links.create_link(dry.clone()).await.unwrap().into_inner().url.is_empty());
    assert!(links.list_links(ListLinksRequest::default()).await.unwrap().into_inner().links.is_empty());
    let wrong = CreateLinkRequest {
        time_to_live: Some(prost_types::Duration { seconds: 31 * 24 * 3_600, nanos: 0 }),
        ..dry
    };
    assert_eq!(reason(&links.create_link(wrong).await.unwrap_err()), "LINK_TERMS_INVALID");
}

#[tokio::test]
async fn links_are_listed_in_pages_and_shown_as_they_are() {
    let world = World::start().await;
    let mut links = world.operator().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(links.create_link(node_link()).await.unwrap().into_inner().link.unwrap().name);
    }
    links.revoke_link(RevokeLinkRequest { name: made[0].clone() }).await.unwrap();
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let page =
            links.list_links(ListLinksRequest { page_size: 2, page_token }).await.unwrap().into_inner();
        assert!(page.links.len() <= 2);
        seen.extend(page.links);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(seen.iter().map(|link| &link.name).eq(made.iter().rev()));
    assert_eq!(seen[4].state(), LinkState::Revoked);
    assert_eq!(seen[0].state(), LinkState::Open);
    world.pass(Duration::from_secs(25 * 3_600));
    let old = links.get_link(GetLinkRequest { name: made[1].clone() }).await.unwrap().into_inner();
    assert_eq!(old.state(), LinkState::Expired);
    for (name, expected) in [("links/none", "NOT_FOUND"), ("nodes/x", "NAME_INVALID")] {
        let refused = links.get_link(GetLinkRequest { name: name.into() }).await.unwrap_err();
        assert_eq!(reason(&refused), expected);
    }
    let bent = ListLinksRequest { page_size: 0, page_token: "%".into() };
    assert_eq!(reason(&links.list_links(bent).await.unwrap_err()), "PAGE_TOKEN_INVALID");
}

#[tokio::test]
async fn a_revoked_link_enrolls_nobody() {
    let world = World::start().await;
    let mut links = world.operator().await;
    let made = links.create_link(node_link()).await.unwrap().into_inner();
    links.revoke_link(RevokeLinkRequest { name: made.link.unwrap().name }).await.unwrap();
    let refused = world.enroll(&made.url.parse().unwrap(), &Device::new()).await.unwrap_err();
    assert_eq!(reason(&refused), "LINK_REVOKED");
}

#[tokio::test]
async fn topology_has_a_thousand_payloads_signed_in_their_order() {
    let world = World::start().await;
    let mut authority = AuthorityServiceClient::new(world.channel_of(Role::Service, "topology").await);
    let payloads: Vec<_> = (0..1_000)
        .map(|n: u32| Payload {
            payload_type: if n.is_multiple_of(2) { TASK } else { UPTIME_TICKET }.to_owned(),
            payload: n.to_string().into(),
        })
        .collect();
    let signed = authority.sign(SignRequest { payloads: payloads.clone() }).await.unwrap().into_inner();
    let bundle = authority.get_trust_bundle(GetTrustBundleRequest {}).await.unwrap().into_inner();
    let (bundle, network) = (bundle.trust_bundle.unwrap(), world.auth.authority().network());
    let mut trust = TrustStore::new(network, &[CertificateDer::from(bundle.roots[0].to_vec())]).unwrap();
    trust.load(&bundle, muster_kit::clock::wall()).unwrap();
    assert_eq!(signed.envelopes.len(), payloads.len());
    for (n, envelope) in signed.envelopes.iter().enumerate() {
        let expected = if n.is_multiple_of(2) { TASK } else { UPTIME_TICKET };
        assert_eq!(trust.open(envelope, expected).unwrap(), n.to_string());
    }
}

#[tokio::test]
async fn one_payload_that_may_not_be_signed_refuses_the_whole_call() {
    let world = World::start().await;
    let mut topology = AuthorityServiceClient::new(world.channel_of(Role::Service, "topology").await);
    for foreign in [NODE_TICKET, CLAIM, "text/plain"] {
        let request = SignRequest { payloads: vec![payload(TASK), payload(foreign)] };
        assert_eq!(reason(&topology.sign(request).await.unwrap_err()), "SIGNING_REFUSED");
    }
    let mut relay = AuthorityServiceClient::new(world.channel_of(Role::Service, "relay").await);
    let refused = relay.sign(SignRequest { payloads: vec![payload(TASK)] }).await.unwrap_err();
    assert_eq!(reason(&refused), "SIGNING_REFUSED");
    let many = SignRequest { payloads: vec![payload(TASK); 1_001] };
    assert_eq!(reason(&topology.sign(many).await.unwrap_err()), "TOO_MANY_PAYLOADS");
}
