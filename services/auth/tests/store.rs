//! What every store of auth must do, run on SQLite and on PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod world;

use std::sync::Arc;
use std::time::Duration;

use muster_auth::Auth;
use muster_auth::domain::approval::{Approval, Verdict};
use muster_auth::domain::audit::{Action, Deed, Follower};
use muster_auth::domain::key::{KeyKind, StoredKey};
use muster_auth::domain::label::Labels;
use muster_auth::domain::leaf::{Leaf, Serial};
use muster_auth::domain::link::{Binding, Terms, Use, node_terms};
use muster_auth::domain::principal::Revocation;
use muster_auth::domain::request::{KeyHash, NodeKeys};
use muster_auth::domain::revocation::Reason;
use muster_auth::domain::vault::Vault;
use muster_auth::domain::{Authority, Link, Principal};
use muster_auth::store::{
    Change, Cursor, Horizon, PostgresStore, Request, Revision, SqliteStore, Store, StoreError, Write,
};
use muster_kit::testing::postgres::Postgres;
use muster_types::{Identity, NetworkId, NodeId, Role, Timestamp};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use world::DAY;

const NOW: Timestamp = Timestamp::from_micros(1_795_000_000_000_000);

fn deed() -> Deed {
    Deed {
        time: NOW,
        action: Action::CreateLink,
        actor: "operators/a".into(),
        subject: "links/b".into(),
        detail: String::new(),
    }
}

async fn commit(store: &dyn Store, writes: Vec<Write>) -> Result<(), StoreError> {
    store.commit(Change { writes, deed: deed() }).await.map(drop)
}

fn link(seed: u64) -> Link {
    let terms = Terms {
        lifetime: DAY,
        labels: Labels::from([("site".into(), "häuschen \"1\"".into())]),
        display_name: "für Bob".into(),
        binding: Binding {
            host_name: "till-7".into(),
            hardware_serial: "S1".into(),
            key: Some(KeyHash([4; 32])),
        },
        needs_approval: true,
        ..node_terms()
    };
    let now = NOW + Duration::from_secs(seed);
    Link::draw(terms, "operators/a".into(), now, &mut ChaCha20Rng::seed_from_u64(seed)).0
}

fn principal() -> Principal {
    Principal {
        identity: Identity::node(NetworkId([7; 16]), NodeId([9; 20])),
        key: KeyHash([1; 32]),
        generation: 3,
        host_name: "host".into(),
        software_version: "1.2.3".into(),
        labels: Labels::from([("a".into(), "b".into())]),
        node_keys: Some(NodeKeys { noise: [1; 32], sealing: [2; 32], signing: [3; 32] }),
        enroll_time: NOW,
        renew_time: NOW + DAY,
        revocation: None,
    }
}

fn leaf(serial: u8, key: u8, not_after: Timestamp) -> Leaf {
    Leaf {
        identity: principal().identity,
        issuer: "issuing/1".into(),
        serial: Serial(vec![serial; 16]),
        key: KeyHash([key; 32]),
        not_before: NOW,
        not_after,
        der: vec![0; 3],
    }
}

async fn records_are_read_back_as_they_were_written(store: &dyn Store) {
    let (link, principal) = (link(1), principal());
    let writes = vec![
        Write::AddLink(link.clone()),
        Write::PutPrincipal { principal: principal.clone(), expected: None },
        Write::AddCertificate(leaf(1, 1, NOW)),
    ];
    commit(store, writes).await.unwrap();
    let stored = store.link(&link.id).await.unwrap().unwrap();
    assert_eq!(stored.record, link);
    assert_eq!(store.link_by_token(&link.token_hash).await.unwrap().unwrap(), stored);
    let known = store.principal(&principal.resource_name()).await.unwrap().unwrap();
    assert_eq!((known.record, known.revision), (principal, stored.revision));
    let certificate = store.certificate(&Serial(vec![1; 16])).await.unwrap().unwrap();
    assert_eq!(store.certificate_by_key(KeyHash([1; 32])).await.unwrap().unwrap(), certificate);
    assert!(store.link("none").await.unwrap().is_none());
    assert!(store.link_by_token(&[0; 32]).await.unwrap().is_none());
}

