//! The table of all cases on all columns. A cell that nobody filled is a failure like any other.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{Case, Column};

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All that it asserts held, after this long.
    Held(Duration),
    Failed(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(took) => f.pad(&format!("{:.2} s", took.as_secs_f64())),
            Self::Failed(why) => f.pad(why),
        }
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct Table {
    cells: BTreeMap<(Case, Column), Outcome>,
}

impl Table {
    pub fn enter(&mut self, case: Case, column: Column, outcome: Outcome) {
        self.cells.insert((case, column), outcome);
    }

    /// What is wrong with the given part of the table: failures, and cells that are empty.
    pub fn complaints(&self, cases: &[Case], columns: &[Column]) -> Vec<String> {
        let cells = cases.iter().flat_map(|case| columns.iter().map(move |column| (*case, *column)));
        let complaint = |(case, column): (Case, Column)| {
            let why = match self.cells.get(&(case, column)) {
                Some(Outcome::Held(_)) => return None,
                Some(Outcome::Failed(why)) => why.as_str(),
                None => "the cell is empty",
            };
            Some(format!("{}, {}: {why}", column.name(), case.name()))
        };
        cells.filter_map(complaint).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<42}", "")?;
        Column::ALL.iter().try_for_each(|column| write!(f, "{:>10}", column.name()))?;
        writeln!(f)?;
        for case in Case::ALL {
            write!(f, "{:<42}", case.name())?;
            for column in Column::ALL {
                match self.cells.get(&(case, column)) {
                    Some(Outcome::Failed(_)) => write!(f, "{:>10}", "FAILED")?,
                    Some(held) => write!(f, "{held:>10}")?,
                    None => write!(f, "{:>10}", "empty")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_cell_and_a_failed_one_are_complaints_and_a_held_one_is_none() {
        let mut table = Table::default();
        let [column, ..] = Column::ALL;
        table.enter(Case::Gathered, column, Outcome::Held(Duration::from_millis(420)));
        table.enter(Case::LsnKilled, column, Outcome::Failed("why".to_owned()));
        let complaints = table.complaints(&[Case::Gathered, Case::LsnKilled, Case::NodeKilled], &[column]);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].ends_with("why") && complaints[1].ends_with("empty"));
        assert!(table.to_string().contains("0.42 s"));
    }
}
