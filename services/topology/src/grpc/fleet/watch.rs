//! Streams of what happens: read from the store by position, woken by the bus, and looked at now and then anyway.

use std::sync::Arc;
use std::time::Duration;

use muster_kit::clock;
use muster_kit::listen::PeerInfo;
use muster_kit::shutdown::Shutdown;
use muster_kit::status::{Fault, fault};
use muster_proto::fleet::v1 as fleet;
use muster_proto::task::v1 as task;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{page, select, tasks};
use crate::domain::event::EventBody;
use crate::domain::filter::NodeFilter;
use crate::domain::ledger::Wake;
use crate::domain::log::LogBody;
use crate::domain::task::TaskId;
use crate::grpc::{refusal, render};
use crate::hub::Hub;
use crate::metrics;
use crate::revocations;
use crate::store::{Event, Position, TaskHappening, TaskLog};
use crate::wake::Wakes;

/// Messages on their way to one watcher; a slow one makes its own stream wait, and nobody else.
const OUTBOUND: usize = 64;

/// Rows read at once for one watcher.
const ROWS: i64 = 500;

/// The feed is read this often even if nothing wakes the stream.
const POLL: Duration = Duration::from_secs(2);

type Outbound<T> = mpsc::Sender<Result<T, Status>>;

/// Why a stream ends before its time.
enum End {
    /// The watcher has gone.
    Gone,
    Failed(Fault),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

async fn send<T>(out: &Outbound<T>, message: T) -> Result<(), End> {
    out.send(Ok(message)).await.map_err(|_| End::Gone)
}

/// Who watches, and what ends it from outside.
pub(super) struct Audience {
    pub(super) hub: Arc<Hub>,
    pub(super) shutdown: Shutdown,
    pub(super) peer: Option<PeerInfo>,
}

impl Audience {
    /// Runs a watcher until it is done, the watcher goes or is revoked, or the service ends: then it may resume elsewhere.
    fn spawn<T: Send + 'static>(
        self,
        work: impl Future<Output = Result<(), End>> + Send + 'static,
        out: Outbound<T>,
    ) {
        let Self { hub, shutdown, peer } = self;
        let ended = shutdown.clone();
        let watching = metrics::Watching::begin();
        shutdown.spawn(async move {
            let outcome = tokio::select! {
                biased;
                () = ended.triggered() => {
                    Err(End::Failed(fault(Code::Unavailable, "SHUTTING_DOWN", "topology is restarting; resume")))
                }
                refused = revocations::cut(&hub, peer.as_ref()) => Err(End::Failed(refused)),
                outcome = work => outcome,
            };
            if let Err(End::Failed(fault)) = outcome {
                let _ = out.send(Err(fault.into())).await;
            }
            drop(watching);
        });
    }
}

pub(super) async fn task(
    audience: Audience,
    request: fleet::WatchTaskRequest,
) -> Result<ReceiverStream<Result<fleet::WatchTaskResponse, Status>>, Fault> {
    let hub = audience.hub.clone();
    let id = page::task_id(&request.name)?;
    let after = page::position(hub.epoch, &request.resume_token)?.unwrap_or_default();
    let (out, stream) = mpsc::channel(OUTBOUND);
    let wakes = hub.bus.subscribe();
    let watcher = TaskWatcher { hub, id, after, out: out.clone() };
    let log = watcher.read().await?;
    audience.spawn(watcher.run(log, wakes), out);
    Ok(ReceiverStream::new(stream))
}

struct TaskWatcher {
    hub: Arc<Hub>,
    id: TaskId,
    after: Position,
    out: Outbound<fleet::WatchTaskResponse>,
}

impl TaskWatcher {
    async fn read(&self) -> Result<TaskLog, Fault> {
        let found = self.hub.store.task_log(self.id, self.after, ROWS).await;
        let found = found.map_err(|error| refusal::store(&error))?;
        found.ok_or_else(|| tasks::unknown(self.id))
    }

    async fn run(mut self, mut log: TaskLog, mut wakes: Wakes) -> Result<(), End> {
        let id = self.id;
        loop {
            let (open, end) = (log.open, log.end);
            let more = i64::try_from(log.rows.len()).is_ok_and(|count| count == ROWS);
            self.tell(log).await?;
            if open == 0 && self.after >= end {
                let summary = tasks::summary(&self.hub, id).await?;
                let update = fleet::watch_task_response::Update::Done(render::task(&summary));
                return self.send(update).await;
            }
            if !more {
                tokio::select! {
                    () = wakes.next(|wake| *wake == Wake::Task(id)) => {}
                    () = tokio::time::sleep(POLL) => {}
                    () = self.out.closed() => return Err(End::Gone),
                }
            }
            log = self.read().await?;
        }
    }

    async fn send(&self, update: fleet::watch_task_response::Update) -> Result<(), End> {
        let resume_token = page::resume_token(self.hub.epoch, self.after);
        send(&self.out, fleet::WatchTaskResponse { resume_token, update: Some(update) }).await
    }

    async fn tell(&mut self, log: TaskLog) -> Result<(), End> {
        let TaskLog { rows, host_names, .. } = log;
        for row in rows {
            self.after = row.position;
            let host_name = host_names.get(&row.node).cloned().unwrap_or_default();
            if let Some(update) = render(row, host_name) {
                self.send(update).await?;
            }
        }
        Ok(())
    }
}

