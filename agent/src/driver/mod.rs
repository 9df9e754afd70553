//! The agent's one loop: everything that happens to this node comes in here, everything it wants goes out from here.
//!
//! Priorities, highest first: the end, what the master says, what tasks report, people on this host, the rest.

mod downstream;
mod history;
mod parts;
mod presence;
mod route;
mod status;

use std::time::Duration;

use muster_kit::shutdown::Shutdown;
use muster_proto::control::v1::attach_request::Frame;
use muster_proto::control::v1::attach_response::Frame as Answer;
use muster_proto::control::v1::{Part, Upstream, UpstreamItem, Welcome};
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::{Config, ConfigError};
use crate::control::{self, Control};
use crate::enrollment::renewal::{self, RenewalError};
use crate::identity::{Identity, StateError};
use crate::journal::{JournalError, TaskKey, Trust};
use crate::local;
use crate::platform::sleep;
use crate::tasks::Tasks;

use history::History;
use parts::Parts;
use presence::Presence;
use route::Route;

/// What one message to the master carries at most; a session's message must stay far below its limit.
const UPSTREAM_BYTES: usize = 128 * 1024;
/// Contract of `Upstream`.
const UPSTREAM_ITEMS: usize = 256;

/// A node that leaves says so with this code (2xx: as intended).
const LEAVING: u32 = 200;

/// How long goodbyes may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// How long the parts of the agent may take to end.
const DRAIN: Duration = Duration::from_secs(10);

/// After a renewal that failed; design: never by a link again, only by trying.
const RENEWAL_RETRY: Duration = Duration::from_secs(900);
/// A renewal is looked at least this often: the host may have slept, or its certificate come from elsewhere.
const RENEWAL_CHECK: Duration = Duration::from_secs(3600);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("another agent runs with the state in {0}")]
    AlreadyRunning(std::path::PathBuf),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] muster_kit::tls::TlsError),
    #[error("the network's signers cannot be believed: {0}")]
    Trust(#[from] muster_wire::trust::TrustError),
    #[error("local control cannot be set up: {0}")]
    Local(String),
}

/// Runs the agent of an enrolled device until the shutdown, or until somebody on this host makes it leave.
///
/// # Errors
/// It cannot begin; once begun it goes on.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), RunError> {
    let parts = Parts::open(&config).await?;
    let requests =
        local::serve(&config.socket()?, &shutdown).map_err(|error| RunError::Local(error.to_string()))?;
    let (driver, inbox) = Driver::new(parts, requests).await?;
    tracing::info!(node = %driver.identity.node, network = %driver.identity.network, "the agent runs");
    driver.run(inbox, &shutdown).await;
    if let Err(error) = shutdown.wait_drained(DRAIN).await {
        tracing::warn!(%error, "the agent ends anyway");
    }
    Ok(())
}

/// The state behind the loop.
struct Driver {
    identity: Identity,
    parts: Parts,
    presence: Presence,
    control: Control,
    tasks: Tasks,
    engine: JoinHandle<()>,
    route: Route,
    history: History,
    /// The journal was lost, and the master has not yet been asked.
    must_ask: bool,
}

/// Where the loop listens.
struct Inbox {
    control: mpsc::Receiver<control::Event>,
    outbox: mpsc::Receiver<UpstreamItem>,
    requests: mpsc::Receiver<local::Request>,
    /// Results of what runs beside the loop.
    done: mpsc::Receiver<Done>,
}

/// What ran beside the loop, so that nothing waits for it.
enum Done {
    OwnTasks(Result<Vec<(TaskKey, String)>, String>),
    Renewed(Box<Result<Identity, RenewalError>>),
}

