//! The Fleet API as a CMDB uses it, with waits for what its feeds tell. It outlives restarts of the master.

use std::future::Future;

use anyhow::{Context, Result, anyhow, bail};
use muster_kit::connect::MasterChannel;
use muster_proto::fleet::v1::fleet_service_client::FleetServiceClient;
use muster_proto::fleet::v1::watch_events_response::Update;
use muster_proto::fleet::v1::{
    CreateTaskRequest, GetTaskRequest, ListTaskOutputRequest, ListTaskTargetsRequest, Node, NodeFilter,
    NodeState, Task, TaskTarget, WatchEventsRequest, WatchTaskRequest, event, watch_task_response,
};
use muster_proto::task::v1::{
    Content, OutputStream, RunArguments, TaskClass, TaskSpec, TaskState, content::Source,
};
use tonic::Status;

use crate::program::PATIENCE;

/// The largest page that the API gives.
const PAGE: i32 = 1_000;

/// Pause before a call that failed is made again: a master that restarts takes some tenths of a second.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(50);

#[derive(Debug, Clone)]
pub struct Fleet(FleetServiceClient<MasterChannel>);

pub fn is_online(node: &Node) -> bool {
    node.state() == NodeState::Online
}

/// Whether nothing comes after this state.
pub fn is_terminal(state: TaskState) -> bool {
    !matches!(state, TaskState::Unspecified | TaskState::Queued | TaskState::Delivered | TaskState::Started)
}

/// A task that runs a command on some nodes. `request_id` makes its creation repeatable.
pub fn command(nodes: &[&str], argv: &[&str], request_id: &str) -> CreateTaskRequest {
    let arguments =
        RunArguments { argv: argv.iter().map(|word| (*word).to_owned()).collect(), ..Default::default() };
    let arguments = prost_bytes(&arguments);
    CreateTaskRequest {
        spec: Some(TaskSpec {
            r#type: "run".to_owned(),
            arguments: Some(Content { source: Some(Source::Inline(arguments)) }),
            class: TaskClass::Open.into(),
            ..TaskSpec::default()
        }),
        filter: Some(NodeFilter {
            names: nodes.iter().map(|name| (*name).to_owned()).collect(),
            ..NodeFilter::default()
        }),
        request_id: request_id.to_owned(),
        ..CreateTaskRequest::default()
    }
}

fn prost_bytes(message: &impl prost::Message) -> prost::bytes::Bytes {
    message.encode_to_vec().into()
}

impl Fleet {
    pub fn new(channel: MasterChannel) -> Self {
        Self(FleetServiceClient::new(channel))
    }

    /// The client itself, for calls whose failure is what is asked for.
    pub fn client(&self) -> FleetServiceClient<MasterChannel> {
        self.0.clone()
    }

    /// Creates a task, again and again under its request id until the master answers.
    ///
    /// # Errors
    /// The master refuses, or does not answer.
    pub async fn create(&self, request: &CreateTaskRequest) -> Result<String> {
        let call = || async { self.client().create_task(request.clone()).await };
        Ok(persistently(call).await.context("create a task")?.into_inner().name)
    }

    /// # Errors
    /// The master refuses, or does not answer.
    pub async fn task(&self, name: &str) -> Result<Task> {
        let call = || async { self.client().get_task(GetTaskRequest { name: name.to_owned() }).await };
        Ok(persistently(call).await.context("read a task")?.into_inner())
    }

    /// # Errors
    /// The master refuses, or does not answer.
    pub async fn targets(&self, task: &str) -> Result<Vec<TaskTarget>> {
        let request = ListTaskTargetsRequest { name: task.to_owned(), page_size: PAGE, ..Default::default() };
        let call = || async { self.client().list_task_targets(request.clone()).await };
        Ok(persistently(call).await.context("list a task's targets")?.into_inner().targets)
    }

    /// What a host wrote to its stdout, put together from its chunks.
    ///
    /// # Errors
    /// The master refuses, or does not answer.
    pub async fn stdout(&self, task: &str, node: &str) -> Result<String> {
        let request = ListTaskOutputRequest {
            name: task.to_owned(),
            node: node.to_owned(),
            page_size: PAGE,
            ..Default::default()
        };
        let call = || async { self.client().list_task_output(request.clone()).await };
        let mut chunks = persistently(call).await.context("read a task's output")?.into_inner().outputs;
        chunks.retain(|chunk| chunk.stream() == OutputStream::Stdout);
        chunks.sort_by_key(|chunk| chunk.offset);
        let bytes = chunks.iter().flat_map(|chunk| chunk.data.to_vec()).collect();
        Ok(String::from_utf8(bytes)?)
    }