fn render(row: TaskHappening, host_name: String) -> Option<fleet::watch_task_response::Update> {
    use fleet::watch_task_response::Update;
    let node = render::node_name(row.node);
    Some(match row.body {
        LogBody::State(it) => {
            Update::Target(render::target(row.node, host_name, it.state, it.ending.as_ref(), row.at))
        }
        LogBody::Output(bytes) => {
            let output = Some(task::Output::decode(&bytes.0[..]).ok()?);
            Update::Output(fleet::TaskOutput { node, host_name, output })
        }
        LogBody::Progress(bytes) => {
            let progress = Some(task::Progress::decode(&bytes.0[..]).ok()?);
            Update::Progress(fleet::TaskProgress { node, host_name, progress })
        }
    })
}

pub(super) async fn events(
    audience: Audience,
    request: fleet::WatchEventsRequest,
) -> Result<ReceiverStream<Result<fleet::WatchEventsResponse, Status>>, Fault> {
    let hub = audience.hub.clone();
    let after = match resumed(&hub, &request.resume_token).await? {
        Some(position) => position,
        // Read before the initial state: what changes meanwhile is told after it.
        None => hub.store.events_end().await.map_err(|error| refusal::store(&error))?,
    };
    let (out, stream) = mpsc::channel(OUTBOUND);
    let initial = request.send_initial_state;
    let work = {
        let out = out.clone();
        async move {
            if initial {
                tell_initial_state(&hub, after, &out).await?;
            }
            follow_events(&hub, after, &out).await
        }
    };
    audience.spawn(work, out);
    Ok(ReceiverStream::new(stream))
}

/// The place that a token of the event feed names, if everything since is still there.
async fn resumed(hub: &Hub, token: &str) -> Result<Option<Position>, Fault> {
    let Some(position) = page::position(hub.epoch, token)? else { return Ok(None) };
    let feed = hub.store.feed().await.map_err(|error| refusal::store(&error))?;
    if position < feed.forgotten {
        return Err(page::expired("events since then are not kept any more"));
    }
    Ok(Some(position))
}

async fn tell_initial_state(
    hub: &Hub,
    after: Position,
    out: &Outbound<fleet::WatchEventsResponse>,
) -> Result<(), End> {
    use fleet::watch_events_response::Update;
    let now = clock::wall();
    let mut last = None;
    loop {
        let page = select::nodes(hub, &NodeFilter::default(), last, ROWS as usize).await?;
        let Some(next) = page.last() else { break };
        last = Some(next.stored.row.id);
        for it in page {
            let node = render::node(&it.stored.row, it.place, it.stored.revision, now);
            // Without a token: who breaks off here begins anew.
            let update = Some(Update::InitialNode(node));
            send(out, fleet::WatchEventsResponse { resume_token: String::new(), update }).await?;
        }
    }
    let update = Some(Update::InitialStateEnd(fleet::InitialStateEnd {}));
    send(out, fleet::WatchEventsResponse { resume_token: page::resume_token(hub.epoch, after), update }).await
}

async fn follow_events(
    hub: &Hub,
    mut after: Position,
    out: &Outbound<fleet::WatchEventsResponse>,
) -> Result<(), End> {
    let mut wakes = hub.bus.subscribe();
    loop {
        let rows = hub.store.events(after, ROWS).await.map_err(|error| refusal::store(&error))?;
        let more = i64::try_from(rows.len()).is_ok_and(|count| count == ROWS);
        for row in rows {
            after = row.position;
            metrics::watch_lag(clock::wall().since(row.at));
            let update = Some(fleet::watch_events_response::Update::Event(event(hub, &row).await?));
            send(
                out,
                fleet::WatchEventsResponse { resume_token: page::resume_token(hub.epoch, after), update },
            )
            .await?;
        }
        if !more {
            tokio::select! {
                () = wakes.next(|wake| *wake == Wake::Events) => {}
                () = tokio::time::sleep(POLL) => {}
                () = out.closed() => return Err(End::Gone),
            }
        }
    }
}

async fn event(hub: &Hub, row: &Event) -> Result<fleet::Event, Fault> {
    let summary = match &row.body {
        EventBody::TaskChanged { task } => {
            hub.store.task(*task).await.map_err(|error| refusal::store(&error))?
        }
        EventBody::NodeChanged { .. }
        | EventBody::OperationFailed { .. }
        | EventBody::Disconnection { .. } => None,
    };
    Ok(render::event(row, summary.as_ref()))
}

pub(super) async fn list(
    hub: &Hub,
    request: fleet::ListEventsRequest,
) -> Result<fleet::ListEventsResponse, Fault> {
    let limit = page::size(request.page_size)?;
    let after = resumed(hub, &request.page_token).await?.unwrap_or_default();
    let rows = hub.store.events(after, limit).await.map_err(|error| refusal::store(&error))?;
    let full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
    let next = rows.last().filter(|_| full).map(|last| page::resume_token(hub.epoch, last.position));
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        events.push(event(hub, row).await?);
    }
    Ok(fleet::ListEventsResponse { events, next_page_token: next.unwrap_or_default() })
}
