//! What one run found, as a line of JSON, and many such lines as one table.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Operations of one kind, one after another.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Operations {
    pub(crate) spans_ms: Vec<f64>,
    pub(crate) failed: usize,
    /// Of one operation, in the mean; processor time is all nodes' together.
    pub(crate) packets: f64,
    pub(crate) bytes: f64,
    pub(crate) cpu_ms: f64,
}

impl Operations {
    pub(crate) fn note(&mut self, span: Duration, failed: bool) {
        self.spans_ms.push(span.as_secs_f64() * 1e3);
        self.failed += usize::from(failed);
    }
}

/// What a node takes in the mean.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Each {
    pub(crate) packets: f64,
    pub(crate) bytes: f64,
    pub(crate) cpu_ms: f64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) system: String,
    pub(crate) settings: String,
    pub(crate) nodes: usize,
    pub(crate) resident_kb: f64,
    pub(crate) join: Each,
    /// A second.
    pub(crate) idle: Each,
    /// By the operation's name, such as "get".
    pub(crate) operations: BTreeMap<String, Operations>,
}

/// The order of operations in the table.
pub(crate) const KINDS: [&str; 5] = ["put", "get", "find", "get, a third dead", "find, a third dead"];

/// One table over all runs: runs of one system and size are rounds, and their operations one sample.
pub(crate) fn table(lines: &str) -> Result<String> {
    let mut rounds: BTreeMap<(usize, String), Vec<Figures>> = BTreeMap::new();
    for line in lines.lines().filter(|line| line.starts_with('{')) {
        let figures: Figures = serde_json::from_str(line)?;
        rounds.entry((figures.nodes, figures.system.clone())).or_default().push(figures);
    }
    let mut text = String::new();
    for kind in KINDS {
        text += &format!(
            "| {kind} | nodes | rounds | succeeded | p50 ms | p99 ms | packets | kB | CPU ms, all nodes |\n"
        );
        text += "|---|---:|---:|---:|---:|---:|---:|---:|---:|\n";
        for ((nodes, system), rounds) in &rounds {
            let of_kind: Vec<_> = rounds.iter().filter_map(|round| round.operations.get(kind)).collect();
            if !of_kind.is_empty() {
                text += &row(system, *nodes, &of_kind);
            }
        }
        text += "\n";
    }
    text += "| a node | nodes | rounds | resident kB | join packets | join kB | join CPU ms | idle packets/s | idle B/s | idle CPU ms/s |\n";
    text += "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
    for ((nodes, system), rounds) in &rounds {
        let mean = |of: &dyn Fn(&Figures) -> f64| rounds.iter().map(of).sum::<f64>() / rounds.len() as f64;
        text += &format!(
            "| {system} | {nodes} | {} | {:.0} | {:.0} | {:.1} | {:.1} | {:.2} | {:.0} | {:.2} |\n",
            rounds.len(),
            mean(&|f| f.resident_kb),
            mean(&|f| f.join.packets),
            mean(&|f| f.join.bytes / 1e3),
            mean(&|f| f.join.cpu_ms),
            mean(&|f| f.idle.packets),
            mean(&|f| f.idle.bytes),
            mean(&|f| f.idle.cpu_ms),
        );
    }
    text += "\nSettings:\n\n";
    let settings: BTreeMap<_, _> = rounds.values().flatten().map(|f| (&f.system, &f.settings)).collect();
    for (system, settings) in settings {
        text += &format!("- {system}: {settings}\n");
    }
    Ok(text)
}

fn row(system: &str, nodes: usize, rounds: &[&Operations]) -> String {
    let mut spans: Vec<f64> = rounds.iter().flat_map(|round| round.spans_ms.clone()).collect();
    spans.sort_by(f64::total_cmp);
    let failed: usize = rounds.iter().map(|round| round.failed).sum();
    let mean = |of: &dyn Fn(&Operations) -> f64| {
        rounds.iter().map(|round| of(round)).sum::<f64>() / rounds.len() as f64
    };
    format!(
        "| {system} | {nodes} | {} | {} of {} | {:.1} | {:.1} | {:.0} | {:.1} | {:.1} |\n",
        rounds.len(),
        spans.len() - failed,
        spans.len(),
        percentile(&spans, 0.5),
        percentile(&spans, 0.99),
        mean(&|o| o.packets),
        mean(&|o| o.bytes / 1e3),
        mean(&|o| o.cpu_ms),
    )
}

/// The least value that `share` of all do not exceed (nearest rank) of sorted ones.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
