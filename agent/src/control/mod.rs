//! The control channel to topology: one stream, kept as long as it is wanted.
//!
//! The driver says which Hello it wants the channel to stand with ([`Control::want`]) and hears [`Event`]s; in between
//! a task of its own finds the master, attaches, beats, and begins again.

pub mod addresses;
mod pulse;
mod session;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use muster_kit::backoff::Backoff;
use muster_kit::clock::{BootClock, MasterClock};
use muster_kit::connect::{DHT_BOOTSTRAP, Master, Proxies, Proxy, TOPOLOGY, Tried};
use muster_kit::tls::ClientTls;
use muster_net::TrafficClass;
use muster_net::pacer::Pacer;
use muster_net::queue::Outbox;
use muster_proto::control::v1::attach_request::Frame;
use muster_proto::control::v1::attach_response::Frame as Answer;
use muster_proto::control::v1::control_service_client::ControlServiceClient;
use muster_proto::control::v1::{
    AttachRequest, FindLsnsRequest, FindLsnsResponse, GetNodeTicketRequest, Hello, ListOwnTasksRequest, Part,
    Welcome,
};
use muster_proto::dht::v1::bootstrap_service_client::BootstrapServiceClient;
use muster_proto::dht::v1::{ContactsRequest, ContactsResponse};
use muster_proto::trust::v1::Envelope;
use muster_types::NodeId;
use muster_wire::TrustStore;
use prost::Message;
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::Status;

pub use addresses::Addresses;
pub use muster_proto::control::v1::OwnTask;

/// Frames on their way to the master. When full, the route counts as broken: it is slower than a hundred reports.
const FRAMES: usize = 256;

/// A host that has been up for less is in the crowd of a morning, or of a power cut's end.
const JUST_STARTED: Duration = Duration::from_secs(300);
/// Over which that crowd spreads its first call of the master; finding an LSN does not wait for it.
const BOOT_JITTER: Duration = Duration::from_secs(2);

/// A stream that stood for so long was a success; one that the master ends at once again and again is opened ever more
/// rarely.
const LASTED: Duration = Duration::from_secs(5);

/// Events on their way to the driver. When full, the stream is not read, and the master waits.
const EVENTS: usize = 256;

/// Pages of own tasks that are asked for; more than any node can have in 30 days.
const OWN_TASK_PAGES: usize = 1_000;

/// What the channel tells the driver.
#[derive(Debug)]
pub enum Event {
    /// It stands.
    Up(Box<Welcome>),
    Frame(Box<Answer>),
    /// It stood, and does not any more.
    Down(String),
    /// It could not be brought to stand; it is tried again.
    Failed(String),
    /// Nor will it before this node has a new ticket.
    Stale(String),
    /// Nor will it: this node is revoked.
    Barred(String),
}

/// What the channel needs of its node.
#[derive(Clone)]
pub struct Client {
    pub addresses: Addresses,
    pub proxies: Arc<Proxies>,
    pub tls: Arc<ClientTls>,
    pub clock: MasterClock,
    /// Says up to where this node knows every revocation.
    pub trust: Arc<ArcSwap<TrustStore>>,
}

type ControlClient = ControlServiceClient<muster_kit::connect::MasterChannel>;

impl Client {
    /// The way to the master as of now.
    pub async fn master(&self) -> Master {
        self.at(self.addresses.current().await, self.tls.clone())
    }

    /// The way to one of the master's services that is at these addresses.
    pub fn at(&self, addresses: Vec<String>, tls: Arc<ClientTls>) -> Master {
        Master::new(addresses, tls).through(self.proxies.clone())
    }

    /// The proxy on the way to the master, if one is named, and what came of the last connection that was to go by it.
    pub fn proxy(&self) -> Option<(Proxy, Option<Arc<Tried>>)> {
        let proxies = self.proxies.to(&self.addresses.known());
        let proxy = proxies.into_iter().flatten().next()?;
        let last = self.proxies.last().filter(|tried| tried.proxy == proxy.address());
        Some((proxy, last))
    }

    async fn to_topology(&self) -> Master {
        self.master().await.lost_after(pulse::PATIENCE)
    }

    async fn connect(&self) -> ControlClient {
        ControlServiceClient::new(self.to_topology().await.service(TOPOLOGY))
    }

    /// Which LSNs topology knows for these keys.
    ///
    /// # Errors
    /// Topology cannot be reached or refuses.
    pub async fn find_lsns(&self, request: FindLsnsRequest) -> Result<FindLsnsResponse, Status> {
        Ok(self.connect().await.find_lsns(request).await?.into_inner())
    }