    /// Waits until a node is as wanted.
    ///
    /// # Errors
    /// It does not become so.
    pub async fn until_node(&self, name: &str, wanted: impl Fn(&Node) -> bool) -> Result<Node> {
        let mut last = None;
        let seen = async {
            loop {
                match self.watch_node(name, &wanted, &mut last).await {
                    Ok(node) => return node,
                    Err(_) => tokio::time::sleep(AGAIN).await,
                }
            }
        };
        match tokio::time::timeout(PATIENCE, seen).await {
            Ok(node) => Ok(node),
            Err(_) => Err(anyhow!("{name} did not become what was waited for; last seen as {last:#?}")),
        }
    }

    async fn watch_node(
        &self,
        name: &str,
        wanted: &impl Fn(&Node) -> bool,
        last: &mut Option<Node>,
    ) -> Result<Node> {
        let request = WatchEventsRequest { resume_token: String::new(), send_initial_state: true };
        let mut events = self.client().watch_events(request).await?.into_inner();
        while let Some(event) = events.message().await? {
            let node = match event.update {
                Some(Update::InitialNode(node)) => Some(node),
                Some(Update::Event(event)) => match event.body {
                    Some(event::Body::NodeChanged(change)) => change.node,
                    _ => None,
                },
                _ => None,
            };
            if let Some(node) = node.filter(|node| node.name == name) {
                if wanted(&node) {
                    return Ok(node);
                }
                *last = Some(node);
            }
        }
        bail!("the feed ended")
    }

    /// Waits until a target of a task is as wanted.
    ///
    /// # Errors
    /// It does not become so.
    pub async fn until_target(
        &self,
        task: &str,
        node: &str,
        wanted: impl Fn(TaskState) -> bool,
    ) -> Result<TaskTarget> {
        let mut last = None;
        let seen = async {
            loop {
                match self.watch_target(task, node, &wanted, &mut last).await {
                    Ok(target) => return target,
                    Err(_) => tokio::time::sleep(AGAIN).await,
                }
            }
        };
        match tokio::time::timeout(PATIENCE, seen).await {
            Ok(target) => Ok(target),
            Err(_) => Err(anyhow!("{task} on {node}: last seen as {last:?}")),
        }
    }

    async fn watch_target(
        &self,
        task: &str,
        node: &str,
        wanted: &impl Fn(TaskState) -> bool,
        last: &mut Option<TaskTarget>,
    ) -> Result<TaskTarget> {
        let request = WatchTaskRequest { name: task.to_owned(), resume_token: String::new() };
        let mut updates = self.client().watch_task(request).await?.into_inner();
        while let Some(update) = updates.message().await? {
            if let Some(watch_task_response::Update::Target(target)) = update.update
                && target.node == node
            {
                if wanted(target.state()) {
                    return Ok(target);
                }
                *last = Some(target);
            }
        }
        bail!("the feed ended")
    }

    /// Waits until a task has ended everywhere.
    ///
    /// # Errors
    /// The feed breaks off before.
    pub async fn until_done(&self, task: &str) -> Result<Task> {
        let request = WatchTaskRequest { name: task.to_owned(), resume_token: String::new() };
        let mut updates = self.client().watch_task(request).await?.into_inner();
        while let Some(update) = updates.message().await? {
            if let Some(watch_task_response::Update::Done(task)) = update.update {
                return Ok(task);
            }
        }
        bail!("the feed of {task} ended before the task")
    }

    /// Waits until a target has ended.
    ///
    /// # Errors
    /// It does not.
    pub async fn until_ended(&self, task: &str, node: &str) -> Result<TaskTarget> {
        self.until_target(task, node, is_terminal).await
    }
}

/// Makes a call until the master answers; a refusal is an answer.
async fn persistently<T, F: Future<Output = Result<T, Status>>>(call: impl Fn() -> F) -> Result<T> {
    let answered = async {
        loop {
            match call().await {
                Err(status) if is_absence(&status) => tokio::time::sleep(AGAIN).await,
                answer => return answer,
            }
        }
    };
    Ok(tokio::time::timeout(PATIENCE, answered).await.context("the master does not answer")??)
}

fn is_absence(status: &Status) -> bool {
    use tonic::Code::{Cancelled, DeadlineExceeded, Internal, Unavailable, Unknown};
    muster_kit::status::reason(status).is_none()
        && matches!(status.code(), Unavailable | Unknown | Cancelled | DeadlineExceeded | Internal)
}
