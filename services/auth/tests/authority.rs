//! The authority over the years: rotated without an outage, its list of revoked certificates, its log.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod world;

use std::time::Duration;

use muster_auth::domain::audit::{Action, Break, Deed, Follower};
use muster_auth::domain::leaf::Serial;
use muster_auth::domain::request::KeyHash;
use muster_auth::domain::revocation::Reason;
use muster_auth::domain::signer::Purpose;
use muster_auth::service::Told;
use muster_auth::store::{Certificate, Change, PostgresStore, Store, Write};
use muster_auth::{Config, bootstrap};
use muster_kit::testing::postgres::Postgres;
use muster_proto::auth::v1::audit_service_client::AuditServiceClient;
use muster_proto::auth::v1::certificate_authority_service_client::CertificateAuthorityServiceClient;
use muster_proto::auth::v1::link_service_client::LinkServiceClient;
use muster_proto::auth::v1::revocation_service_client::RevocationServiceClient;
use muster_proto::auth::v1::rotate_certificate_authority_request::Tier;
use muster_proto::auth::v1::{
    AdoptRevocationListRequest, GetRevocationListRequest, ListAuditEntriesRequest, ListLinksRequest,
    RotateCertificateAuthorityRequest, WatchRevocationListRequest,
};
use muster_proto::payload_type::{AUDIT_HEADS, REVOCATION_LIST};
use muster_proto::trust::v1::{self as trust, RevocationList};
use muster_types::{Role, limits};
use muster_wire::revocation::LEAP;
use muster_wire::{TrustStore, envelope, time};
use prost::Message;
use rustls_pki_types::CertificateDer;
use world::{Backend, DAY, Device, World};

/// Waits, by looking, for what happens on its own.
async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it did not happen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_and_issuing_authority_are_replaced_without_an_outage() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let world = World::start_on(backend).await;
        let old = Device::new();
        let before = world.enroll(&world.node_link().await, &old).await.unwrap();
        let old_root = world.auth.authority().root().to_vec();
        let old_operator = world.auth.issue(Role::Admin, "eve").await.unwrap();
        let mut authorities = CertificateAuthorityServiceClient::new(world.channel(old_operator.material()));
        for tier in [Tier::Issuing, Tier::Root] {
            let request = RotateCertificateAuthorityRequest { tier: tier.into() };
            authorities.rotate_certificate_authority(request).await.unwrap();
        }
        assert_ne!(world.auth.authority().root(), old_root);

        // Who pins the old root renews at the new authority, and gets what leads to the root it pins.
        let renewed = world.renew_pinning(&old_root, &old, &before.certificate_chain[0]).await.unwrap();
        assert_eq!((renewed.network_id.clone(), renewed.name.clone()), (before.network_id, before.name));
        assert_eq!(
            renewed.certificate_chain.len(),
            3,
            "leaf, issuing authority, the new root by the old one"
        );
        let network = world.auth.authority().network();
        let pinned = [CertificateDer::from(old_root.clone())];
        let mut trust = TrustStore::new(network, &pinned).unwrap();
        trust.load(renewed.trust_bundle.as_ref().unwrap(), world.auth.now()).unwrap();
        let believed =
            muster_wire::roots::believed(&pinned, renewed.trust_bundle.as_ref().unwrap(), world.auth.now());
        assert_eq!(believed.len(), 2);

        // Who comes now pins the new root, and is believed beside the old one.
        let new = Device::new();
        let link = world.node_link().await;
        let after = until(async || world.enroll(&link, &new).await.ok()).await;
        assert_eq!(after.network_id, renewed.network_id);
        let bundle = after.trust_bundle.as_ref().unwrap();
        let new_root = [CertificateDer::from(world.auth.authority().root().to_vec())];
        assert_eq!(muster_wire::roots::believed(&new_root, bundle, world.auth.now()).len(), 2);

        // Certificates of before go on: old caller at the new authority, new caller likewise.
        let operator = world.auth.issue(Role::Operator, "bob").await.unwrap();
        until(async || {
            let old = LinkServiceClient::new(world.channel(old_operator.material()))
                .list_links(ListLinksRequest::default())
                .await;
            assert!(old.is_ok(), "an outage: {old:?}");
            let new = LinkServiceClient::new(world.channel(operator.material()))
                .list_links(ListLinksRequest::default())
                .await;
            new.ok()
        })
        .await;
    }
}