    /// Nodes of the hash table to begin with.
    ///
    /// # Errors
    /// The bootstrap service cannot be reached or refuses.
    pub async fn dht_contacts(&self, request: ContactsRequest) -> Result<ContactsResponse, Status> {
        let channel = self.master().await.service(DHT_BOOTSTRAP);
        Ok(BootstrapServiceClient::new(channel).contacts(request).await?.into_inner())
    }

    /// Another node's ticket, as the master has it: unopened.
    ///
    /// # Errors
    /// Topology cannot be reached, or has never seen the node.
    pub async fn node_ticket(&self, node: NodeId) -> Result<Envelope, Status> {
        let request = GetNodeTicketRequest { node_id: Bytes::copy_from_slice(node.as_bytes()) };
        let answer = self.connect().await.get_node_ticket(request).await?.into_inner();
        answer.ticket.ok_or_else(|| Status::internal("an answer without a ticket"))
    }

    /// Everything that topology holds of tasks for this node.
    ///
    /// # Errors
    /// Topology cannot be reached or refuses.
    pub async fn own_tasks(&self) -> Result<Vec<OwnTask>, Status> {
        let mut client = self.connect().await;
        let (mut tasks, mut page_token) = (Vec::new(), String::new());
        for _ in 0..OWN_TASK_PAGES {
            let page =
                client.list_own_tasks(ListOwnTasksRequest { page_size: 0, page_token }).await?.into_inner();
            tasks.extend(page.tasks);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(tasks)
    }
}

/// A handle on the channel; dropping it ends the channel.
#[derive(Debug)]
pub struct Control {
    wanted: watch::Sender<Wish>,
    frames: Arc<Outbox<Frame>>,
    pacer: Arc<Pacer>,
    task: Task,
}

/// What the driver wants of the channel.
#[derive(Debug, Default, PartialEq)]
struct Wish {
    /// It is to stand with this Hello; `None`: it is not to stand.
    hello: Option<Hello>,
    /// The last word, and then no channel any more.
    farewell: Option<Part>,
}

#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Control {
    /// `pacer` holds back what the master, or a reconnect, wants held back.
    pub fn spawn(client: Client, pacer: Arc<Pacer>) -> (Self, mpsc::Receiver<Event>) {
        let (wanted, wants) = watch::channel(Wish::default());
        let frames = Arc::new(Outbox::new(FRAMES));
        let outgoing = Outgoing { frames: frames.clone(), pacer: pacer.clone() };
        let (events, inbox) = mpsc::channel(EVENTS);
        let (resume_token, not_before) = (bytes::Bytes::new(), Instant::now() + boot_jitter());
        let keeper = Keeper { client, wants, outgoing, events, resume_token, not_before };
        let task = Task(tokio::spawn(keeper.run()));
        (Self { wanted, frames, pacer, task }, inbox)
    }

    /// The channel is to stand with this Hello; `None`: it is not to stand. `false`: that was wanted already. Else the
    /// stream that stands ends without another word.
    pub fn want(&self, hello: Option<Hello>) -> bool {
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.hello != hello;
            wanted.hello = hello;
            changed
        })
    }

    /// Begins anew, as after a loss, with the same Hello.
    pub fn restart(&self) {
        self.wanted.send_modify(|_| {});
    }

    /// Sends a frame if the channel has room for its class; `false`: it has not, and the frame is lost.
    pub fn send(&self, frame: Frame) -> bool {
        let bytes = AttachRequest { frame: Some(frame.clone()) }.encoded_len();
        self.frames.try_push(class_of(&frame), bytes, frame).is_ok()
    }

    pub fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    /// Ends the channel once the master has read this, or after a second. A stream that is just being opened is opened
    /// first: the master knows of it, and would wait for this node in vain.
    pub async fn close(mut self, farewell: Part) {
        self.wanted.send_modify(|wanted| wanted.farewell = Some(farewell));
        if tokio::time::timeout(session::FAREWELL, &mut self.task.0).await.is_err() {
            tracing::debug!("the master did not end the channel in time");
        }
    }
}

struct Keeper {
    client: Client,
    wants: watch::Receiver<Wish>,
    outgoing: Outgoing,
    events: mpsc::Sender<Event>,
    resume_token: bytes::Bytes,
    /// The master, or the morning of a whole house, asks not to come sooner.
    not_before: Instant,
}

/// What is to be said over the stream, as fast as grants allow.
struct Outgoing {
    frames: Arc<Outbox<Frame>>,
    pacer: Arc<Pacer>,
}