async fn nodes_are_listed_in_the_order_of_their_last_changes(store: &dyn Store) {
    let node = |name: u8| Principal {
        identity: Identity::node(NetworkId([7; 16]), NodeId([name; 20])),
        key: KeyHash([name; 32]),
        ..principal()
    };
    let operator = Principal {
        identity: Identity { network: NetworkId([7; 16]), role: Role::Operator, name: "ann".into() },
        node_keys: None,
        ..principal()
    };
    let put =
        |principal: &Principal, expected| Write::PutPrincipal { principal: principal.clone(), expected };
    let mut before = Revision(0);
    while let Some(last) = store.nodes(before, 100).await.unwrap().last() {
        before = last.revision;
    }
    for principal in [&node(101), &operator, &node(102)] {
        commit(store, vec![put(principal, None)]).await.unwrap();
    }
    let listed = store.nodes(before, 100).await.unwrap();
    assert_eq!(listed.iter().map(|it| &it.record).collect::<Vec<_>>(), [&node(101), &node(102)]);
    assert_eq!(store.nodes(before, 1).await.unwrap(), listed[..1]);
    // A change puts a node at the end.
    let renewed = Principal { generation: 9, ..node(101) };
    commit(store, vec![put(&renewed, Some(listed[0].revision))]).await.unwrap();
    let changed = store.nodes(listed[1].revision, 100).await.unwrap();
    assert_eq!(changed.iter().map(|it| &it.record).collect::<Vec<_>>(), [&renewed]);
}

async fn a_decision_on_an_old_revision_conflicts_and_leaves_nothing(store: &dyn Store) {
    let link = link(2);
    commit(store, vec![Write::AddLink(link.clone())]).await.unwrap();
    let before = store.link(&link.id).await.unwrap().unwrap();
    commit(store, vec![usage(&link, 5)]).await.unwrap();
    let mut revoked = link.clone();
    revoked.revoke(NOW);
    let late = vec![
        Write::AddCertificate(leaf(20, 20, NOW)),
        Write::ReplaceLink { link: revoked, expected: before.revision },
    ];
    assert_eq!(commit(store, late).await, Err(StoreError::Conflict));
    let after = store.link(&link.id).await.unwrap().unwrap();
    assert_eq!((after.record.use_count, after.record.revoke_time), (1, None));
    assert_eq!(after.record.last_use.unwrap().enrolled, "nodes/x");
    assert!(after.revision > before.revision);
    assert!(store.certificate(&Serial(vec![20; 16])).await.unwrap().is_none());
    let again = vec![Write::AddLink(link)];
    assert_eq!(commit(store, again).await, Err(StoreError::Conflict));
}

fn usage(link: &Link, key: u8) -> Write {
    let usage =
        Use { time: NOW, key: KeyHash([key; 32]), enrolled: "nodes/x".into(), certificate: vec![1, 2] };
    Write::UseLink { link: link.id.clone(), usage }
}

async fn a_link_is_used_as_often_as_it_says_and_once_by_each_key(store: &dyn Store) {
    let mut link = link(4);
    link.terms.use_limit = 3;
    commit(store, vec![Write::AddLink(link.clone())]).await.unwrap();
    commit(store, vec![usage(&link, 1)]).await.unwrap();
    assert_eq!(commit(store, vec![usage(&link, 1)]).await, Err(StoreError::Conflict));
    commit(store, vec![usage(&link, 2)]).await.unwrap();
    commit(store, vec![usage(&link, 3)]).await.unwrap();
    assert_eq!(commit(store, vec![usage(&link, 4)]).await, Err(StoreError::Conflict));
    assert_eq!(store.link(&link.id).await.unwrap().unwrap().record.use_count, 3);
    let known = store.link_use(&link.id, KeyHash([2; 32])).await.unwrap().unwrap();
    assert_eq!((known.key, known.certificate), (KeyHash([2; 32]), vec![1, 2]));
    assert_eq!(store.link_use(&link.id, KeyHash([4; 32])).await.unwrap(), None);
}

