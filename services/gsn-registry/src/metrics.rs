//! What gsn-registry tells Prometheus. Each name stands here once.

use metrics::{counter, describe_counter, describe_gauge, gauge};

use crate::domain::proof::Verdict;
use crate::domain::record::State;

const CANDIDATES: &str = "muster_gsn_candidates";
const WANTED: &str = "muster_gsn_wanted";
const SERVING: &str = "muster_gsn_serving";
const PROBES: &str = "muster_gsn_probes_sent_total";
const HEARD: &str = "muster_gsn_probes_heard_total";
const UNREACHABLE: &str = "muster_gsn_unreachable_reports_total";
const TICKETS: &str = "muster_gsn_relay_tickets_total";
const RELAYS: &str = "muster_gsn_relays";

/// Names all metrics; once, when the service starts.
pub fn describe() {
    describe_gauge!(CANDIDATES, "Candidates with a stream to this replica, by state");
    describe_gauge!(WANTED, "Global super nodes that should serve");
    describe_gauge!(SERVING, "Global super nodes that serve");
    describe_counter!(PROBES, "Probes sent, by who sent them");
    describe_counter!(HEARD, "Probes that candidates repeated, by what they were worth");
    describe_counter!(UNREACHABLE, "Reports that a super node did not answer");
    describe_counter!(TICKETS, "Tickets for relays, by where they came from");
    describe_gauge!(RELAYS, "Relays that are there");
}

pub(crate) fn candidates(state: State, count: usize) {
    gauge!(CANDIDATES, "state" => state.as_str()).set(count as f64);
}

pub(crate) fn needed(wanted: usize, serving: usize) {
    gauge!(WANTED).set(wanted as f64);
    gauge!(SERVING).set(serving as f64);
}

pub(crate) fn relays(count: usize) {
    gauge!(RELAYS).set(count as f64);
}

pub(crate) fn probe(by_node: bool) {
    counter!(PROBES, "by" => if by_node { "node" } else { "master" }).increment(1);
}

pub(crate) fn heard(verdict: Verdict) {
    let verdict = match verdict {
        Verdict::Counted => "counted",
        Verdict::Tainted => "tainted",
        Verdict::Elsewhere => "elsewhere",
        Verdict::Unknown => "unknown",
    };
    counter!(HEARD, "verdict" => verdict).increment(1);
}

pub(crate) fn unreachable() {
    counter!(UNREACHABLE).increment(1);
}

pub(crate) fn ticket(signed: bool) {
    counter!(TICKETS, "from" => if signed { "auth" } else { "cache" }).increment(1);
}
