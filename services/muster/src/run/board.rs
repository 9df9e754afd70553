//! What an operator sees while a task runs: lines of output, and on a terminal one line below them that counts.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use muster_proto::fleet::v1::{Task, TaskOutput, TaskProgress, TaskTarget};
use muster_proto::task::v1::{OutputStream, TaskState};

use super::lines::Lines;
use super::summary;
use crate::cli::Output;
use crate::exit::Exit;
use crate::render::{json, words};

/// Back to the line's beginning, and clear it (ECMA-48: CR, EL).
const CLEAR: &str = "\r\x1b[K";

pub(super) struct Board {
    output: Output,
    lines: Lines,
    targets: BTreeMap<String, TaskTarget>,
    /// The last progress of each host that told one.
    progress: BTreeMap<String, String>,
    /// Whether stderr is a terminal, where a line can be taken back.
    live: bool,
}

/// Whether nothing more comes after this state.
pub(super) fn is_terminal(state: TaskState) -> bool {
    !matches!(state, TaskState::Unspecified | TaskState::Queued | TaskState::Delivered | TaskState::Started)
}

impl Board {
    pub(super) fn new(output: Output) -> Self {
        let live = output == Output::Table && std::io::stderr().is_terminal();
        Self { output, lines: Lines::new(0), targets: BTreeMap::new(), progress: BTreeMap::new(), live }
    }

    pub(super) fn target(&mut self, target: TaskTarget) {
        if self.output == Output::Json {
            json::print("TaskTarget", [("target", json::target(&target))]);
        }
        if is_terminal(target.state()) {
            self.clear();
            self.lines.finish(&words::host(&target.host_name, &target.node));
            self.progress.remove(&target.node);
        }
        self.targets.insert(target.node.clone(), target);
        self.draw();
    }

    pub(super) fn output(&mut self, output: TaskOutput) {
        let Some(chunk) = output.output else { return };
        match self.output {
            Output::Json => {
                json::print("TaskOutput", [("node", output.node.into()), ("output", json::output(&chunk))]);
            }
            Output::Table if chunk.stream() == OutputStream::Result => {}
            Output::Table => {
                self.clear();
                self.lines.print(&words::host(&output.host_name, &output.node), &chunk);
                self.draw();
            }
        }
    }

    pub(super) fn progress(&mut self, progress: TaskProgress) {
        let step = progress.progress.unwrap_or_default();
        if self.output == Output::Json {
            let step = serde_json::json!({"phase": step.phase, "percent": step.percent, "text": step.text});
            json::print("TaskProgress", [("node", progress.node.into()), ("progress", step)]);
            return;
        }
        let host = words::host(&progress.host_name, &progress.node);
        let text = format!("{host}: {} {} % {}", step.phase, step.percent, step.text);
        self.progress.insert(progress.node, text.trim_end().to_owned());
        self.draw();
    }

    /// A message between the output's lines.
    pub(super) fn say(&self, message: &str) {
        self.clear();
        eprintln!("{message}");
        self.draw();
    }

    /// The summary, and the code that scripts get.
    pub(super) fn finish(mut self, task: &Task) -> Exit {
        self.clear();
        for target in self.targets.values() {
            self.lines.finish(&words::host(&target.host_name, &target.node));
        }
        let targets: Vec<&TaskTarget> = self.targets.values().collect();
        match self.output {
            Output::Json => {
                let targets = targets.iter().map(|target| json::target(target)).collect();
                json::print("TaskDone", [("task", json::task(task)), ("targets", targets)]);
            }
            Output::Table => eprint!("{}", summary::text(task, &targets)),
        }
        summary::exit(&targets)
    }

    fn clear(&self) {
        if self.live {
            eprint!("{CLEAR}");
        }
    }

    fn draw(&self) {
        if !self.live {
            return;
        }
        let count = |wanted: fn(TaskState) -> bool| {
            self.targets.values().filter(|target| wanted(target.state())).count()
        };
        let running = count(|state| state == TaskState::Started);
        let done = count(is_terminal);
        let waiting = self.targets.len() - done - running;
        let progress = self.progress.values().next().map(|text| format!("  {text}")).unwrap_or_default();
        eprint!(
            "{CLEAR}{done} of {} done, {running} running, {waiting} waiting{progress}",
            self.targets.len()
        );
        let _ = std::io::stderr().flush();
    }
}
