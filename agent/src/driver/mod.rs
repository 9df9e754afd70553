//! The agent's one loop: everything that happens to this node comes in here, everything it wants goes out from here.
//!
//! Priorities, highest first: the end, what the master says, what sockets bring, what ran beside, what tasks report, calls
//! and words to other places, the hash table, people on this host, timers.

mod account;
mod contacts;
mod dht;
mod downstream;
mod farewell;
mod forwarding;
mod held;
mod history;
mod intents;
mod master;
mod meetings;
mod offer;
mod overlay;
mod parts;
mod post;
mod presence;
mod revoked;
mod route;
mod sessions;
mod spool;
mod status;
mod suspicions;

use std::time::Duration;

use muster_kit::shutdown::Shutdown;
use muster_net::NetEvent;
use muster_net::dht::DhtEvent;
use muster_overlay::message::PartCode;
use muster_overlay::{Claim, Input};
use muster_proto::control::v1::{FindLsnsResponse, Part, UpstreamItem};
use muster_proto::trust::v1::Envelope;
use muster_types::{Contact, EnrollmentLink, NodeId};
use muster_wire::datagram::PeerAddress;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::{Config, ConfigError};
use crate::control::{self, Control};
use crate::donation::Donation;
use crate::enrollment::renewal::RenewalError;
use crate::identity::{Identity, StateError};
use crate::journal::{JournalError, TaskKey, Trust};
use crate::keyring::Keyring;
use crate::local;
use crate::meetings::{Meetings, Outgoing};
use crate::platform::{service, sleep};
use crate::post::Post;
use crate::relays::Relays;
use crate::super_nodes::SuperNodes;
use crate::tasks::Tasks;
use crate::volunteer::Volunteer;

use account::Account;
use history::History;
use overlay::Overlay;
use parts::Parts;
use presence::Presence;
use route::Route;
use spool::Spool;
use suspicions::Suspicions;

/// How long the parts of the agent may take to end.
const DRAIN: Duration = Duration::from_secs(10);

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
    #[error("the network's root cannot be read: {0}")]
    Trust(#[from] muster_wire::trust::TrustError),
    #[error("the overlay's sockets cannot be opened: {0}")]
    Bind(#[from] muster_net::BindError),
    #[error("letters cannot be kept: {0}")]
    Letters(String),
    #[error("local control cannot be set up: {0}")]
    Local(String),
}

/// Runs the agent of an enrolled device until the shutdown, or until somebody on this host makes it leave.
///
/// # Errors
/// It cannot begin; once begun it goes on.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), RunError> {
    loop {
        match live(&config, &shutdown).await? {
            Then::End => break,
            Then::Again => {}
            Then::Enroll(link) => held::become_another(&config, &link, &shutdown).await?,
        }
        if shutdown.is_triggered() {
            break;
        }
    }
    shutdown.trigger();
    drained(&shutdown).await;
    Ok(())
}

/// One life of the agent, with a boot nonce of its own.
async fn live(config: &Config, shutdown: &Shutdown) -> Result<Then, RunError> {
    let parts = Parts::open(config).await?;
    let shutdown = shutdown.child();
    let requests =
        local::serve(&config.socket()?, &shutdown).map_err(|error| RunError::Local(error.to_string()))?;
    let (driver, inbox) = Driver::new(config, parts, requests).await?;
    let identity = &driver.parts.identity;
    tracing::info!(node = %identity.node, network = %identity.network, "the agent runs");
    let then = driver.run(inbox, &shutdown).await;
    shutdown.trigger();
    drained(&shutdown).await;
    Ok(then)
}

async fn drained(shutdown: &Shutdown) {
    if let Err(error) = shutdown.wait_drained(DRAIN).await {
        tracing::warn!(%error, "the agent ends anyway");
    }
}

/// What comes after one life of the agent.
enum Then {
    End,
    /// The next, from the beginning.
    Again,
    /// The next, as another device.
    Enroll(EnrollmentLink),
}

