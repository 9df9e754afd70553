//! What operators filter by is searched for in indexes, on both databases: the plan is read, and what is found is
//! compared with a walk through all.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeMap;

use muster_kit::testing::postgres::Postgres;
use muster_topology::domain::cell::CellId;
use muster_topology::domain::filter::{NodeFilter, place_of};
use muster_topology::domain::ledger::Ledger;
use muster_topology::domain::node::{Attested, Node, PLACE_LABEL, Presence};
use muster_topology::store::Store;
use muster_topology::store::postgres::PostgresStore;
use muster_topology::store::sqlite::SqliteStore;
use muster_types::{NodeId, Timestamp};
use sqlx::{AssertSqlSafe, Connection, Row};

/// Enough that no planner reads them all for a few.
const NODES: u32 = 3_000;

/// One in so many has what a test looks for.
const RARE: u32 = 500;

/// The cell of some, with the name that its LSN's prefix gives it.
const CELL: CellId = CellId(7);
const CELL_NAME: &str = "10.0.7.0/24";

fn id(number: u32) -> NodeId {
    let mut id = NodeId([0; 20]);
    // Ids are spread evenly, as drawn ones are.
    id.0[..4].copy_from_slice(&number.wrapping_mul(0x9E37_79B9).to_be_bytes());
    id.0[16..].copy_from_slice(&number.to_be_bytes());
    id
}

/// Each rare thing is another node's.
fn node(number: u32) -> Node {
    let labels = BTreeMap::from([
        ("os".to_owned(), "linux".to_owned()),
        ("role".to_owned(), if number % RARE == 1 { "till" } else { "desk" }.to_owned()),
    ]);
    let mut node = Node::new(id(number), Attested { labels, ..Attested::default() }, Timestamp::default());
    node.presence = if number % RARE == 2 { Presence::Unreachable } else { Presence::Online };
    node.cell = Some(if number % RARE == 3 { CELL } else { CellId(u64::from(100 + number / 100)) });
    node.profile.host_name = format!("host-{number}");
    match number % RARE {
        4 => node.labels.insert(PLACE_LABEL.to_owned(), Some("Turku".to_owned())),
        // An operator hides the attested role.
        1 if number > 2_000 => node.labels.insert("role".to_owned(), None),
        _ => None,
    };
    node
}

async fn fill(store: &dyn Store) -> Vec<Node> {
    let nodes: Vec<_> = (0..NODES).map(node).collect();
    let mut ledger = Ledger::at(Timestamp::default());
    for node in &nodes {
        ledger.nodes.put(node.id, node.clone());
    }
    store.commit(&ledger.close().0, Timestamp::default()).await.unwrap();
    nodes
}

