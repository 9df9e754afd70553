//! The keys of root and authorities in a PKCS#11 token (Debian's SoftHSM): made there, used there, never here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod world;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use futures::future::join_all;
use muster_auth::domain::authority::AuthorityError;
use muster_auth::domain::custody::TokenError;
use muster_auth::domain::key::KeyKind;
use muster_auth::join::pem;
use muster_auth::{Auth, AuthError, Config, StartError, init, open};
use muster_proto::auth::v1::Credentials;
use muster_types::Role;
use world::token::{PIN, SoftHsm};
use world::{Backend, Device, World};

const IN_THE_TOKEN: [KeyKind; 3] = [KeyKind::Root, KeyKind::Issuing, KeyKind::Devices];

fn config(folder: &Path, hsm: &SoftHsm) -> Config {
    let embedded = Config::embedded(folder, vec!["127.0.0.1:27431".to_owned()]);
    Config { pkcs11: Some(hsm.settings()), ..embedded }
}

async fn world(hsm: &SoftHsm) -> World {
    World::start_with(Backend::Sqlite, |config| config.pkcs11 = Some(hsm.settings())).await
}

/// Has openssl verify a leaf by its chain up to `root`.
fn openssl_verifies(folder: &Path, root: &[u8], credentials: &Credentials) {
    let [leaf, chain @ ..] = &credentials.certificate_chain[..] else { panic!("no chain") };
    let file = |name: &str, ders: &[&[u8]]| {
        let text: String = ders.iter().map(|der| pem::section("CERTIFICATE", der)).collect();
        std::fs::write(folder.join(name), text).unwrap();
        folder.join(name)
    };
    let (root, leaf) = (file("root.pem", &[root]), file("leaf.pem", &[leaf]));
    let chain = file("chain.pem", &chain.iter().map(|der| &der[..]).collect::<Vec<_>>());
    let verified = Command::new("openssl")
        .args(["verify", "-x509_strict", "-CAfile"])
        .args([&root, Path::new("-untrusted"), &chain, &leaf].map(Path::as_os_str))
        .output()
        .unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

fn token_error(refused: StartError) -> TokenError {
    match refused {
        StartError::Token(error) | StartError::Auth(AuthError::Authority(AuthorityError::Token(error))) => {
            error
        }
        other => panic!("not the token's fault: {other}"),
    }
}

async fn refused(opened: Result<Arc<Auth>, StartError>) -> TokenError {
    let Err(error) = opened else { panic!("it starts") };
    token_error(error)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_in_the_token_signs_openssl_verifies_and_the_store_has_no_such_key() {
    let Some(hsm) =
        SoftHsm::of("what_a_key_in_the_token_signs_openssl_verifies_and_the_store_has_no_such_key")
    else {
        return;
    };
    let world = world(&hsm).await;
    let device = Device::new();
    let enrolled = world.enroll(&world.node_link().await, &device).await.unwrap();
    openssl_verifies(world.folder.path(), world.auth.authority().root(), &enrolled);
    for key in world.auth.store().keys().await.unwrap() {
        // A sealed P-256 key has 138 bytes and more, the name of one in a token 42; nonce and tag are 28 of both.
        let is_name = key.sealed.len() == 42 + 28;
        assert_eq!(is_name, IN_THE_TOKEN.contains(&key.kind), "{:?}", key.kind);
    }
    let keys = hsm.beside().private_keys();
    assert_eq!(
        keys.iter().map(|key| key.label.as_str()).collect::<Vec<_>>(),
        ["test devices/1", "test issuing/1", "test root/1"]
    );
    assert!(keys.iter().all(|key| key.sensitive && !key.extractable), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_and_rotations_go_on_with_the_token() {
    let Some(hsm) = SoftHsm::of("a_restart_and_rotations_go_on_with_the_token") else { return };
    let world = world(&hsm).await;
    let (device, root) = (Device::new(), world.auth.authority().root().to_vec());
    let first = world.enroll(&world.node_link().await, &device).await.unwrap();
    let again = open(&world.config).await.unwrap();
    assert_eq!(again.authority().root(), root);
    again.issue(Role::Operator, "bob").await.unwrap();

    world.auth.rotate_issuing("admins/eve").await.unwrap();
    world.auth.rotate_root("admins/eve").await.unwrap();
    world.auth.rotate_signers("admins/eve").await.unwrap();
    assert_ne!(world.auth.authority().root(), root);
    // Who pins the old root follows to the new one; who pins the new one believes the same chain.
    let renewed = world.renew_pinning(&root, &device, &first.certificate_chain[0]).await.unwrap();
    openssl_verifies(world.folder.path(), &root, &renewed);
    openssl_verifies(world.folder.path(), world.auth.authority().root(), &renewed);
    let labels: Vec<_> = hsm.beside().private_keys().into_iter().map(|key| key.label).collect();
    assert_eq!(labels.len(), 8, "{labels:?}");
    assert!(again.refresh().await.unwrap());
    assert_eq!(again.authority().root(), world.auth.authority().root());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_began_without_a_token_moves_into_it_by_rotation() {
    let Some(hsm) = SoftHsm::of("a_network_that_began_without_a_token_moves_into_it_by_rotation") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let with = config(folder.path(), &hsm);
    let without = Config { pkcs11: None, ..with.clone() };
    init(&without).await.unwrap();
    let moved = open(&with).await.unwrap();
    assert!(hsm.beside().private_keys().is_empty());
    moved.rotate_root("admins/eve").await.unwrap();
    moved.issue(Role::Operator, "bob").await.unwrap();
    assert_eq!(hsm.beside().private_keys().len(), 3);
    assert_eq!(refused(open(&without).await).await, TokenError::NotConfigured);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_the_token_is_named() {
    let Some(hsm) = SoftHsm::of("whatever_is_wrong_with_the_token_is_named") else { return };
    let folder = tempfile::tempdir().unwrap();
    let good = config(folder.path(), &hsm);
    let other = |change: fn(&mut muster_auth::token::Settings)| {
        let mut settings = hsm.settings();
        change(&mut settings);
        Config { pkcs11: Some(settings), ..good.clone() }
    };
    let no_module = refused(init(&other(|it| it.module = "/nonexistent.so".into())).await).await;
    assert!(no_module.to_string().contains("/nonexistent.so"), "{no_module}");
    let no_token = refused(init(&other(|it| it.token = "elsewhere".into())).await).await;
    assert!(no_token.to_string().contains("\"muster test\""), "{no_token}");
    let no_pin = refused(init(&other(|it| it.pin_file = "/nonexistent.pin".into())).await).await;
    assert!(matches!(no_pin, TokenError::PinFile { .. }), "{no_pin}");
    std::fs::write(hsm.pin_file(), "9999").unwrap();
    let wrong_pin = refused(init(&good).await).await;
    assert!(matches!(wrong_pin, TokenError::WrongPin { .. }), "{wrong_pin}");
    assert!(!wrong_pin.to_string().contains("9999"));
    std::fs::write(hsm.pin_file(), PIN).unwrap();
    init(&good).await.unwrap();
    hsm.beside().destroy("test issuing/1");
    let no_key = refused(open(&good).await).await;
    assert!(matches!(no_key, TokenError::NoKey(_)), "{no_key}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_away_is_logged_in_to_again_and_a_wrong_pin_is_tried_once() {
    let Some(hsm) = SoftHsm::of("a_token_that_was_away_is_logged_in_to_again_and_a_wrong_pin_is_tried_once")
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let auth = init(&config(folder.path(), &hsm)).await.unwrap();
    let beside = hsm.beside();
    for _ in 0..3 {
        beside.pull_out();
        auth.issue(Role::Operator, "bob").await.unwrap();
    }
    std::fs::write(hsm.pin_file(), "9999").unwrap();
    beside.pull_out();
    let refused = auth.issue(Role::Operator, "bob").await.err().unwrap();
    assert!(matches!(refused, AuthError::Authority(AuthorityError::Unsigned)), "{refused}");
    assert!(beside.a_wrong_pin_was_tried());
    // Somebody enters the right one by hand; had the wrong one been tried again, the token would say so.
    drop(beside.private_keys());
    beside.pull_out();
    assert!(!beside.a_wrong_pin_was_tried());
    for _ in 0..5 {
        assert!(auth.issue(Role::Operator, "bob").await.is_err());
    }
    assert!(!beside.a_wrong_pin_was_tried());
    std::fs::write(hsm.pin_file(), PIN).unwrap();
    auth.issue(Role::Operator, "bob").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_founders_one_has_its_keys_in_the_token_and_the_others_leave_none() {
    let Some(hsm) = SoftHsm::of("of_many_founders_one_has_its_keys_in_the_token_and_the_others_leave_none")
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &hsm);
    let founders = join_all((0..4).map(|_| init(&config))).await;
    let mut roots: Vec<_> =
        founders.into_iter().map(|auth| auth.unwrap().authority().root().to_vec()).collect();
    roots.dedup();
    assert_eq!(roots.len(), 1);
    assert_eq!(hsm.beside().private_keys().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_in_the_token_below_a_root_that_is_kept_elsewhere() {
    let Some(hsm) = SoftHsm::of("authorities_in_the_token_below_a_root_that_is_kept_elsewhere") else {
        return;
    };
    use muster_auth::domain::{custody::AuthorityKey, founding, offline};
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &hsm);
    let (now, mut rng) = (muster_kit::clock::wall(), rand::rng());
    let made = founding::root(AuthorityKey::draw().unwrap(), now, &mut rng).unwrap();
    let root = offline::Root::open(&made.certificate, &made.issuer.key().at_rest()).unwrap();
    let mut answer = vec![made.certificate.clone()];
    for (_, request) in muster_auth::prepare(&config).await.unwrap() {
        answer.push(root.certify(&request, now, &mut rng).unwrap());
    }
    let auth = muster_auth::complete(&config, &answer).await.unwrap();
    assert_eq!(auth.authority().root(), made.certificate);
    auth.issue(Role::Operator, "bob").await.unwrap();
    let labels: Vec<_> = hsm.beside().private_keys().into_iter().map(|key| key.label).collect();
    assert_eq!(labels, ["test devices/1", "test issuing/1"]);
}