impl Driver {
    async fn new(
        mut parts: Parts,
        requests: mpsc::Receiver<local::Request>,
    ) -> Result<(Self, Inbox), RunError> {
        let identity = parts.identity.clone();
        let (tasks, engine, outbox) = parts.start_tasks().await?;
        let (control, events) = Control::spawn(parts.client.clone());
        let done = parts.take_done();
        let presence = Presence::of(&identity);
        control.want(Some(presence.hello(&identity)));
        let driver = Self {
            must_ask: parts.trust_in_journal == Trust::AskMaster,
            history: History::begin(parts.clock.clone()),
            route: Route::none("not yet attached"),
            identity,
            parts,
            presence,
            control,
            tasks,
            engine,
        };
        Ok((driver, Inbox { control: events, outbox, requests, done }))
    }

    async fn run(mut self, mut inbox: Inbox, shutdown: &Shutdown) {
        let mut naps = tokio::time::interval(sleep::INTERVAL);
        let renewal = tokio::time::sleep(self.until_renewal());
        tokio::pin!(renewal);
        crate::platform::service::ready();
        loop {
            tokio::select! {
                biased;
                () = shutdown.triggered() => break,
                Some(event) = inbox.control.recv() => self.on_control(event).await,
                Some(done) = inbox.done.recv() => {
                    let pause = self.on_done(done).await;
                    renewal.as_mut().reset(tokio::time::Instant::now() + pause);
                }
                Some(item) = inbox.outbox.recv() => self.on_item(item, &mut inbox.outbox),
                Some(request) = inbox.requests.recv() => {
                    if let Some(left) = self.on_request(request) {
                        self.leave("the agent was told to leave").await;
                        // Who asked may have gone.
                        let _ = left.send(());
                        shutdown.trigger();
                        return;
                    }
                }
                () = &mut renewal => {
                    renewal.as_mut().reset(tokio::time::Instant::now() + RENEWAL_CHECK);
                    self.renew_if_due();
                }
                _ = naps.tick() => self.on_nap_check(),
            }
        }
        self.leave("the agent ends").await;
    }

    async fn on_control(&mut self, event: control::Event) {
        match event {
            control::Event::Up(welcome) => self.on_welcome(*welcome).await,
            control::Event::Frame(frame) => self.on_frame(*frame).await,
            control::Event::Down(reason) => {
                tracing::warn!(reason, "the master is lost");
                self.history.lost_master(&reason);
                self.route = Route::none(&reason);
            }
            control::Event::Failed(reason) => {
                tracing::info!(reason, "the master is not reached; trying again");
                self.route = Route::none(&reason);
            }
        }
    }

    async fn on_welcome(&mut self, welcome: Welcome) {
        tracing::info!("attached to the master");
        self.route = Route::Direct;
        self.parts.learn_from(&welcome, &self.identity);
        self.presence.keys_by_master(welcome.subnet_keys);
        if let Some((id, made, item)) = self.history.found_again(&mut self.parts) {
            let outbox = self.parts.outbox.clone();
            tokio::spawn(async move { outbox.keep(id, made, item).await });
        }
        if self.must_ask {
            self.ask_for_own_tasks();
        }
        self.tasks.route_up().await;
    }

    async fn on_frame(&mut self, frame: Answer) {
        match frame {
            Answer::Downstream(downstream) => self.on_downstream(downstream).await,
            // Of LSNs.
            Answer::UpdateAck(_) | Answer::Rival(_) | Answer::RateGrant(_) => {}
            // The session's own.
            Answer::Welcome(_) | Answer::Heartbeat(_) | Answer::Part(_) => {}
        }
    }

    /// Packs what waits, so that a burst of reports is one message.
    fn on_item(&mut self, first: UpstreamItem, outbox: &mut mpsc::Receiver<UpstreamItem>) {
        let mut bytes = first.encoded_len();
        let mut items = vec![first];
        while items.len() < UPSTREAM_ITEMS && bytes < UPSTREAM_BYTES {
            let Ok(item) = outbox.try_recv() else { break };
            bytes += item.encoded_len();
            items.push(item);
        }
        self.send_up(items);
    }

    /// By the route of the moment. Without one the journal keeps what matters.
    fn send_up(&mut self, items: Vec<UpstreamItem>) {
        let node_id = bytes::Bytes::copy_from_slice(self.identity.node.as_bytes());
        match &self.route {
            Route::None { .. } => {
                tracing::debug!(items = items.len(), "no way to the master; the journal keeps them")
            }
            Route::Direct => {
                if !self.control.send(Frame::Upstream(Upstream { node_id, items })) {
                    tracing::debug!("the control channel is full; the journal sends them again");
                }
            }
        }
    }