#[tokio::test]
async fn a_stranger_root_in_a_bundle_is_not_believed() {
    let (world, stranger) = (World::start().await, World::start().await);
    let credentials = world.enroll(&world.node_link().await, &Device::new()).await.unwrap();
    let mut bundle = credentials.trust_bundle.unwrap();
    bundle.roots.push(stranger.auth.authority().root().to_vec().into());
    stranger.auth.rotate_root("operators/mallory").await.unwrap();
    let crosses = stranger.auth.authority().crosses().to_vec();
    bundle.authorities.extend(crosses.into_iter().map(Into::into));
    let pinned = [CertificateDer::from(world.auth.authority().root().to_vec())];
    let believed = muster_wire::roots::believed(&pinned, &bundle, world.auth.now());
    assert_eq!(believed, pinned);
}

#[tokio::test]
async fn the_revocation_list_is_signed_numbered_and_watched() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let world = World::start_on(backend).await;
        let device = Device::new();
        let credentials = world.enroll(&world.node_link().await, &device).await.unwrap();
        let mut revocations = RevocationServiceClient::new(world.channel_of(Role::Service, "topology").await);
        let mut watch = revocations
            .watch_revocation_list(WatchRevocationListRequest { after_number: 0 })
            .await
            .unwrap()
            .into_inner();
        let first = watch.message().await.unwrap().unwrap();
        assert_eq!(first.number, 0);
        world.revoke(&credentials.name, Reason::KeyCompromise).await;
        let second = watch.message().await.unwrap().unwrap();
        assert_eq!(second.number, 1);
        let network = world.auth.authority().network();
        let root = [CertificateDer::from(world.auth.authority().root().to_vec())];
        let mut trust = TrustStore::new(network, &root).unwrap();
        trust.load(credentials.trust_bundle.as_ref().unwrap(), world.auth.now()).unwrap();
        let payload = trust.open(&second.revocation_list.unwrap(), REVOCATION_LIST).unwrap();
        let list = RevocationList::decode(payload).unwrap();
        assert_eq!((list.number, list.base_number, list.revocations.len()), (1, 0, 1));
        assert_eq!(list.revocations[0].node_id, credentials.node_id);
        let after = revocations
            .get_revocation_list(GetRevocationListRequest { after_number: 1 })
            .await
            .unwrap()
            .into_inner();
        assert_eq!(after.number, 1);
        // When the certificate has ended, and every clock knows it, the entry goes.
        world.pass(16 * DAY);
        world.auth.tend().await.unwrap();
        assert!(world.auth.revocation_list(0).await.unwrap().entries.is_empty());
    }
}

/// As auth itself signs.
fn sign(world: &World, payload: bytes::Bytes) -> trust::Envelope {
    let authority = world.auth.authority();
    let signer = authority.signer(Purpose::Tickets);
    envelope::sign_p256(REVOCATION_LIST, payload, &signer.key, envelope::key_id(&signer.spki)).unwrap()
}

#[tokio::test]
async fn a_restored_master_takes_back_in_what_it_had_revoked_since_the_backup() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let (world, strangers) = (World::start_on(backend).await, World::start().await);
        let credentials = world.enroll(&world.node_link().await, &Device::new()).await.unwrap();
        let service = async |world: &World| {
            RevocationServiceClient::new(world.channel_of(Role::Service, "topology").await)
        };
        let (mut revocations, mut foreign) = (service(&world).await, service(&strangers).await);
        let adopt = |list| AdoptRevocationListRequest { revocation_list: Some(list) };
        let stranger = foreign.get_revocation_list(GetRevocationListRequest::default()).await.unwrap();
        let stranger = stranger.into_inner().revocation_list.unwrap();
        let early = revocations.adopt_revocation_list(adopt(stranger.clone())).await.unwrap_err();
        assert_eq!(world::reason(&early), "NOT_RESTORED");

        // As auth signed it in the past that is lost: of a known certificate, and of one that is newer than the backup.
        world.auth.open_past("services/auth").await.unwrap();
        let serial =
            world.auth.store().certificates_of(&credentials.name, 1).await.unwrap()[0].serial.0.clone();
        let lost = |number, serial: Vec<u8>| trust::Revocation {
            number,
            certificate_serial: serial.into(),
            key_hash: vec![7; 32].into(),
            node_id: credentials.node_id.clone(),
            revoke_time: Some(time::to_wire(world.auth.now())),
            expire_time: Some(time::to_wire(world.auth.now() + DAY)),
            reason: 1,
        };
        let list = RevocationList {
            number: 2,
            issue_time: Some(time::to_wire(world.auth.now())),
            revocations: vec![lost(1, serial.clone()), lost(2, vec![9; 16])],
            ..RevocationList::default()
        };
        let signed = sign(&world, list.encode_to_vec().into());
        for adopted in [2, 0] {
            let answer = revocations.adopt_revocation_list(adopt(signed.clone())).await.unwrap();
            assert_eq!(answer.into_inner().adopted, adopted);
        }
        let whole = world.auth.revocation_list(0).await.unwrap();
        assert_eq!((whole.restored, whole.entries.len()), (Some(0), 2));
        assert!(whole.entries.iter().all(|entry| entry.number > LEAP), "{whole:?}");
        let refused = revocations.adopt_revocation_list(adopt(stranger)).await.unwrap_err();
        assert_eq!(world::reason(&refused), "LIST_UNBELIEVED");
    }
}

