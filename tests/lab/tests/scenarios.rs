//! The real programs through everything that happens to a fleet, one test for each column of the table. Cells that do not
//! hold yet are open: `scenario::open` lists them with reasons, the table shows them, MUSTER_LAB_ALL=1 tries them too.

use anyhow::{Result, ensure};
use muster_lab::scenario::{Column, fill};
use muster_lab::testing::in_lab;

#[test]
fn every_case_that_is_not_open_holds_on_v4_in_the_whole_lab() {
    in_lab(async { holds(Column::UDP_V4).await });
}

#[test]
fn every_case_that_is_not_open_holds_where_there_is_only_v6() {
    in_lab(async { holds(Column::UDP_V6).await });
}

#[test]
fn every_case_that_is_not_open_holds_over_tcp_on_v4() {
    in_lab(async { holds(Column::TCP_V4).await });
}

#[test]
fn every_case_that_is_not_open_holds_over_tcp_where_there_is_only_v6() {
    in_lab(async { holds(Column::TCP_V6).await });
}

async fn holds(column: Column) -> Result<()> {
    let table = fill(column).await;
    println!("{table}");
    let complaints = table.complaints();
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}