    fn on_request(&mut self, request: local::Request) -> Option<tokio::sync::oneshot::Sender<()>> {
        match request {
            local::Request::Status(answer) => {
                // Who asked may have gone.
                let _ = answer.send(self.status());
                None
            }
            local::Request::Leave { reason, done } => {
                tracing::info!(reason, "leaving the network");
                Some(done)
            }
        }
    }

    fn on_nap_check(&mut self) {
        if let Some(slept) = self.parts.naps.woke_up() {
            tracing::info!(?slept, "the host slept");
            self.history.slept(slept);
            // Whatever stood before is suspect: stand anew.
            self.control.want(None);
            self.control.want(Some(self.presence.hello(&self.identity)));
        }
        crate::platform::service::alive();
    }

    fn ask_for_own_tasks(&self) {
        let (client, done) = (self.parts.client.clone(), self.parts.done.clone());
        tokio::spawn(async move {
            let tasks = client.own_tasks().await.map(|tasks| {
                let known = |task: control::OwnTask| {
                    Some((TaskKey::new(&task.task_id, &task.occurrence)?, task.state))
                };
                tasks.into_iter().filter_map(known).collect()
            });
            // The loop may have ended.
            let _ = done.send(Done::OwnTasks(tasks.map_err(|status| status.to_string()))).await;
        });
    }

    fn until_renewal(&self) -> Duration {
        let now = self.parts.clock.now();
        let wait = |validity| renewal::wait(validity, self.identity.node, now);
        self.identity.validity().map_or(RENEWAL_RETRY, wait).min(RENEWAL_CHECK)
    }

    fn renew_if_due(&self) {
        let now = self.parts.clock.now();
        let Ok(validity) = self.identity.validity() else { return };
        if !renewal::wait(validity, self.identity.node, now).is_zero() {
            return;
        }
        let (identity, clock, done) =
            (self.identity.clone(), self.parts.clock.clone(), self.parts.done.clone());
        let addresses = self.parts.client.addresses.clone();
        tokio::spawn(async move {
            let renewed = renewal::renew(&identity, addresses.current().await, &clock).await;
            let _ = done.send(Done::Renewed(Box::new(renewed))).await;
        });
    }

    /// Answers when renewal is to be looked at next.
    async fn on_done(&mut self, done: Done) -> Duration {
        match done {
            Done::OwnTasks(Ok(tasks)) => {
                self.must_ask = false;
                self.tasks.adopt(tasks).await;
            }
            Done::OwnTasks(Err(reason)) => {
                tracing::warn!(reason, "the master does not say what was begun here; tasks wait");
            }
            Done::Renewed(renewed) => return self.on_renewed(*renewed),
        }
        self.until_renewal()
    }

    fn on_renewed(&mut self, renewed: Result<Identity, RenewalError>) -> Duration {
        let identity = match renewed {
            Ok(identity) => identity,
            Err(error) => {
                tracing::warn!(%error, "the certificate is not renewed; trying again");
                return RENEWAL_RETRY;
            }
        };
        if let Err(error) = self.parts.adopt(&identity) {
            tracing::error!(%error, "the renewed certificate cannot be kept");
            return RENEWAL_RETRY;
        }
        tracing::info!("the certificate is renewed");
        self.identity = identity;
        self.until_renewal()
    }

    async fn leave(mut self, description: &str) {
        self.tasks.finish().await;
        if let Err(error) = (&mut self.engine).await {
            tracing::error!(%error, "the task engine failed");
        }
        let part = Part { code: LEAVING, description: description.to_owned(), retry_after: None };
        if matches!(self.route, Route::Direct) && self.control.send(Frame::Part(part)) {
            self.control.want(None);
            tokio::time::sleep(GOODBYE).await;
        }
        self.parts.keep_learned();
    }
}
