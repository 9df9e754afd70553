//! One column of the table, as it was filled: what came of every case. A case that nobody tried is a failure like any
//! other, unless this run was to spare it.

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
    /// Not tried in this run, and why.
    Spared(&'static str),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(took) => write!(f, "{:>6.2} s", took.as_secs_f64()),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
            Self::Spared(why) => write!(f, "     -  {why}"),
        }
    }
}

/// The column.
#[derive(Debug)]
pub struct Table {
    column: Column,
    outcomes: BTreeMap<Case, Outcome>,
}

impl Table {
    pub fn new(column: Column) -> Self {
        Self { column, outcomes: BTreeMap::new() }
    }

    pub fn enter(&mut self, case: Case, outcome: Outcome) {
        self.outcomes.insert(case, outcome);
    }

    /// What is wrong with the column: cases that failed, and cases that nobody tried.
    pub fn complaints(&self) -> Vec<String> {
        let complaint = |case: &Case| match self.outcomes.get(case) {
            Some(Outcome::Held(_) | Outcome::Spared(_)) => None,
            Some(Outcome::Failed(why)) => Some(format!("{}: {why}", case.name())),
            None => Some(format!("{}: nobody tried", case.name())),
        };
        Case::ALL.iter().filter_map(complaint).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.column)?;
        for (case, outcome) in &self.outcomes {
            writeln!(f, "  {:<46}{}", case.name(), outcome.to_string().lines().next().unwrap_or_default())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_that_failed_and_one_not_tried_are_complaints_and_a_held_or_spared_one_is_none() {
        let mut table = Table::new(Column::UDP_V4);
        Case::ALL.iter().for_each(|case| table.enter(*case, Outcome::Held(Duration::from_millis(420))));
        table.enter(Case::LsnKilled, Outcome::Failed("why".to_owned()));
        table.enter(Case::HostMoved, Outcome::Spared("no time"));
        table.outcomes.remove(&Case::NodeKilled);
        let complaints = table.complaints();
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].ends_with("why") && complaints[1].ends_with("tried"));
        let shown = table.to_string();
        assert!(shown.contains("0.42 s") && shown.contains("no time"), "{shown}");
    }
}
