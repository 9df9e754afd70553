//! A store of every earlier version, brought up to date: whoever was admitted still is, whoever was revoked still is, and
//! the audit log can be proven whole.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::str::FromStr;

use muster_auth::domain::audit::Follower;
use muster_auth::domain::leaf::Serial;
use muster_auth::domain::request::KeyHash;
use muster_auth::store::Store;
use muster_auth::store::postgres::PostgresStore;
use muster_auth::store::sqlite::SqliteStore;
use muster_kit::database;
use muster_kit::testing::earlier::Earlier;
use muster_kit::testing::postgres::Postgres;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

const FIRST: &str = "nodes/0101010101010101010101010101010101010101";
const SECOND: &str = "nodes/0202020202020202020202020202020202020202";

const ROWS: &[(i64, &str)] = &[(1, include_str!("earlier/0001.sql")), (30, include_str!("earlier/0030.sql"))];

/// When revocations got a list.
const LISTED: i64 = 30;

async fn who_was_admitted_still_is(store: &dyn Store) {
    let link = store.link("l1").await.unwrap().unwrap().record;
    assert_eq!((link.use_count, link.terms.use_limit), (1, 1), "it was used up");
    assert_eq!(link.last_use.unwrap().enrolled, FIRST);
    let answer = store.link_use("l1", KeyHash([1; 32])).await.unwrap().unwrap();
    assert_eq!((answer.enrolled.as_str(), answer.certificate), (FIRST, vec![0x30]), "for a lost answer");
    let node = store.principal(FIRST).await.unwrap().unwrap().record;
    assert_eq!((node.host_name.as_str(), node.revocation), ("first", None));
    assert_eq!(store.certificate_by_key(KeyHash([1; 32])).await.unwrap().unwrap().serial, Serial(vec![10]));
    assert_eq!(store.request("operators/ada", "1").await.unwrap().unwrap().link, "l1");
}

async fn who_was_revoked_still_is(store: &dyn Store, version: i64) {
    let node = store.principal(SECOND).await.unwrap().unwrap().record;
    assert_eq!(node.revocation.unwrap().comment, "stolen");
    let list = store.revocations(0, 9).await.unwrap();
    let serials: Vec<_> = list.iter().map(|revoked| revoked.serial.0.as_slice()).collect();
    let before_there_was_a_list: &[u8] = &[11];
    let expected = if version >= LISTED {
        vec![&[12][..], before_there_was_a_list]
    } else {
        vec![before_there_was_a_list]
    };
    assert_eq!(serials, expected);
    let newest = list.last().unwrap().number;
    assert_eq!((newest, store.revocation_number().await.unwrap()), (expected.len() as u64, newest));
}

async fn the_log_is_whole(store: &dyn Store) {
    let entries = store.audit(0, 9).await.unwrap();
    assert_eq!(entries.iter().map(|it| it.action.as_str()).collect::<Vec<_>>(), ["create-link", "issue"]);
    let mut follower = Follower::default();
    entries.iter().for_each(|entry| follower.follow(entry).unwrap());
    assert_eq!(store.heads().await.unwrap(), [entries.last().unwrap().head()]);
}

async fn what_it_held_is_there(store: &dyn Store, version: i64) {
    who_was_admitted_still_is(store).await;
    who_was_revoked_still_is(store, version).await;
    the_log_is_whole(store).await;
    let waiting = usize::from(version >= LISTED);
    assert_eq!(store.approvals(9).await.unwrap().len(), waiting);
}

#[tokio::test]
async fn sqlite_is_brought_up_to_date_from_every_earlier_version() {
    let earlier = Earlier { migrations: sqlx::migrate!("migrations/sqlite"), rows: ROWS };
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
    let earlier = Earlier { migrations: sqlx::migrate!("migrations/postgres"), rows: ROWS };
    let postgres = Postgres::start().unwrap();
    let mut first = PgConnectOptions::from_str(&postgres.url()).unwrap().connect().await.unwrap();
    for version in earlier.versions() {
        let name = format!("version_{version}");
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create).execute(&mut first).await.unwrap();
        let url = postgres.url_of(&name);
        let pool = database::postgres_schema(url.parse().unwrap(), "muster_auth", 1).await.unwrap();
        earlier.postgres(version, &mut pool.acquire().await.unwrap()).await.unwrap();
        pool.close().await;
        what_it_held_is_there(&PostgresStore::open(&url, "main").await.unwrap(), version).await;
    }
}