async fn a_contest_stays_with_its_link(store: &dyn Store) {
    let mut link = link(5);
    commit(store, vec![Write::AddLink(link.clone())]).await.unwrap();
    let expected = store.link(&link.id).await.unwrap().unwrap().revision;
    link.contested("192.0.2.1 thief".into(), NOW);
    link.contested("192.0.2.2 thief".into(), NOW + DAY);
    commit(store, vec![Write::ReplaceLink { link: link.clone(), expected }]).await.unwrap();
    assert_eq!(store.link(&link.id).await.unwrap().unwrap().record, link);
}

async fn an_enrollment_request_is_made_once_for_each_key_and_found_while_it_waits(store: &dyn Store) {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let mut request = |key: u8, seconds| Approval {
        host_name: "till-7".into(),
        source: "192.0.2.1".into(),
        ..Approval::draw("l", KeyHash([key; 32]), NOW + Duration::from_secs(seconds), &mut rng)
    };
    let (first, second, again) = (request(1, 1), request(2, 2), request(1, 3));
    for approval in [&first, &second] {
        commit(store, vec![Write::PutApproval { approval: approval.clone(), expected: None }]).await.unwrap();
    }
    let twice = vec![Write::PutApproval { approval: again, expected: None }];
    assert_eq!(commit(store, twice).await, Err(StoreError::Conflict));
    assert_eq!(store.waiting("l").await.unwrap(), 2);
    let stored = store.approval_of("l", KeyHash([1; 32])).await.unwrap().unwrap();
    assert_eq!(store.approval(&first.id).await.unwrap().unwrap(), stored);
    assert_eq!(store.approval_by_key(KeyHash([1; 32])).await.unwrap().unwrap(), stored);
    let mut decided = stored.record;
    decided.decide(Verdict::Approved("operators/a".into(), NOW)).unwrap();
    let write = |expected| vec![Write::PutApproval { approval: decided.clone(), expected: Some(expected) }];
    commit(store, write(stored.revision)).await.unwrap();
    assert_eq!(commit(store, write(stored.revision)).await, Err(StoreError::Conflict));
    assert_eq!(store.approvals(10).await.unwrap(), [second, decided]);
    assert_eq!(store.waiting("l").await.unwrap(), 1);
}

async fn of_many_changes_at_once_on_one_revision_one_takes_hold(store: Arc<dyn Store>) {
    let link = link(3);
    commit(store.as_ref(), vec![Write::AddLink(link.clone())]).await.unwrap();
    let revision = store.link(&link.id).await.unwrap().unwrap().revision;
    let racers: Vec<_> = (0..20)
        .map(|_| {
            let (store, mut link) = (store.clone(), link.clone());
            link.revoke(NOW);
            let writes = vec![Write::ReplaceLink { link, expected: revision }];
            tokio::spawn(async move { commit(store.as_ref(), writes).await })
        })
        .collect();
    let mut won = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Ok(()) => won += 1,
            Err(error) => assert_eq!(error, StoreError::Conflict),
        }
    }
    assert_eq!(won, 1);
}

