//! Listings that come in pages, and names that people cut short, over the Fleet API.

use muster_proto::fleet::v1::{self as fleet, Node, NodeFilter, Task, TaskTarget};
use muster_proto::task::v1::Output;

use crate::context::Session;
use crate::exit::{Exit, Failure};

/// The largest page that the master gives.
const PAGE: i32 = 1_000;
/// Tasks that an id's beginning is looked for in.
const RECENT_TASKS: usize = 10_000;

pub async fn nodes(session: &Session, filter: NodeFilter) -> Result<Vec<Node>, Failure> {
    let mut nodes = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = fleet::ListNodesRequest { filter: Some(filter.clone()), page_size: PAGE, page_token };
        let page = session.fleet().list_nodes(request).await.map_err(session.failed("cannot list hosts"))?;
        let page = page.into_inner();
        nodes.extend(page.nodes);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(nodes);
        }
    }
}

/// The one host that goes by this name.
pub async fn node(session: &Session, name: &str) -> Result<Node, Failure> {
    let filter = NodeFilter { names: vec![name.to_owned()], ..NodeFilter::default() };
    let mut found = nodes(session, filter).await?;
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Failure::new(
            Exit::NotFound,
            format!("there is no host {name:?}"),
            "no id begins so, and none is called so",
        )
        .next("muster nodes")),
        count => {
            let ids = found.iter().map(|node| node.name.as_str()).take(5).collect::<Vec<_>>().join(", ");
            Err(Failure::new(Exit::NotFound, format!("{name:?} means {count} hosts"), ids)
                .next("use the id, or more of it"))
        }
    }
}

pub async fn tasks(session: &Session, only_running: bool, limit: usize) -> Result<Vec<Task>, Failure> {
    let mut tasks: Vec<Task> = Vec::new();
    let mut page_token = String::new();
    loop {
        let page_size = i32::try_from(limit.saturating_sub(tasks.len())).unwrap_or(PAGE).clamp(1, PAGE);
        let request = fleet::ListTasksRequest { page_size, page_token, only_running };
        let page = session.fleet().list_tasks(request).await.map_err(session.failed("cannot list tasks"))?;
        let page = page.into_inner();
        tasks.extend(page.tasks);
        page_token = page.next_page_token;
        if page_token.is_empty() || tasks.len() >= limit {
            tasks.truncate(limit);
            return Ok(tasks);
        }
    }
}

/// The resource name of the task whose id is, begins or ends with `text`.
pub async fn task_name(session: &Session, text: &str) -> Result<String, Failure> {
    let id = text.trim_start_matches("tasks/");
    if uuid::Uuid::try_parse(id).is_ok() {
        return Ok(format!("tasks/{id}"));
    }
    // Ids of tasks made soon after one another begin alike; their ends differ.
    let tasks = tasks(session, false, RECENT_TASKS).await?;
    let mut found = tasks.iter().map(|task| task.name.as_str()).filter(|name| {
        let full = name.trim_start_matches("tasks/");
        full.starts_with(id) || full.ends_with(id)
    });
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only.to_owned()),
        (None, _) => {
            Err(Failure::new(Exit::NotFound, format!("there is no task {id:?}"), "no id begins or ends so")
                .next("muster tasks"))
        }
        (Some(one), Some(other)) => Err(Failure::new(
            Exit::NotFound,
            format!("{id:?} means several tasks"),
            format!("{one}, {other}, ..."),
        )
        .next("use more of the id, or its end")),
    }
}

pub async fn targets(session: &Session, task: &str) -> Result<Vec<TaskTarget>, Failure> {
    let mut targets = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = fleet::ListTaskTargetsRequest { name: task.to_owned(), page_size: PAGE, page_token };
        let page = session.fleet().list_task_targets(request).await;
        let page = page.map_err(session.failed("cannot list the task's hosts"))?.into_inner();
        targets.extend(page.targets);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(targets);
        }
    }
}

/// What one host wrote, chunk by chunk, as far as it is kept.
pub async fn output(session: &Session, task: &str, node: &str) -> Result<Vec<Output>, Failure> {
    let mut outputs = Vec::new();
    let mut page_token = String::new();
    loop {
        let (name, node) = (task.to_owned(), node.to_owned());
        let request = fleet::ListTaskOutputRequest { name, node, page_size: PAGE, page_token };
        let page = session.fleet().list_task_output(request).await;
        let page = page.map_err(session.failed("cannot read the task's output"))?.into_inner();
        outputs.extend(page.outputs);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(outputs);
        }
    }
}
