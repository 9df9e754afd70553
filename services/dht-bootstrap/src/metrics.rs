//! What dht-bootstrap tells Prometheus. Each name stands here once.

use metrics::{counter, describe_counter, describe_gauge, gauge};

use crate::domain::health::Health;

const ALIVE: &str = "muster_dht_servers";
const TABLE_HEALTH: &str = "muster_dht_table_health_ratio";
const HEALTHY: &str = "muster_dht_healthy_servers_ratio";
const ROOT_HOLDERS: &str = "muster_dht_root_holders";
const CRAWLS: &str = "muster_dht_crawls_total";
const RECORDS: &str = "muster_dht_bootstrap_records";
const SESSIONS: &str = "muster_dht_bootstrap_sessions";
const CONTACTS: &str = "muster_dht_contacts_requests_total";

/// Names all metrics; once, when the service starts.
pub fn describe() {
    describe_gauge!(ALIVE, "Servers of the table that the last crawl met, by whether they answered");
    describe_gauge!(TABLE_HEALTH, "Share of the contacts named as closest that are the closest alive");
    describe_gauge!(HEALTHY, "Share of servers of whose closest nine in ten are right");
    describe_gauge!(ROOT_HOLDERS, "Nodes that hold the root's record");
    describe_counter!(CRAWLS, "Crawls ended");
    describe_gauge!(RECORDS, "Records that the bootstrap nodes hold");
    describe_gauge!(SESSIONS, "Sessions of the bootstrap nodes");
    describe_counter!(CONTACTS, "Joiners that asked for contacts");
}

pub(crate) fn crawled(health: &Health, root_holders: usize) {
    gauge!(ALIVE, "state" => "alive").set(health.alive as f64);
    gauge!(ALIVE, "state" => "dead").set(health.dead as f64);
    gauge!(TABLE_HEALTH).set(health.table_health);
    gauge!(HEALTHY).set(health.healthy_share);
    gauge!(ROOT_HOLDERS).set(root_holders as f64);
    counter!(CRAWLS).increment(1);
}

pub(crate) fn nodes(records: usize, sessions: usize) {
    gauge!(RECORDS).set(records as f64);
    gauge!(SESSIONS).set(sessions as f64);
}

pub(crate) fn asked_for_contacts() {
    counter!(CONTACTS).increment(1);
}
