//! A store of every earlier version, brought up to date: what it held is there, and is found.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeMap;
use std::str::FromStr;

use muster_kit::database;
use muster_kit::testing::earlier::Earlier;
use muster_kit::testing::postgres::Postgres;
use muster_topology::domain::filter::NodeFilter;
use muster_topology::domain::ledger::Request;
use muster_topology::domain::node::Presence;
use muster_topology::domain::opaque::Opaque;
use muster_topology::domain::target::TargetState;
use muster_topology::store::postgres::PostgresStore;
use muster_topology::store::sqlite::SqliteStore;
use muster_topology::store::{Position, Store};
use muster_types::NodeId;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};

const FIRST: NodeId = NodeId([1; 20]);
const SECOND: NodeId = NodeId([3; 20]);

const ROWS: &[(i64, &str)] = &[
    (1, include_str!("earlier/0001.sql")),
    (20, include_str!("earlier/0020.sql")),
    (50, include_str!("earlier/0050.sql")),
];

async fn found(store: &dyn Store, filter: NodeFilter) -> Vec<NodeId> {
    let nodes = store.nodes_like(&filter, &[], None).await.unwrap();
    nodes.into_iter().map(|node| node.row.id).collect()
}

fn labelled(name: &str, value: &str) -> NodeFilter {
    NodeFilter { labels: BTreeMap::from([(name.to_owned(), value.to_owned())]), ..NodeFilter::default() }
}

async fn the_first_versions_rows_are_there(store: &dyn Store) {
    let node = store.nodes_by_id(&[FIRST]).await.unwrap().pop().unwrap().row;
    assert_eq!((node.profile.host_name.as_str(), node.presence), ("first", Presence::Online));
    assert_eq!(found(store, labelled("tier", "gold")).await, [FIRST], "an operator's label");
    assert_eq!(found(store, labelled("tier", "low")).await, [], "the one that it covers");
    assert_eq!(found(store, labelled("old", "yes")).await, [], "one that an operator took away");
    let online = NodeFilter { states: vec![Presence::Online], ..NodeFilter::default() };
    assert_eq!(found(store, online).await, [FIRST]);
    assert_eq!(store.cells().await.unwrap().pop().unwrap().row.lsn, Some(FIRST));

    let request = Request { caller: "operators/ada".to_owned(), id: "1".to_owned() };
    let task = store.request(&request).await.unwrap().unwrap();
    let summary = store.task(task).await.unwrap().unwrap();
    assert_eq!((summary.open, summary.counts), (1, BTreeMap::from([(TargetState::Delivered, 1)])));
    assert_eq!(store.order(task, 0).await.unwrap(), Some(Opaque(vec![2])));
    assert_eq!(store.task_log(task, Position::default(), 9).await.unwrap().unwrap().rows.len(), 1);
}

async fn what_it_held_is_there(store: &dyn Store, version: i64) {
    the_first_versions_rows_are_there(store).await;
    let position = if version >= 20 { 17 } else { 0 };
    assert_eq!(store.cursor("auth").await.unwrap(), position);
    let at_oulu = if version >= 50 { vec![FIRST, SECOND] } else { vec![FIRST] };
    assert_eq!(found(store, labelled("site", "Oulu")).await, at_oulu);
}

#[tokio::test]
async fn sqlite_is_brought_up_to_date_from_every_earlier_version() {
    let earlier = Earlier { migrations: sqlx::migrate!("src/store/migrations/sqlite"), rows: ROWS };
    let folder = tempfile::tempdir().unwrap();
    for version in earlier.versions() {
        let file = folder.path().join(format!("{version}.db"));
        let mut db = database::sqlite(&file).connect().await.unwrap();
        earlier.sqlite(version, &mut db).await.unwrap();
        db.close().await.unwrap();
        what_it_held_is_there(&SqliteStore::open(&file).await.unwrap(), version).await;
    }
}

#[tokio::test]
async fn postgres_is_brought_up_to_date_from_every_earlier_version() {
    let earlier = Earlier { migrations: sqlx::migrate!("src/store/migrations/postgres"), rows: ROWS };
    let postgres = Postgres::start().unwrap();
    let mut first = PgConnectOptions::from_str(&postgres.url()).unwrap().connect().await.unwrap();
    for version in earlier.versions() {
        let name = format!("version_{version}");
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create).execute(&mut first).await.unwrap();
        let options = PgConnectOptions::from_str(&postgres.url_of(&name)).unwrap();
        let mut db = options.connect().await.unwrap();
        earlier.postgres(version, &mut db).await.unwrap();
        db.close().await.unwrap();
        what_it_held_is_there(&PostgresStore::connect(options).await.unwrap(), version).await;
    }
}