async fn a_principals_certificates_are_revoked_together_and_found_first(store: &dyn Store) {
    let mut principal = principal();
    principal.identity.name = "ab".repeat(20);
    let holder = principal.identity.clone();
    let with = |leaf: Leaf| Write::AddCertificate(Leaf { identity: holder.clone(), ..leaf });
    let name = principal.resource_name();
    let writes = vec![
        Write::PutPrincipal { principal: principal.clone(), expected: None },
        with(leaf(30, 30, NOW)),
        with(leaf(31, 31, NOW + DAY)),
    ];
    commit(store, writes).await.unwrap();
    let revision = store.principal(&name).await.unwrap().unwrap().revision;
    let before = store.revocation_number().await.unwrap();
    principal.revocation = Some(Revocation { time: NOW, reason: Reason::Lost, comment: "train".into() });
    let known = store.certificates_of(&name, 10).await.unwrap();
    assert_eq!(known.len(), 2);
    let revoke = |reason| {
        let known = known.clone().into_iter();
        known.map(move |certificate| Write::Revoke { certificate, time: NOW, reason }).collect::<Vec<_>>()
    };
    let mut writes = revoke(Reason::Lost);
    writes.push(Write::PutPrincipal { principal: principal.clone(), expected: Some(revision) });
    writes.push(with(leaf(32, 31, NOW + 2 * DAY)));
    commit(store, writes).await.unwrap();
    assert_eq!(store.principal(&name).await.unwrap().unwrap().record, principal);
    let first = store.certificate(&Serial(vec![30; 16])).await.unwrap().unwrap();
    assert_eq!(first.revoke_time, Some(NOW));
    let by_key = store.certificate_by_key(KeyHash([31; 32])).await.unwrap().unwrap();
    assert_eq!((by_key.serial, by_key.revoke_time), (Serial(vec![31; 16]), Some(NOW)));
    let listed = store.revocations(before, 10).await.unwrap();
    let numbers: Vec<_> = listed.iter().map(|entry| (entry.number, entry.reason)).collect();
    assert_eq!(numbers, [(before + 1, Reason::Lost), (before + 2, Reason::Lost)]);
    assert_eq!(listed[0].node(), Some(NodeId([0xab; 20])));

    // Found again: the entries get new numbers, so that whoever has the list hears of it.
    commit(store, revoke(Reason::Removed)).await.unwrap();
    let listed = store.revocations(before + 2, 10).await.unwrap();
    assert!(listed.iter().all(|entry| entry.reason == Reason::Removed) && listed.len() == 2);
    assert_eq!(store.revocation_number().await.unwrap(), before + 4);
    let first = store.certificate(&Serial(vec![30; 16])).await.unwrap().unwrap();
    assert_eq!(first.revoke_time, None);
}

async fn links_are_listed_newest_first_in_pages_without_gaps(store: &dyn Store) {
    for seed in 100..110 {
        commit(store, vec![Write::AddLink(link(seed))]).await.unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.links(after.as_ref(), 3).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(Cursor { create_time: last.record.create_time, id: last.record.id.clone() });
        seen.extend(page.into_iter().map(|stored| stored.record));
    }
    let newest: Vec<_> = (100..110).rev().map(|seed| link(seed).id).collect();
    assert_eq!(seen.iter().take(10).map(|link| link.id.clone()).collect::<Vec<_>>(), newest);
    assert!(seen.is_sorted_by(|a, b| a.create_time >= b.create_time));
}

async fn a_request_is_answered_once(store: &dyn Store) {
    let request = Request { caller: "operators/a".into(), id: "1".into(), link: "x".into(), time: NOW };
    commit(store, vec![Write::AddRequest(request.clone())]).await.unwrap();
    let again = vec![Write::AddRequest(Request { link: "y".into(), ..request.clone() })];
    assert_eq!(commit(store, again).await, Err(StoreError::Conflict));
    assert_eq!(store.request("operators/a", "1").await.unwrap(), Some(request));
    assert_eq!(store.request("operators/b", "1").await.unwrap(), None);
}

async fn a_lease_has_one_holder_until_it_ends(store: &dyn Store) {
    let term = Duration::from_secs(30);
    assert!(store.lease("tend", "a", NOW, term).await.unwrap());
    assert!(!store.lease("tend", "b", NOW, term).await.unwrap());
    assert!(store.lease("tend", "a", NOW + term / 2, term).await.unwrap());
    assert!(!store.lease("tend", "b", NOW + term, term).await.unwrap());
    assert!(store.lease("tend", "b", NOW + term * 2, term).await.unwrap());
}

async fn a_purge_forgets_in_small_batches_what_lies_behind_the_horizon(store: &dyn Store) {
    let old = NOW - 400 * DAY;
    for serial in 200..205 {
        commit(store, vec![Write::AddCertificate(leaf(serial, serial, old))]).await.unwrap();
    }
    let horizon = Horizon { certificates: NOW - 300 * DAY, requests: old, links: old, revocations: old };
    assert_eq!(store.purge(horizon, 3).await.unwrap(), 3);
    assert_eq!(store.purge(horizon, 3).await.unwrap(), 2);
    assert_eq!(store.purge(horizon, 3).await.unwrap(), 0);
    assert!(store.certificate(&Serial(vec![1; 16])).await.unwrap().is_some());
}