/// The state behind the loop.
struct Driver {
    parts: Parts,
    presence: Presence,
    overlay: Overlay,
    table: dht::Table,
    /// `None`: the owner does not want this node to be a global super node.
    volunteer: Option<Volunteer>,
    donation: Option<Donation>,
    relays: Relays,
    keyring: Keyring,
    suspicions: Suspicions,
    meetings: Meetings,
    post: Post,
    /// Super nodes that stand for the master while it is lost.
    via: Vec<Contact>,
    control: Control,
    tasks: Tasks,
    engine: JoinHandle<()>,
    route: Route,
    history: History,
    /// As what the machine wants the control channel: as LSN with a claim, or as a lone node.
    attach_as: Option<Option<Envelope>>,
    /// What the master hears last.
    farewell: Part,
    /// The control channel stands.
    attached: bool,
    /// Why it does not, for people.
    unreached: String,
    /// What this node carries for others, and is not urgent.
    spool: Spool,
    account: Account,
    /// There was a way to the master before: the next is a reconnect.
    routed: bool,
    /// When to look at the host's network again.
    look_again: Vec<Instant>,
    /// The journal was lost, and the master is to be asked once there is a way to it.
    must_ask: bool,
    /// The own ticket does not count any more: when a new one is fetched.
    stale: Option<Instant>,
    /// Times that gossip was due.
    gossiped: u32,
    /// This device is lost, and speaks with the master alone, for a lock or an erase; or revoked.
    barred: bool,
    /// Other devices have this one's identity: it waits for an operator's word.
    held: bool,
    then: Then,
}

/// Where the loop listens.
struct Inbox {
    control: mpsc::Receiver<control::Event>,
    net: mpsc::Receiver<NetEvent>,
    table: mpsc::Receiver<DhtEvent>,
    outbox: mpsc::Receiver<UpstreamItem>,
    requests: mpsc::Receiver<local::Request>,
    /// To nodes of other places.
    calls: mpsc::Receiver<Outgoing>,
    /// Words by way of the master, and what stands for it.
    words: mpsc::Receiver<crate::post::Outgoing>,
    /// Results of what runs beside the loop.
    done: mpsc::Receiver<Done>,
}

/// What ran beside the loop, so that nothing waits for it.
enum Done {
    NotReached(NodeId),
    Knocked {
        peer: NodeId,
        answered: bool,
    },
    Lsns(Result<FindLsnsResponse, String>),
    OwnTasks(Vec<(TaskKey, String)>),
    Renewed(Box<Result<Identity, RenewalError>>),
    /// LSNs of this place, by the hash table.
    TableLsns(Vec<Claim>),
    TableContacts(Vec<PeerAddress>),
    /// Lists of revocations, by whoever put them into the hash table.
    TableRevocations(Vec<Envelope>),
}

/// Whether the loop goes on.
enum Next {
    Go,
    Leave { code: PartCode, description: String, told: Option<tokio::sync::oneshot::Sender<()>> },
}

impl Driver {
    async fn new(
        config: &Config,
        mut parts: Parts,
        requests: mpsc::Receiver<local::Request>,
    ) -> Result<(Self, Inbox), RunError> {
        let presence = Presence::new(&parts.client.addresses.known());
        let (overlay, net) = Overlay::open(config, &parts, &presence).await?;
        let datagrams = overlay.endpoint().take_sealed().unwrap_or_else(|| mpsc::channel(1).1);
        let (table, table_events) =
            dht::Table::start(&parts, presence.boot_nonce(), overlay.endpoint(), datagrams)?;
        let (client, endpoint) = (parts.client.clone(), overlay.endpoint().clone());
        let keyring = Keyring::new(table.handle(), client, endpoint, parts.clock.clone());
        let super_nodes = SuperNodes::new(table.handle(), parts.identity.network, parts.identity.node);
        let (meetings, relays, calls) = meetings::start(
            &parts,
            presence.boot_nonce(),
            overlay.endpoint(),
            keyring.clone(),
            super_nodes.clone(),
        )?;
        let around = post::around(
            &parts,
            overlay.endpoint(),
            (table.handle(), super_nodes),
            &keyring,
            (&meetings, &relays),
        );
        let (post, words) =
            Post::spawn(around, parts.state.path()).map_err(|error| RunError::Letters(error.to_string()))?;
        let (tasks, engine, outbox) = parts.start_tasks().await?;
        let (control, events) = Control::spawn(parts.client.clone(), overlay.endpoint().pacer().clone());
        let (volunteer, donation) = offer::begin(config, &parts, overlay.endpoint())?.unzip();
        let done = parts.take_done();
        let driver = Self {
            must_ask: parts.trust_in_journal == Trust::AskMaster,
            history: History::begin(parts.clock.clone()),
            route: Route::none("not yet attached"),
            attach_as: None,
            farewell: Part::default(),
            attached: false,
            spool: Spool::default(),
            account: Account::default(),
            routed: false,
            unreached: "not yet attached".to_owned(),
            look_again: Vec::new(),
            stale: None,
            gossiped: 0,
            barred: false,
            held: false,
            then: Then::End,
            parts,
            presence,
            overlay,
            table,
            volunteer,
            donation,
            relays,
            keyring,
            suspicions: Suspicions::default(),
            meetings,
            post,
            via: Vec::new(),
            control,
            tasks,
            engine,
        };
        Ok((
            driver,
            Inbox { control: events, net, table: table_events, outbox, requests, calls, words, done },
        ))
    }

