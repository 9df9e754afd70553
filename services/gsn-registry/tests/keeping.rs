//! One suite for both stores: what is kept is there, newer sessions win, replicas see each other and not the dead.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::time::Duration;

use muster_gsn_registry::domain::record::{History, Kept, State};
use muster_gsn_registry::domain::relays::Relay;
use muster_gsn_registry::store::postgres::PostgresStore;
use muster_gsn_registry::store::sqlite::SqliteStore;
use muster_gsn_registry::store::{FORGOTTEN, Store};
use muster_kit::testing::postgres::Postgres;
use muster_types::{Address, NodeId, Timestamp};

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
const LATER: Duration = Duration::from_secs(30);

fn kept(number: u8, state: State, replica: &str, since: Timestamp) -> Kept {
    let address = Address { ip: [192, 0, 2, number].into(), udp_port: Some(27_431), tcp_port: None };
    Kept {
        node: NodeId([number; 20]),
        state,
        reason: String::new(),
        offered: vec![address],
        proven: vec![address],
        noise_key: [number; 32],
        caps: Default::default(),
        nat: "full cone".to_owned(),
        subnets: Vec::new(),
        history: History { probes_sent: 7, ..History::default() },
        load: Default::default(),
        since,
        last_proof: Some(since),
        lease_until: None,
        replica: replica.to_owned(),
        alive_until: since + LATER,
    }
}

async fn what_is_kept_is_there_and_an_older_session_does_not_overwrite_a_newer_one(store: &dyn Store) {
    let first = kept(1, State::Serving, "a", NOW);
    store.keep(&[first.clone(), kept(2, State::Unproven, "a", NOW)]).await.unwrap();
    assert_eq!(store.candidate(first.node).await.unwrap(), Some(first.clone()));
    let newer = kept(1, State::Spare, "b", NOW + LATER);
    store.keep(std::slice::from_ref(&newer)).await.unwrap();
    store.keep(&[Kept { state: State::Gone, ..first }]).await.unwrap();
    assert_eq!(store.candidate(newer.node).await.unwrap(), Some(newer));
    assert_eq!(store.candidate(NodeId([9; 20])).await.unwrap(), None);
}

async fn pages_follow_the_ids_and_a_state_is_asked_for_alone(store: &dyn Store) {
    let ids = |found: Vec<Kept>| found.iter().map(|kept| kept.node.0[0]).collect::<Vec<_>>();
    assert_eq!(ids(store.candidates_after(None, None, 1).await.unwrap()), [1]);
    assert_eq!(ids(store.candidates_after(Some(NodeId([1; 20])), None, 9).await.unwrap()), [2]);
    assert_eq!(ids(store.candidates_after(None, Some(State::Unproven), 9).await.unwrap()), [2]);
}

async fn replicas_see_each_other_and_not_the_dead(store: &dyn Store) {
    store.keep_demand("a", 40, NOW + LATER).await.unwrap();
    store.keep_demand("b", 2, NOW + LATER).await.unwrap();
    let relay = Relay {
        name: "relay-1".to_owned(),
        addresses: Vec::new(),
        draining: false,
        load_percent: 0,
        until: NOW + LATER,
    };
    store.keep_relay(&relay).await.unwrap();
    store.keep_relay(&Relay { draining: true, ..relay.clone() }).await.unwrap();
    let there = store.elsewhere("a", NOW).await.unwrap();
    let nodes: Vec<_> = there.candidates.iter().map(|kept| kept.node.0[0]).collect();
    assert_eq!((nodes, there.demand), (vec![1], 2), "of b alone");
    assert_eq!(there.relays, [Relay { draining: true, ..relay }]);
    let late = store.elsewhere("c", NOW + LATER * 3).await.unwrap();
    assert!(late.candidates.is_empty() && late.relays.is_empty() && late.demand == 0);
}

async fn who_was_away_for_long_is_forgotten(store: &dyn Store) {
    assert_eq!(store.forget(NOW).await.unwrap(), 0);
    assert_eq!(store.forget(NOW + FORGOTTEN).await.unwrap(), 2);
    assert!(store.candidates_after(None, None, 9).await.unwrap().is_empty());
}

async fn suite(store: &dyn Store) {
    what_is_kept_is_there_and_an_older_session_does_not_overwrite_a_newer_one(store).await;
    pages_follow_the_ids_and_a_state_is_asked_for_alone(store).await;
    replicas_see_each_other_and_not_the_dead(store).await;
    who_was_away_for_long_is_forgotten(store).await;
}

#[tokio::test]
async fn the_embedded_store_keeps_its_promises_and_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gsn-registry.db");
    let store = SqliteStore::open(&file).await.unwrap();
    store.keep(&[kept(3, State::Spare, "a", NOW)]).await.unwrap();
    drop(store);
    let store = SqliteStore::open(&file).await.unwrap();
    assert!(store.candidate(NodeId([3; 20])).await.unwrap().is_some());
    store.forget(NOW + FORGOTTEN).await.unwrap();
    suite(&store).await;
}

#[tokio::test]
async fn the_shared_store_keeps_the_same_promises() {
    let server = Postgres::start().unwrap();
    let store = PostgresStore::connect(server.url().parse().unwrap()).await.unwrap();
    suite(&store).await;
}
