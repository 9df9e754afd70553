//! The real programs through everything that happens to a fleet, on every column of the table.

use muster_lab::scenario::{Case, Column, Table, fill};
use muster_lab::testing::in_lab;

#[test]
#[ignore = "has not held yet: cargo test -p muster-lab --test scenarios -- --ignored"]
fn every_case_holds_on_every_column() {
    in_lab(async {
        let mut table = Table::default();
        for column in Column::ALL {
            fill(&mut table, column, &Case::ALL).await;
        }
        println!("{table}");
        let complaints = table.complaints(&Case::ALL, &Column::ALL);
        anyhow::ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
        Ok(())
    });
}
