//! What befalls a whole fleet, in small; `tests/prove sim` runs 30,000 and a million.

use std::time::Duration;

use muster_sim::churn::office_link;
use muster_sim::measure::Traffic;
use muster_sim::scale::{
    Alone, Crowd, Day, Decapitation, Detections, Liars, Outage, Report, Revocation, Revocations, Victims,
    Weather,
};
use muster_sim::world::{Setup, World};

const NODES: usize = 600;
const PLACES: usize = 20;
const SEED: u64 = 1;

fn holds(report: &Report) {
    assert!(report.failures.is_empty(), "{:#?}\n{:#?}", report.failures, report.lines);
}

#[test]
fn after_a_working_day_everybody_is_where_the_master_shows_it() {
    holds(&Day { nodes: NODES, places: PLACES }.run(SEED));
}

#[test]
fn a_fleet_that_lost_its_master_for_an_hour_has_it_back_within_a_minute_and_without_a_burst() {
    holds(&Outage { nodes: NODES, places: PLACES, away: Duration::from_secs(3_600) }.run(SEED));
}

#[test]
fn a_fleet_that_was_alone_for_hours_while_hosts_came_and_went_is_whole_a_minute_after_the_masters_return() {
    holds(&Alone { nodes: 200, places: 8, hours: 2 }.run(SEED));
}

#[test]
fn hosts_that_are_alone_in_their_places_are_let_in_as_fast_as_the_master_admits_them() {
    holds(&Outage { nodes: 3_000, places: 3_000, away: Duration::from_secs(600) }.run(SEED));
}

#[test]
fn survivors_of_seventy_percent_of_all_lsns_and_of_the_best_connected_are_attached_within_five_seconds() {
    for victims in [Victims::AnyPercent(70), Victims::BestConnectedPercent(95)] {
        holds(&Decapitation { nodes: NODES, places: PLACES, victims }.run(SEED));
    }
}

#[test]
fn revoked_hosts_lose_their_last_session_within_seconds_and_everybody_knows() {
    holds(&Revocation { nodes: NODES, places: PLACES }.run(SEED));
}

#[test]
fn whoever_is_revoked_while_its_lsn_changes_loses_its_last_session_within_seconds_too() {
    holds(&Revocations { nodes: NODES, places: PLACES }.run(SEED));
}

#[test]
fn lsns_that_lie_hide_nobody_for_long_and_invent_nobody() {
    holds(&Liars { nodes: 150, places: 15, span: Duration::from_secs(120) }.run(SEED));
}

#[test]
fn a_place_with_more_nodes_than_a_cell_takes_is_as_few_cells_as_hold_them_and_nobody_changes() {
    holds(&Crowd { nodes: 1_100, morning: Duration::from_secs(60) }.run(SEED));
}

#[test]
fn at_one_percent_of_loss_nobody_who_lives_is_taken_for_dead() {
    holds(&Detections { nodes: 60, places: 3, hours: 1, weather: Weather::Independent(0.01) }.run(SEED));
}

/// What rests is computed: the figures must be those of a run in which nothing rests.
#[test]
fn a_place_that_rests_sends_what_it_would_have_sent_awake() {
    let traffic = |rest| {
        let setup = Setup { nodes: 60, places: 2, link: office_link(), rest, datagrams: true };
        let mut world = World::new(&setup, SEED);
        (0..60).for_each(|host| world.boot(host));
        world.run_for(Duration::from_secs(120));
        world.thaw_all();
        let before = world.measure().lan;
        world.run_for(Duration::from_secs(600));
        assert_eq!(world.resting_places(), if rest { 2 } else { 0 });
        world.thaw_all();
        let after = world.measure().lan;
        Traffic { messages: after.messages - before.messages, bytes: after.bytes - before.bytes }
    };
    let (simulated, computed) = (traffic(false), traffic(true));
    let apart = |a: u64, b: u64| (a as f64 / b as f64 - 1.0).abs();
    assert!(apart(simulated.messages, computed.messages) < 0.03, "{simulated:?} {computed:?}");
    assert!(apart(simulated.bytes, computed.bytes) < 0.03, "{simulated:?} {computed:?}");
}