    async fn run(mut self, mut inbox: Inbox, shutdown: &Shutdown) -> Then {
        let mut naps = tokio::time::interval(sleep::INTERVAL);
        let mut renewal = Instant::now() + self.until_first_renewal();
        let mut accounts = tokio::time::interval_at(Instant::now() + account::INTERVAL, account::INTERVAL);
        let mut gossip = tokio::time::interval_at(Instant::now() + revoked::GOSSIP, revoked::GOSSIP);
        self.look_at_network();
        self.look_for_oneself();
        self.meet_table();
        self.act().await;
        service::ready();
        loop {
            let timer = Instant::now() + self.overlay.until_timer();
            let look = self.look_again.iter().min().copied();
            let renew = self.stale.map_or(renewal, |stale| stale.min(renewal));
            let spool = self.spool.due();
            let next = tokio::select! {
                biased;
                () = shutdown.triggered() => Next::leaving(),
                Some(event) = inbox.control.recv() => self.on_control(event).await,
                Some(event) = inbox.net.recv() => self.on_net_event(event).await,
                Some(done) = inbox.done.recv() => self.on_done(done, &mut renewal).await,
                Some(item) = inbox.outbox.recv() => self.on_item(item, &mut inbox.outbox),
                Some(call) = inbox.calls.recv() => self.carry_call(call),
                Some(word) = inbox.words.recv() => self.on_post(word),
                Some(event) = inbox.table.recv() => self.on_table(&event).await,
                Some(request) = inbox.requests.recv() => self.on_request(request),
                () = tokio::time::sleep_until(look.unwrap_or(timer)), if look.is_some() => self.on_look().await,
                () = tokio::time::sleep_until(timer) => self.on_timer().await,
                () = tokio::time::sleep_until(renew) => self.on_renewal_due(&mut renewal),
                () = tokio::time::sleep_until(spool.unwrap_or(timer)), if spool.is_some() => self.on_spool_due(),
                _ = accounts.tick() => self.on_account_due(),
                _ = gossip.tick() => self.on_gossip_due(),
                _ = naps.tick() => self.on_nap_check().await,
            };
            if let Next::Leave { code, description, told } = next {
                return self.leave(&mut inbox, code, description, told).await;
            }
        }
    }

    async fn on_net_event(&mut self, event: NetEvent) -> Next {
        self.on_net(event).await;
        Next::Go
    }

    async fn on_timer(&mut self) -> Next {
        self.overlay.on_timer();
        self.act().await;
        Next::Go
    }

    async fn on_look(&mut self) -> Next {
        let now = Instant::now();
        self.look_again.retain(|moment| *moment > now);
        self.look_at_network();
        self.act().await;
        Next::Go
    }

    async fn on_nap_check(&mut self) -> Next {
        self.overlay.look_at_clock();
        self.act().await;
        self.look_at_table();
        service::alive();
        Next::Go
    }

    /// The machine knows already.
    fn on_woke_up(&mut self, slept: Duration) {
        tracing::info!(?slept, "the host slept");
        self.overlay.endpoint().network_changed();
        self.table.woke_up();
        // A stream that stood before proves nothing.
        self.control.restart();
        self.look_at_network();
        self.tell_addresses();
    }

    async fn on_done(&mut self, done: Done, renewal: &mut Instant) -> Next {
        match done {
            Done::NotReached(peer) => self.overlay.handle(Input::OpenFailed { peer }),
            Done::Knocked { peer, answered } => self.overlay.handle(Input::Knocked { peer, answered }),
            Done::Lsns(found) => self.on_lsns(found),
            Done::OwnTasks(tasks) => self.tasks.adopt(tasks).await,
            Done::TableLsns(claims) => {
                let known = (!claims.is_empty()).then_some(claims);
                self.overlay.handle(Input::MasterAnswered(known));
            }
            Done::TableContacts(contacts) => self.keep_table_contacts(&contacts),
            Done::TableRevocations(lists) => self.on_table_revocations(&lists),
            Done::Renewed(renewed) => *renewal = Instant::now() + self.on_renewed(*renewed),
        }
        self.act().await;
        Next::Go
    }
}

impl Next {
    fn leaving() -> Self {
        Self::Leave { code: PartCode::LEAVING, description: "the agent ends".to_owned(), told: None }
    }
}
