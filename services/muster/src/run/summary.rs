//! What came of a task: one line for what went well, one for each host that did not do it, and why.

use std::collections::BTreeMap;

use muster_proto::fleet::v1::{Task, TaskTarget};
use muster_proto::task::v1::TaskState;

use crate::exit::Exit;
use crate::render::words;
use crate::tasks::result;

/// Hosts that are named one by one; of more, only the number is told.
const NAMED: usize = 50;

pub(super) fn text(task: &Task, targets: &[&TaskTarget]) -> String {
    let mut counts: BTreeMap<i32, usize> = BTreeMap::new();
    for target in targets {
        *counts.entry(target.state).or_default() += 1;
    }
    let counts: Vec<String> = counts
        .into_iter()
        .map(|(state, count)| {
            format!("{count} {}", words::task_state(TaskState::try_from(state).unwrap_or_default()))
        })
        .collect();
    let mut text = String::new();
    let bad: Vec<_> = targets.iter().filter(|target| target.state() != TaskState::Succeeded).collect();
    for target in bad.iter().take(NAMED) {
        let host = words::host(&target.host_name, &target.node);
        text.push_str(&format!("{host}: {} {}\n", words::task_state(target.state()), result(target)));
    }
    if bad.len() > NAMED {
        text.push_str(&format!("and {} more: muster task {}\n", bad.len() - NAMED, task.name));
    }
    for target in targets {
        let cut = target.finished.as_ref().is_some_and(|end| end.stdout_truncated || end.stderr_truncated);
        if cut {
            let host = words::host(&target.host_name, &target.node);
            text.push_str(&format!("{host}: wrote more than is kept; the middle is missing\n"));
        }
    }
    let hosts = words::hosts(targets.len());
    text.push_str(&format!("{hosts}: {}\n", counts.join(", ")));
    text
}

/// A host that failed outweighs one that never did it.
pub(super) fn exit(targets: &[&TaskTarget]) -> Exit {
    let any = |wanted: &[TaskState]| targets.iter().any(|target| wanted.contains(&target.state()));
    if any(&[TaskState::Failed, TaskState::Rejected]) {
        Exit::HostsFailed
    } else if targets.iter().all(|target| target.state() == TaskState::Succeeded) {
        Exit::Ok
    } else {
        Exit::Incomplete
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::task::v1::Finished;

    fn target(host: &str, state: TaskState, exit_code: Option<i32>) -> TaskTarget {
        let finished = Finished { state: state.into(), exit_code, ..Finished::default() };
        TaskTarget {
            node: format!("nodes/{}", "ab".repeat(20)),
            host_name: host.into(),
            state: state.into(),
            finished: Some(finished),
            ..TaskTarget::default()
        }
    }

    #[test]
    fn a_failure_outweighs_an_absence_and_an_absence_a_success() {
        let good = target("a", TaskState::Succeeded, Some(0));
        let bad = target("b", TaskState::Failed, Some(7));
        let away = target("c", TaskState::Expired, None);
        assert_eq!(exit(&[&good]), Exit::Ok);
        assert_eq!(exit(&[&good, &away]), Exit::Incomplete);
        assert_eq!(exit(&[&good, &away, &bad]), Exit::HostsFailed);
    }

    #[test]
    fn the_summary_names_who_did_not_do_it_and_counts_the_rest() {
        let (good, bad) =
            (target("a", TaskState::Succeeded, Some(0)), target("b", TaskState::Failed, Some(7)));
        assert_eq!(
            text(&Task::default(), &[&good, &bad]),
            "b: failed exit 7\n2 hosts: 1 succeeded, 1 failed\n"
        );
    }
}
