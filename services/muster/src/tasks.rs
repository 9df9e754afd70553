//! `muster tasks`, `task`, `cancel`: what hosts were asked, and what came of it.

use muster_proto::fleet::v1::{self as fleet, Task, TaskTarget};
use muster_proto::task::v1::{OutputStream, TaskState};

use crate::cli::{self, Output, Place, Tasks};
use crate::context::Session;
use crate::exit::{Exit, Failure};
use crate::fleet as listing;
use crate::render::table::Table;
use crate::render::{json, words};
use crate::run::{self, lines::Lines};

pub async fn list(place: &Place, output: Output, wanted: Tasks) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
    let tasks = listing::tasks(&session, wanted.running, limit).await?;
    match output {
        Output::Json => json::print("Tasks", [("tasks", tasks.iter().map(json::task).collect())]),
        Output::Table => table(&tasks).print(),
    }
    Ok(Exit::Ok)
}

pub async fn show(place: &Place, output: Output, wanted: cli::Task) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let name = listing::task_name(&session, &wanted.task).await?;
    if wanted.follow {
        return run::follow(&session, output, &name).await;
    }
    let targets = listing::targets(&session, &name).await?;
    if wanted.logs {
        return logs(&session, output, &name, &targets).await;
    }
    let request = fleet::GetTaskRequest { name };
    let task = session.fleet().get_task(request).await.map_err(session.failed("cannot read the task"))?;
    let task = task.into_inner();
    match output {
        Output::Json => json::print(
            "Task",
            [("task", json::task(&task)), ("targets", targets.iter().map(json::target).collect())],
        ),
        Output::Table => {
            println!(
                "{}  {}  by {}, {}",
                task.name,
                title(&task),
                task.creator,
                words::ago(task.create_time)
            );
            target_table(&targets).print();
        }
    }
    Ok(Exit::Ok)
}

pub async fn approve(place: &Place, output: Output, task: &str) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let name = listing::task_name(&session, task).await?;
    let answer = session.fleet().approve_task(fleet::ApproveTaskRequest { name }).await;
    let task = answer.map_err(session.failed("cannot approve the task"))?.into_inner();
    match output {
        Output::Json => json::print("Task", [("task", json::task(&task))]),
        Output::Table => eprintln!("{} goes to its hosts", task.name),
    }
    Ok(Exit::Ok)
}

pub async fn cancel(place: &Place, output: Output, task: &str) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let name = listing::task_name(&session, task).await?;
    let request = fleet::CancelTaskRequest { name, request_id: uuid::Uuid::now_v7().to_string() };
    let task =
        session.fleet().cancel_task(request).await.map_err(session.failed("cannot cancel the task"))?;
    let task = task.into_inner();
    match output {
        Output::Json => json::print("Task", [("task", json::task(&task))]),
        Output::Table => eprintln!("{}: told to stop. {}", task.name, counts(&task)),
    }
    Ok(Exit::Ok)
}

async fn logs(
    session: &Session,
    output: Output,
    task: &str,
    targets: &[TaskTarget],
) -> Result<Exit, Failure> {
    let mut lines = Lines::new(targets.iter().map(|target| target.host_name.len()).max().unwrap_or_default());
    for target in targets {
        let host = words::host(&target.host_name, &target.node);
        for chunk in listing::output(session, task, &target.node).await? {
            match output {
                Output::Json => json::print(
                    "TaskOutput",
                    [("node", target.node.clone().into()), ("output", json::output(&chunk))],
                ),
                Output::Table if chunk.stream() != OutputStream::Result => lines.print(&host, &chunk),
                Output::Table => {}
            }
        }
        lines.finish(&host);
    }
    Ok(Exit::Ok)
}

fn table(tasks: &[Task]) -> Table {
    let mut table = Table::new(&["TASK", "WHAT", "BY", "MADE", "HOSTS", "STATES"]);
    for task in tasks {
        table.row([
            task.name.trim_start_matches("tasks/").to_owned(),
            title(task),
            words::name_or_dash(&task.creator),
            words::ago(task.create_time),
            task.target_count.to_string(),
            counts(task),
        ]);
    }
    table
}

fn title(task: &Task) -> String {
    let kind = task.spec.as_ref().map(|spec| spec.r#type.clone()).unwrap_or_default();
    if task.display_name.is_empty() { kind } else { task.display_name.clone() }
}

fn counts(task: &Task) -> String {
    let states = task.counts.iter().filter(|count| count.count > 0);
    states
        .map(|count| format!("{} {}", count.count, words::task_state(count.state())))
        .collect::<Vec<_>>()
        .join(", ")
}

fn target_table(targets: &[TaskTarget]) -> Table {
    let mut table = Table::new(&["HOST", "NODE", "STATE", "SINCE", "TOOK", "RESULT"]);
    for target in targets {
        table.row([
            words::host(&target.host_name, &target.node),
            words::short(&target.node).to_owned(),
            words::task_state(target.state()),
            words::ago(target.update_time),
            target
                .finished
                .as_ref()
                .map_or_else(|| "-".to_owned(), |finished| words::span(finished.wall_time)),
            result(target),
        ]);
    }
    table
}

/// Why it ended as it did, in a few words.
pub fn result(target: &TaskTarget) -> String {
    let Some(finished) = &target.finished else { return "-".to_owned() };
    let status = match (finished.exit_code, finished.signal) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => String::new(),
    };
    let reason = match (target.state(), finished.reason.as_str()) {
        (TaskState::Succeeded, _) | (_, "") => String::new(),
        // The exit code or the signal has said it.
        (TaskState::Failed, _) if !status.is_empty() => String::new(),
        (_, reason) if finished.reason_code.is_empty() => reason.to_owned(),
        (_, reason) => format!("{reason} ({})", finished.reason_code),
    };
    [status, reason].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}
