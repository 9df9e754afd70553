//! Hosts report what becomes of their tasks.

use std::collections::BTreeMap;

use muster_types::NodeId;

use super::ledger::{Command, Ledger, Wake, Wanted};
use super::log::{LogBody, LogEntry};
use super::target::{Step, Taken};
use super::task::TaskId;

/// One signed step of one task on one host, verified.
#[derive(Debug, Clone)]
pub struct Report {
    pub task: TaskId,
    pub occurrence: String,
    pub sequence: u64,
    pub step: Step,
}

#[derive(Debug, Clone)]
pub struct Reports {
    pub node: NodeId,
    pub reports: Vec<Report>,
}

/// Every report of the task up to `upto` is durable; the node may forget them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    pub task: TaskId,
    pub occurrence: String,
    pub upto: u64,
}

impl Command for Reports {
    type Answer = Vec<Acknowledged>;

    fn wants(&self, wanted: &mut Wanted) {
        wanted.targets.extend(self.reports.iter().map(|report| (report.task, self.node)));
    }

    fn apply(&self, ledger: &mut Ledger) -> Vec<Acknowledged> {
        let mut upto = BTreeMap::new();
        for report in &self.reports {
            let number = take(ledger, self.node, report);
            let highest: &mut u64 = upto.entry((report.task, report.occurrence.clone())).or_default();
            *highest = (*highest).max(number);
        }
        upto.into_iter().map(|((task, occurrence), upto)| Acknowledged { task, occurrence, upto }).collect()
    }
}

/// Takes one report and answers up to where all are here. A task that is not (any more) in the store, or an
/// occurrence of none, is acknowledged too: the host has nothing to wait for.
fn take(ledger: &mut Ledger, node: NodeId, report: &Report) -> u64 {
    let now = ledger.now;
    let Some(target) = ledger.targets.find_mut(&(report.task, node)).filter(|_| report.occurrence.is_empty())
    else {
        return report.sequence;
    };
    let taken = target.take(report.sequence, &report.step, now);
    let target = target.clone();
    if taken == Taken::Moved {
        ledger.log_standing(&target);
    }
    let body = match &report.step {
        Step::Output(bytes) => Some(LogBody::Output(bytes.clone())),
        Step::Progress(bytes) => Some(LogBody::Progress(bytes.clone())),
        Step::Delivered | Step::Started | Step::Finished(..) => None,
    };
    if let Some(body) = body.filter(|_| taken != Taken::Not) {
        ledger.log.push(LogEntry { task: report.task, node, at: now, body });
        ledger.wakes.insert(Wake::Task(report.task));
    }
    target.received.upto()
}