impl Outgoing {
    async fn next(&self) -> Option<Frame> {
        self.frames.pop(&self.pacer).await.map(|(_, frame)| frame)
    }
}

/// The most urgent thing in a frame decides.
fn class_of(frame: &Frame) -> TrafficClass {
    match frame {
        Frame::Upstream(upstream) => {
            let classes = upstream.items.iter().filter_map(|item| u8::try_from(item.class).ok());
            classes.filter_map(TrafficClass::from_number).min().unwrap_or(TrafficClass::Task)
        }
        Frame::Usage(_) | Frame::Packed(_) => TrafficClass::Telemetry,
        Frame::Hello(_) | Frame::Update(_) | Frame::Heartbeat(_) | Frame::Part(_) => TrafficClass::Control,
    }
}

/// A host that has just started is probably not the only one.
fn boot_jitter() -> Duration {
    let started = BootClock::new().now().elapsed() < JUST_STARTED;
    if started { rand::rng().random_range(Duration::ZERO..=BOOT_JITTER) } else { Duration::ZERO }
}

impl Keeper {
    /// Ends when the driver does, or when the last word is said.
    async fn run(mut self) {
        let mut backoff = Backoff::new();
        while self.wanted_hello().await.is_some() {
            self.pause(self.not_before.saturating_duration_since(Instant::now())).await;
            let Some(hello) = self.wanted_hello().await else { return };
            let Some(ended) = self.attach(hello, &mut backoff).await else { return };
            if self.wants.borrow().farewell.is_some() {
                return;
            }
            let told = match ended {
                session::Ended::Unwanted => continue,
                session::Ended::Broken { reason } => {
                    backoff.reset();
                    (Event::Down(reason), None)
                }
                session::Ended::Lost { reason, retry_after } => (Event::Down(reason), retry_after),
                session::Ended::Failed { reason, retry_after } => (Event::Failed(reason), retry_after),
                session::Ended::Stale { reason } => (Event::Stale(reason), None),
                session::Ended::Barred { reason } => (Event::Barred(reason), None),
            };
            if self.events.send(told.0).await.is_err() {
                return;
            }
            // It holds for the next wish too: who lets go of the channel and wants it again comes no sooner.
            self.not_before = Instant::now() + backoff.delay_after(told.1, &mut rand::rng());
        }
    }

    async fn wanted_hello(&mut self) -> Option<Hello> {
        let wish = self.wants.wait_for(|wish| wish.hello.is_some() || wish.farewell.is_some()).await.ok()?;
        wish.hello.clone()
    }

    /// A new wish ends the pause only if it is for no channel at all, or the last: attempts keep their distance.
    async fn pause(&mut self, delay: Duration) {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            _ = self.wants.wait_for(|wish| wish.hello.is_none() || wish.farewell.is_some()) => {}
        }
    }

    /// `None` when nobody listens any more.
    async fn attach(&mut self, mut hello: Hello, backoff: &mut Backoff) -> Option<session::Ended> {
        hello.resume_token = self.resume_token.clone();
        hello.known_revocation = self.client.trust.load().revocations().number();
        // Frames meant for the stream before mean nothing to this one.
        self.outgoing.frames.take();
        let master = self.client.to_topology().await;
        let opened = tokio::select! {
            opened = session::open(master, hello, &self.client.clock) => opened,
            // The wish changed before it was fulfilled.
            () = another_wanted(&mut self.wants) => return Some(session::Ended::Unwanted),
        };
        let (stream, welcome) = match opened {
            Ok(opened) => opened,
            Err(ended) => return Some(ended),
        };
        self.client.addresses.worked();
        // It stood before: so did everybody's.
        if !self.resume_token.is_empty() {
            self.outgoing.pacer.reopen();
        }
        self.resume_token = welcome.resume_token.clone();
        let beat = welcome.heartbeat_interval;
        self.events.send(Event::Up(Box::new(welcome))).await.ok()?;
        let begun = Instant::now();
        let ended = stream.run(beat, &self.outgoing, &self.events, &mut self.wants).await;
        if begun.elapsed() >= LASTED {
            backoff.reset();
        }
        Some(ended)
    }
}

/// Until another Hello is wanted, or none; the last word is not another wish.
async fn another_wanted(wants: &mut watch::Receiver<Wish>) {
    while wants.changed().await.is_ok() {
        if wants.borrow_and_update().farewell.is_none() {
            return;
        }
    }
    std::future::pending().await
}