async fn the_audit_log_is_an_unbroken_chain_of_what_took_hold(store: &dyn Store) {
    let log = store.audit(0, 1_000).await.unwrap();
    assert!(log.len() > 10);
    assert!(log.iter().zip(1..).all(|(entry, number)| entry.revision == number));
    let mut follower = Follower::default();
    for entry in &log {
        follower.follow(entry).unwrap();
    }
    let heads = store.heads().await.unwrap();
    assert_eq!(heads.iter().map(|head| head.chain.as_str()).collect::<Vec<_>>(), [store.chain()]);
    follower.compare(&heads).unwrap();
    assert_eq!(store.newest_revision().await.unwrap(), log.len() as u64);
    let rest = store.audit(log[3].revision, 2).await.unwrap();
    assert_eq!(rest, log[4..6]);
}

async fn of_many_founders_one_wins_and_all_have_its_keys(store: Arc<dyn Store>) {
    let secret = Vault::draw(&mut ChaCha20Rng::seed_from_u64(1));
    let founders: Vec<_> = (0..8)
        .map(|_| {
            let (store, vault) = (store.clone(), Vault::open(&secret).unwrap());
            tokio::spawn(async move { Auth::found(store.as_ref(), &vault, NOW).await.unwrap() })
        })
        .collect();
    let mut keys: Option<Vec<StoredKey>> = None;
    for founder in founders {
        let found = founder.await.unwrap();
        assert_eq!(keys.get_or_insert_with(|| found.clone()), &found);
    }
    let keys = keys.unwrap();
    assert_eq!(keys.len(), 7);
    assert!(keys.iter().any(|key| key.kind == KeyKind::Devices));
    Authority::unseal(&keys, &Vault::open(&secret).unwrap()).unwrap();
    let other = Vault::open(&Vault::draw(&mut ChaCha20Rng::seed_from_u64(2))).unwrap();
    assert!(Authority::unseal(&keys, &other).is_err());
}

async fn suite(store: Arc<dyn Store>) {
    let on = store.as_ref();
    records_are_read_back_as_they_were_written(on).await;
    nodes_are_listed_in_the_order_of_their_last_changes(on).await;
    a_decision_on_an_old_revision_conflicts_and_leaves_nothing(on).await;
    of_many_changes_at_once_on_one_revision_one_takes_hold(store.clone()).await;
    a_principals_certificates_are_revoked_together_and_found_first(on).await;
    a_link_is_used_as_often_as_it_says_and_once_by_each_key(on).await;
    a_contest_stays_with_its_link(on).await;
    an_enrollment_request_is_made_once_for_each_key_and_found_while_it_waits(on).await;
    links_are_listed_newest_first_in_pages_without_gaps(on).await;
    a_request_is_answered_once(on).await;
    a_lease_has_one_holder_until_it_ends(on).await;
    a_purge_forgets_in_small_batches_what_lies_behind_the_horizon(on).await;
    of_many_founders_one_wins_and_all_have_its_keys(store.clone()).await;
    the_audit_log_is_an_unbroken_chain_of_what_took_hold(on).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    suite(Arc::new(SqliteStore::open(&folder.path().join("auth.db")).await.unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_the_contract() {
    let postgres = Postgres::start().unwrap();
    suite(Arc::new(PostgresStore::open(&postgres.url(), "replica-a").await.unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_together_on_an_empty_database_all_open_it() {
    let postgres = Postgres::start().unwrap();
    let url = postgres.url();
    let replicas: Vec<_> = (0..4)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { PostgresStore::open(&url, "replica-a").await.map(drop) })
        })
        .collect();
    for replica in replicas {
        replica.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn sqlite_waits_for_the_disk_at_every_commit() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("auth.db")).await.unwrap();
    assert_eq!(store.pragmas().await.unwrap(), ("wal".to_owned(), 2));
}