#[tokio::test]
async fn a_revoked_operator_is_refused_on_the_connection_it_holds() {
    let world = World::start().await;
    let mut links = world.operator().await;
    links.list_links(ListLinksRequest::default()).await.unwrap();
    world.revoke("operators/alice", Reason::PrivilegeWithdrawn).await;
    let refused = until(async || links.list_links(ListLinksRequest::default()).await.err()).await;
    assert_eq!(world::reason(&refused), "CERTIFICATE_REVOKED");
}

#[tokio::test]
async fn openssl_verifies_chain_and_list() {
    let world = World::start().await;
    let credentials = world.enroll(&world.node_link().await, &Device::new()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, ders: &[&[u8]]| {
        let text: String =
            ders.iter().map(|der| muster_auth::join::pem::section("CERTIFICATE", der)).collect();
        std::fs::write(folder.path().join(name), text).unwrap();
    };
    write("root.pem", &[world.auth.authority().root()]);
    write("leaf.pem", &[&credentials.certificate_chain[0]]);
    write("issuing.pem", &[&credentials.certificate_chain[1]]);
    let openssl = |arguments: &str| {
        let output = std::process::Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder.path())
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let (good, said) = openssl("verify -CAfile root.pem -untrusted issuing.pem leaf.pem");
    assert!(good, "{said}");
    let fetch = async || {
        let output = tokio::process::Command::new("curl")
            .args(["-sf", &format!("http://{}/crl/issuing-1.crl", world.address)])
            .output()
            .await
            .unwrap();
        output.status.success().then_some(output.stdout)
    };
    let check = |list: &[u8]| {
        std::fs::write(folder.path().join("list.der"), list).unwrap();
        let (good, said) = openssl("crl -inform DER -in list.der -out list.pem -CAfile issuing.pem -verify");
        assert!(good && said.contains("verify OK"), "{said}");
        openssl("verify -CAfile root.pem -untrusted issuing.pem -CRLfile list.pem -crl_check leaf.pem")
    };
    let (good, said) = check(&until(&fetch).await);
    assert!(good, "{said}");
    world.revoke(&credentials.name, Reason::KeyCompromise).await;
    let said = until(async || {
        let (good, said) = check(&fetch().await?);
        (!good).then_some(said)
    })
    .await;
    assert!(said.contains("certificate revoked"), "{said}");
}

#[tokio::test]
async fn the_log_has_every_issue_revocation_refusal_and_what_services_tell_once() {
    let world = World::start().await;
    let (device, thief) = (Device::new(), Device::new());
    let link = world.node_link().await;
    let credentials = world.enroll(&link, &device).await.unwrap();
    world.enroll(&link, &thief).await.unwrap_err();
    world.renew(&device, &credentials.certificate_chain[0]).await.unwrap();
    world.revoke(&credentials.name, Reason::KeyCompromise).await;
    world.renew(&device, &credentials.certificate_chain[0]).await.unwrap_err();
    let mut audit = AuditServiceClient::new(world.channel_of(Role::Auditor, "noa").await);
    let told = Told {
        id: "0190a5b0-0000-7000-8000-000000000001".into(),
        deed: muster_auth::domain::audit::Deed {
            time: world.auth.now(),
            action: muster_auth::domain::audit::Action::CreateTask,
            actor: "operators/alice".into(),
            subject: "tasks/1".into(),
            detail: String::new(),
        },
    };
    for _ in 0..2 {
        world.auth.record("services/topology", vec![told.clone()]).await.unwrap();
    }
    let request = ListAuditEntriesRequest { after_revision: 0, page_size: 1_000 };
    let page = audit.list_audit_entries(request).await.unwrap().into_inner();
    let actions: Vec<_> = page.entries.iter().map(|entry| entry.action.as_str()).collect();
    for action in ["found", "create-link", "enroll", "refuse", "renew", "revoke", "create-task", "issue"] {
        assert!(actions.contains(&action), "{action} is not in {actions:?}");
    }
    assert_eq!(actions.iter().filter(|action| **action == "create-task").count(), 1);
    assert_eq!(actions.iter().filter(|action| **action == "refuse").count(), 2);
    let network = world.auth.authority().network();
    let root = [CertificateDer::from(world.auth.authority().root().to_vec())];
    let mut trust = TrustStore::new(network, &root).unwrap();
    trust.load(credentials.trust_bundle.as_ref().unwrap(), world.auth.now()).unwrap();
    trust.open(&page.heads.unwrap(), AUDIT_HEADS).unwrap();
}

#[tokio::test]
async fn each_replica_writes_its_chain_and_signs_the_end_of_the_others() {
    let postgres = Postgres::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let replica = |name: &str| Config {
        database_url: Some(postgres.url()),
        replica: Some(name.to_owned()),
        ..Config::embedded(folder.path(), vec!["127.0.0.1:1".to_owned()])
    };
    let first = muster_auth::init(&replica("a")).await.unwrap();
    let second = muster_auth::open(&replica("b")).await.unwrap();
    for auth in [&first, &second] {
        bootstrap::node_link(auth, Default::default()).await.unwrap();
    }
    assert_eq!(first.tend().await.unwrap().chains_witnessed, 1);
    assert_eq!(second.tend().await.unwrap().chains_witnessed, 0, "a witness alone is nothing to witness");
    assert_eq!(first.tend().await.unwrap().chains_witnessed, 0, "nothing moved");
    let log = first.audit(0, 100).await.unwrap();
    let mut follower = Follower::default();
    log.iter().for_each(|entry| follower.follow(entry).unwrap());
    let heads = first.store().heads().await.unwrap();
    assert_eq!(heads.len(), 2);
    follower.compare(&heads).unwrap();
    let mut cut = Follower::default();
    log.iter().filter(|entry| entry.chain == "a").for_each(|entry| cut.follow(entry).unwrap());
    assert!(matches!(cut.compare(&heads), Err(Break::Short { .. })));
    let store = PostgresStore::open(&postgres.url(), "c").await.unwrap();
    assert_eq!(store.heads().await.unwrap(), heads);
}

#[tokio::test]
async fn a_list_of_thousands_is_told_in_pages_that_each_fit_a_message_and_stands_whole_in_the_crl() {
    const REVOKED: u64 = 3_200;
    let world = World::start().await;
    let now = world.auth.now();
    let issuer = world.auth.authority().issuing()[0].name.clone();
    let certificate = |number: u64| Certificate {
        serial: Serial([&[1; 8][..], &number.to_be_bytes()].concat()),
        key: KeyHash([7; 32]),
        principal: format!("nodes/{number:040x}"),
        issuer: issuer.clone(),
        not_after: now + DAY,
        revoke_time: None,
        der: None,
    };
    let writes = (0..REVOKED).flat_map(|number| {
        let certificate = certificate(number);
        let reason = if number == 5 { Reason::Removed } else { Reason::KeyCompromise };
        [Write::AddForeignCertificate(certificate.clone()), Write::Revoke { certificate, time: now, reason }]
    });
    let deed = Deed {
        time: now,
        action: Action::Revoke,
        actor: "admins/eve".to_owned(),
        subject: "nodes/many".to_owned(),
        detail: String::new(),
    };
    world.auth.store().commit(Change { writes: writes.collect(), deed }).await.unwrap();
    let mut revocations = RevocationServiceClient::new(world.channel_of(Role::Service, "topology").await);
    let watch = WatchRevocationListRequest { after_number: 0 };
    let mut watch = revocations.watch_revocation_list(watch).await.unwrap().into_inner();
    let root = [CertificateDer::from(world.auth.authority().root().to_vec())];
    let mut trust = TrustStore::new(world.auth.authority().network(), &root).unwrap();
    let credentials = world.enroll(&world.node_link().await, &Device::new()).await.unwrap();
    trust.load(credentials.trust_bundle.as_ref().unwrap(), now).unwrap();
    let mut pages = 0;
    while trust.revocations().number() < REVOKED {
        let page = watch.message().await.unwrap().unwrap().revocation_list.unwrap();
        assert!(page.encoded_len() < limits::MESSAGE_BYTES, "{}", page.encoded_len());
        trust.revoke([&page]).unwrap();
        pages += 1;
    }
    assert_eq!((pages, trust.revocations().len() as u64), (3, REVOKED - 1));
    assert_eq!(world.auth.revoked().await.unwrap().len() as u64, REVOKED - 1);
}
