//! A thousand nodes in fifty places under churn, for a few seeds; `muster-sim churn` runs a hundred.

use std::time::Duration;

use muster_sim::{Churn, Outcome};

fn churn(nodes: usize, places: usize, seconds: u64, seed: u64) -> Outcome {
    churn_over(true, nodes, places, seconds, seed)
}

fn churn_over(datagrams: bool, nodes: usize, places: usize, seconds: u64, seed: u64) -> Outcome {
    let span = Duration::from_secs(seconds);
    let outcome = Churn { nodes, places, span, datagrams, watch: Vec::new() }.run(seed);
    let tcp = if datagrams { "" } else { " --tcp" };
    let replay = format!(
        "cargo run -p muster-sim -- churn --seed {seed} --nodes {nodes} --places {places} --seconds {seconds}{tcp}"
    );
    assert!(outcome.violations.is_empty(), "{:#?}\nreplay: {replay}", outcome.violations);
    outcome
}

#[test]
fn each_cell_has_one_lsn_and_the_masters_picture_is_true_whatever_befalls_a_thousand_nodes() {
    for seed in 1..=3 {
        let outcome = churn(1_000, 50, 240, seed);
        let measure = &outcome.measure;
        assert!(measure.takeovers > 50, "only {} LSNs were replaced: this proves little", measure.takeovers);
        let crash = &measure.attached_after_crash;
        assert!(crash.mean() < Duration::from_secs(1), "mean {:?} after a crash", crash.mean());
        assert!(crash.percentile(95) < Duration::from_millis(2_500), "p95 {:?}", crash.percentile(95));
        let start = &measure.network_to_lsn;
        assert!(start.percentile(95) < Duration::from_millis(500), "p95 {:?}", start.percentile(95));
    }
}

#[test]
fn where_udp_is_dropped_cells_form_heal_and_merge_by_topology_and_by_what_nodes_remember() {
    for seed in 1..=3 {
        let outcome = churn_over(false, 300, 30, 240, seed);
        let takeovers = outcome.measure.takeovers;
        assert!(takeovers > 30, "only {takeovers} LSNs were replaced: this proves little");
    }
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let run = || churn(100, 5, 60, 42);
    let (first, again) = (run(), run());
    assert_eq!((first.trace, first.events), (again.trace, again.events));
    assert_ne!(first.trace, churn(100, 5, 60, 43).trace);
}
