//! What all rows of the matrix share: a network, tasks whose effect is a line in a file, and the judgement afterwards.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use muster_e2e::fleet::{command, is_terminal};
use muster_e2e::{Agent, Master};
use muster_proto::fleet::v1::CreateTaskRequest;
use muster_proto::task::v1::TaskState;
use uuid::Uuid;

/// What the tasks write to stdout.
const SAID: &str = "said\n";

/// One step of a task's way, and the states in which a task may rightly end when a process dies there.
pub(crate) struct Step {
    pub(crate) point: &'static str,
    pub(crate) may_end: &'static [TaskState],
    /// The least lines of effect: what had run before the kill has run.
    pub(crate) least_lines: usize,
}

/// How often each step is hit.
pub(crate) fn repeat() -> usize {
    std::env::var("MUSTER_CRASH_REPEAT").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// A master and a node.
pub(crate) struct Scene {
    pub(crate) master: Master,
    pub(crate) agent: Agent,
    pub(crate) node: String,
}

/// A task and the file that its effect goes to.
pub(crate) struct Deed {
    pub(crate) request: CreateTaskRequest,
    effects: PathBuf,
}

impl Scene {
    pub(crate) async fn set() -> Result<Self> {
        let master = Master::up().await?;
        let agent = Agent::of(&master).await?;
        let node = agent.name()?;
        Ok(Self { master, agent, node })
    }

    /// A new task that appends one line to a file of its own.
    pub(crate) fn deed(&self) -> Deed {
        let id = Uuid::now_v7().to_string();
        let effects = self.agent.folder().join(format!("effects-{id}"));
        let script = format!("echo done >> {}; echo said", effects.display());
        Deed { request: command(&[&self.node], &["sh", "-c", &script], &id), effects }
    }

    /// The judgement over a task that a kill has struck.
    pub(crate) async fn judge(&self, task: &str, deed: &Deed, step: &Step) -> Result<()> {
        let fleet = self.master.fleet()?;
        let first = fleet.until_ended(task, &self.node).await?.state();
        ensure!(step.may_end.contains(&first), "it ended as {first:?}, expected {:?}", step.may_end);
        let lines = deed.lines();
        ensure!(lines <= 1, "its effect happened {lines} times");
        ensure!(lines >= step.least_lines, "its effect is missing");
        if first == TaskState::Succeeded {
            ensure!(lines == 1, "it is said to have succeeded without an effect");
            let said = fleet.stdout(task, &self.node).await?;
            ensure!(said == SAID, "of its output {said:?} is left");
        }
        self.still_works().await.context("the next task")?;
        self.ended_for_good(task, first).await?;
        ensure!(deed.lines() == lines, "its effect came later, after its end");
        // The request is known for good: asked again, it is the same task.
        ensure!(fleet.create(&deed.request).await? == task, "the same request made another task");
        Ok(())
    }

    async fn ended_for_good(&self, task: &str, first: TaskState) -> Result<()> {
        let fleet = self.master.fleet()?;
        let targets = fleet.targets(task).await?;
        let [target] = &targets[..] else { anyhow::bail!("it has {} targets", targets.len()) };
        ensure!(target.state() == first, "it ended as {first:?} and then as {:?}", target.state());
        ensure!(is_terminal(target.state()) && fleet.task(task).await?.done);
        Ok(())
    }

    async fn still_works(&self) -> Result<()> {
        let (fleet, deed) = (self.master.fleet()?, self.deed());
        let task = fleet.create(&deed.request).await?;
        let state = fleet.until_ended(&task, &self.node).await?.state();
        ensure!(state == TaskState::Succeeded && deed.lines() == 1, "{state:?} with {} lines", deed.lines());
        Ok(())
    }
}

impl Deed {
    pub(crate) fn lines(&self) -> usize {
        std::fs::read_to_string(&self.effects).unwrap_or_default().lines().count()
    }
}
