//! Any two hosts talk, from any network that lets anything out: directly where theory allows it, by relay everywhere else.

use std::time::Duration;

use anyhow::{Result, ensure};
use muster_lab::meeting::Grid;
use muster_lab::testing::in_lab;

/// Set to anything, both orders of each pair are tried, and links that delay, as `tests/prove lab` does.
const TRY_ALL: &str = "MUSTER_LAB_ALL";

#[test]
fn any_two_hosts_meet_directly_wherever_theory_allows_it_and_by_relay_everywhere_else() {
    in_lab(async {
        let all = std::env::var_os(TRY_ALL).is_some();
        let mut grid = Grid::fill(Duration::ZERO, all).await?;
        if all {
            grid.append(Grid::fill(Duration::from_millis(40), all).await?);
        }
        judged(&grid)
    });
}

#[test]
fn a_public_host_becomes_a_super_node_and_carries_two_that_nothing_else_brings_together() {
    in_lab(async { muster_lab::super_node::carries_who_cannot_meet().await });
}

#[test]
fn a_carriers_translator_behind_the_homes_counts_as_the_stricter_of_both() {
    in_lab(async { muster_lab::layers::meet_through_two_translators().await });
}

#[test]
fn a_session_survives_the_relay_that_carries_it() {
    in_lab(async { muster_lab::relay_death::is_survived().await });
}

fn judged(grid: &Grid) -> Result<()> {
    println!("{grid}");
    let complaints = grid.complaints();
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}
