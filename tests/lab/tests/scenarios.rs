//! The real programs through everything that happens to a fleet, one test for each column of the table. A run
//! spares what takes long; MUSTER_LAB_ALL=1 tries every case on every column, as `tests/prove lab` does.

use anyhow::{Result, ensure};
use muster_lab::scenario::{Column, fill};
use muster_lab::testing::in_lab;

#[test]
fn every_case_of_this_run_holds_on_v4_in_the_whole_lab() {
    in_lab(async { holds(Column::UDP_V4).await });
}

#[test]
fn every_case_of_this_run_holds_where_there_is_only_v6() {
    in_lab(async { holds(Column::UDP_V6).await });
}

#[test]
fn every_case_of_this_run_holds_over_tcp_on_v4() {
    in_lab(async { holds(Column::TCP_V4).await });
}

#[test]
fn every_case_of_this_run_holds_over_tcp_where_there_is_only_v6() {
    in_lab(async { holds(Column::TCP_V6).await });
}

async fn holds(column: Column) -> Result<()> {
    let table = fill(column).await;
    println!("{table}");
    let complaints = table.complaints();
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}
