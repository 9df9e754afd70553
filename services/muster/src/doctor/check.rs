//! One question and its answer: what was found, and the command that mends it.

use serde_json::{Value, json};

use crate::cli::Output;
use crate::render::json;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Well,
    /// It works, and should not stay so.
    Warns,
    Fails,
    /// It does not apply here.
    Skipped,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Well => "ok",
            Self::Warns => "warning",
            Self::Fails => "failed",
            Self::Skipped => "skipped",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Stable, for scripts: `store.auth`, `address.tcp`.
    pub id: &'static str,
    pub outcome: Outcome,
    pub result: String,
    /// The command or the setting that mends it.
    pub fix: Option<String>,
}

impl Check {
    pub fn well(id: &'static str, result: impl Into<String>) -> Self {
        Self { id, outcome: Outcome::Well, result: result.into(), fix: None }
    }

    pub fn skipped(id: &'static str, why: impl Into<String>) -> Self {
        Self { id, outcome: Outcome::Skipped, result: why.into(), fix: None }
    }

    pub fn warns(id: &'static str, result: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { id, outcome: Outcome::Warns, result: result.into(), fix: Some(fix.into()) }
    }

    pub fn fails(id: &'static str, result: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { id, outcome: Outcome::Fails, result: result.into(), fix: Some(fix.into()) }
    }

    fn document(&self) -> Value {
        json!({
            "id": self.id,
            "outcome": self.outcome.as_str(),
            "result": self.result,
            "fix": self.fix,
        })
    }
}

pub(super) fn show(output: Output, checks: &[Check]) {
    let count = |outcome| checks.iter().filter(|check| check.outcome == outcome).count();
    let (failed, warned) = (count(Outcome::Fails), count(Outcome::Warns));
    if output == Output::Json {
        let all = checks.iter().map(Check::document).collect();
        json::print("Doctor", [("checks", all), ("healthy", (failed == 0).into())]);
        return;
    }
    for check in checks {
        println!("{:<8} {:<20} {}", check.outcome.as_str(), check.id, check.result);
        if let Some(fix) = &check.fix {
            println!("{:<8} {:<20} -> {fix}", "", "");
        }
    }
    println!("{} checks: {failed} failed, {warned} warn", checks.len());
}