fn cases() -> Vec<(&'static str, NodeFilter, &'static [&'static str])> {
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let any = NodeFilter::default;
    vec![
        ("a state", NodeFilter { states: vec![Presence::Unreachable], ..any() }, &["presence"]),
        ("a label", NodeFilter { labels: labels(&[("role", "till")]), ..any() }, &["labels"]),
        (
            "two labels",
            NodeFilter { labels: labels(&[("role", "till"), ("os", "linux")]), ..any() },
            &["labels"],
        ),
        (
            "places by label and by cell",
            NodeFilter { places: vec!["Turku".to_owned(), CELL_NAME.to_owned()], ..any() },
            &["labels", "cell"],
        ),
        (
            "a label and a state",
            NodeFilter { labels: labels(&[("role", "till")]), states: vec![Presence::Online], ..any() },
            &["labels"],
        ),
    ]
}

/// What the store finds and the filter confirms is what a walk finds; and the store reads by the named indexes.
async fn searches(store: &dyn Store, nodes: &[Node], index: fn(&str) -> &'static str) {
    for (what, filter, indexes) in cases() {
        let is_meant = |node: &Node| {
            let name = (node.cell == Some(CELL)).then_some(CELL_NAME);
            filter.matches(node, &place_of(node, name))
        };
        let mut wanted: Vec<_> = nodes.iter().filter(|node| is_meant(node)).map(|node| node.id).collect();
        wanted.sort();
        assert!((1..=20).contains(&wanted.len()), "{what}: {} nodes", wanted.len());
        let found = store.nodes_like(&filter, &[CELL], None).await.unwrap();
        let found: Vec<_> = found.iter().map(|it| &it.row).filter(|node| is_meant(node)).collect();
        assert_eq!(found.iter().map(|node| node.id).collect::<Vec<_>>(), wanted, "{what}");
        let plan = store.plan(&filter, &[CELL]).await.unwrap().join("\n");
        for name in indexes.iter().map(|name| index(name)) {
            assert!(plan.contains(name), "{what} does not go by {name}:\n{plan}");
        }
        assert!(!plan.contains("SCAN nodes") && !plan.contains("Seq Scan on nodes"), "{what}:\n{plan}");
    }
    let second = store.nodes_like(&cases()[0].1, &[], Some(id(2))).await.unwrap();
    assert!(second.iter().all(|it| it.row.id > id(2)), "a page begins behind the last one");
}

#[tokio::test]
async fn filters_go_by_indexes_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("topology.db");
    let store = SqliteStore::open(&file).await.unwrap();
    let nodes = fill(&store).await;
    let index = |name: &str| match name {
        "presence" => "nodes_presence",
        "labels" => "sqlite_autoindex_node_labels_1",
        _ => "nodes_cell",
    };
    searches(&store, &nodes, index).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut other = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let plan = sqlx::query("EXPLAIN QUERY PLAN SELECT doc FROM nodes WHERE host_name = 'host-9'");
    let plan: String = plan.fetch_one(&mut other).await.unwrap().get(3);
    assert!(plan.contains("nodes_host_name"), "{plan}");
}

#[tokio::test]
async fn filters_go_by_indexes_on_postgres() {
    let server = Postgres::start().unwrap();
    let store = PostgresStore::connect(server.url().parse().unwrap()).await.unwrap();
    let nodes = fill(&store).await;
    let mut other = sqlx::PgConnection::connect(&server.url()).await.unwrap();
    // As the server does by itself a minute later.
    sqlx::query("ANALYZE").execute(&mut other).await.unwrap();
    let index = |name: &str| match name {
        "presence" => "nodes_presence",
        "labels" => "node_labels_pkey",
        _ => "nodes_cell",
    };
    searches(&store, &nodes, index).await;
    let plan = sqlx::query(AssertSqlSafe("EXPLAIN SELECT doc FROM nodes WHERE host_name = 'host-9'"));
    let plan: String = plan.fetch_one(&mut other).await.unwrap().get(0);
    assert!(plan.contains("nodes_host_name"), "{plan}");
}

#[tokio::test]
async fn a_label_that_changes_is_found_by_its_new_value_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("topology.db")).await.unwrap();
    let by = |value: &str| NodeFilter {
        labels: BTreeMap::from([("role".to_owned(), value.to_owned())]),
        ..NodeFilter::default()
    };
    let count = async |value: &str| store.nodes_like(&by(value), &[], None).await.unwrap().len();
    let change = async |role: Option<&str>| {
        let mut ledger = Ledger::at(Timestamp::default());
        if let Some(stored) = store.nodes_by_id(&[id(1)]).await.unwrap().pop() {
            ledger.nodes.load(id(1), stored);
        }
        match role {
            Some(role) => {
                let mut node = node(1);
                node.labels.insert("role".to_owned(), Some(role.to_owned()));
                ledger.nodes.put(node.id, node);
            }
            None => ledger.nodes.remove(&id(1)),
        }
        store.commit(&ledger.close().0, Timestamp::default()).await.unwrap();
    };
    change(Some("till")).await;
    assert_eq!((count("till").await, count("desk").await), (1, 0));
    change(Some("desk")).await;
    assert_eq!((count("till").await, count("desk").await), (0, 1));
    change(None).await;
    assert_eq!(count("desk").await, 0);
}
