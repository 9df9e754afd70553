//! The node's one endpoint: its sockets, its sessions, its discovery. A handle; dropping the last one ends
//! every task behind it.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use muster_types::{Contact, NetworkId, NodeId, Timestamp};
use muster_wire::TrustStore;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::{Config, DateClock, Material};
use crate::discovery::Discovery;
use crate::error::{BindError, CloseCode, CloseReason, DialError};
use crate::event::{EVENTS, NetEvent};
use crate::handshake::HandshakeError;
use crate::legs::{self, Legs, RelayLeg};
use crate::pacer::Pacer;
use crate::path::{Path, VirtualAddress};
use crate::peers::{Attempt, Cancelled, Peers};
use crate::quic::{Carrier, Quic};
use crate::reach::Reach;
use crate::relayed::RelayRoute;
use crate::routes::Routes;
use crate::sealed::{self, Sealed};
use crate::sent::Sent;
use crate::session::{Opening, Session};
use crate::socket::Sockets;
use crate::upgrade::{self, Upgrades};
use crate::usage::{Traffic, Usage};
use crate::{accept, dial, knock, stun, tcp};

/// The peers' chance to hear that this endpoint closes.
const FAREWELL: Duration = Duration::from_secs(1);

/// A handle; clones are the same endpoint.
#[derive(Clone)]
pub struct Endpoint {
    shared: Arc<Shared>,
    _tasks: Arc<DropGuard>,
}

/// What the endpoint's tasks have in common.
pub(crate) struct Shared {
    pub(crate) network: NetworkId,
    pub(crate) node: NodeId,
    pub(crate) port: u16,
    pub(crate) udp: bool,
    pub(crate) quic: Quic,
    pub(crate) routes: Arc<Routes>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) reach: Reach,
    pub(crate) upgrades: Upgrades,
    pub(crate) discovery: Discovery,
    pub(crate) usage: Arc<Usage>,
    pub(crate) sent_to: Arc<Sent>,
    pub(crate) events: mpsc::Sender<NetEvent>,
    pub(crate) sealed: mpsc::Sender<Sealed>,
    pub(crate) probes: mpsc::Sender<Sealed>,
    pub(crate) questions: stun::Questions,
    knocks: Semaphore,
    pub(crate) legs: Legs,
    /// Until somebody takes them.
    sealed_receiver: Mutex<Option<mpsc::Receiver<Sealed>>>,
    relayed_receiver: Mutex<Option<mpsc::Receiver<Sealed>>>,
    probes_receiver: Mutex<Option<mpsc::Receiver<Sealed>>>,
    pacer: Arc<Pacer>,
    trust: ArcSwap<TrustStore>,
    hello: ArcSwap<Bytes>,
    clock: DateClock,
    idle_timeout: Duration,
    tasks: CancellationToken,
}

impl Endpoint {
    /// Opens the sockets and begins to listen. The receiver must be read: it slows the peers down when it is full.
    ///
    /// # Errors
    /// No port could be opened, or the certificate, key or roots cannot be used.
    pub async fn bind(config: Config) -> Result<(Self, mpsc::Receiver<NetEvent>), BindError> {
        let (network, node) = config.material.identity()?;
        let mut sockets = Sockets::open(&config.bind, config.port, config.udp, config.tcp)?;
        let usage = Arc::new(Usage::default());
        let sent_to = Arc::new(Sent::default());
        let (events, receiver) = mpsc::channel(EVENTS);
        let discovery =
            Discovery::new(config.discovery.clone(), &sockets, Arc::clone(&usage), Arc::clone(&sent_to))?;
        let (tap, tapped) = Discovery::tap();
        let (sealed, sealed_receiver) = mpsc::channel(sealed::WAITING);
        let (relayed, relayed_receiver) = mpsc::channel(legs::WAITING);
        let (probes, probes_receiver) = mpsc::channel(sealed::PROBES);
        let (routes, packets) = Routes::new(sealed.clone());
        let (v4, v6) = (sockets.udp_v4.take(), sockets.udp_v6.take());
        let carrier =
            Carrier::new(v4, v6, sockets.port, (Arc::clone(&routes), packets), tap, Arc::clone(&sent_to))?;
        let shared = Arc::new(Shared {
            network,
            node,
            port: sockets.port,
            udp: config.udp,
            quic: Quic::start(&config, carrier)?,
            routes,
            peers: Peers::new(node),
            reach: Reach::default(),
            upgrades: Upgrades::default(),
            discovery,
            usage,
            sent_to,
            events,
            sealed,
            probes,
            questions: stun::Questions::default(),
            knocks: Semaphore::new(knock::AT_ONCE),
            legs: Legs::new(relayed),
            sealed_receiver: Mutex::new(Some(sealed_receiver)),
            relayed_receiver: Mutex::new(Some(relayed_receiver)),
            probes_receiver: Mutex::new(Some(probes_receiver)),
            pacer: Arc::default(),
            trust: ArcSwap::new(config.trust),
            hello: ArcSwap::from_pointee(config.hello),
            clock: config.clock,
            idle_timeout: config.idle_timeout,
            tasks: CancellationToken::new(),
        });
        shared.spawn(accept::quic(Arc::clone(&shared)));
        for listener in sockets.tcp {
            shared.spawn(accept::tcp(Arc::clone(&shared), listener));
        }
        shared.spawn(upgrade::run(Arc::clone(&shared)));
        crate::discovery::start(&shared, tapped);
        let tasks = Arc::new(shared.tasks.clone().drop_guard());
        Ok((Self { shared, _tasks: tasks }, receiver))
    }

    pub fn node(&self) -> NodeId {
        self.shared.node
    }

    /// The port of UDP and TCP alike.
    pub fn port(&self) -> u16 {
        self.shared.port
    }

    /// A session with this node: the one that stands, or a new one. Dials from both ends at once become one.
    ///
    /// # Errors
    /// No address answered, or what answered is not that node.
    pub async fn connect(&self, contact: Contact) -> Result<Session, DialError> {
        dial::connect(&self.shared, &contact).await
    }

    /// Another session with a node whose session is silent, by TCP; it replaces that one when it comes about.
    ///
    /// # Errors
    /// No address answered, or what answered is not that node.
    pub async fn probe(&self, contact: Contact) -> Result<Session, DialError> {
        dial::probe(&self.shared, &contact).await
    }

    /// Whether uninvited packets reach a node, beside any session with it.
    pub async fn knock(&self, contact: &Contact) -> bool {
        knock::knock(&self.shared.knocks, self.shared.port, contact).await
    }

    /// The same as [`connect`](Self::connect) by one path alone, such as a relay's.
    ///
    /// # Errors
    /// It leads nowhere, or to another node.
    pub async fn connect_by(&self, peer: NodeId, path: Path) -> Result<Session, DialError> {
        dial::connect_by(&self.shared, peer, path).await
    }

    /// A path through a relay, for whoever speaks with relays. `None`: there are too many.
    pub fn relay_route(&self) -> Option<RelayRoute> {
        RelayRoute::open(&self.shared.routes)
    }

    /// Datagrams to and from the relay at this address: one leg an address, the newest.
    pub fn relay_leg(&self, at: SocketAddr) -> RelayLeg {
        RelayLeg::open(&self.shared, at)
    }

    /// Datagrams of those for whom this node relays, unread. Once: there is one reader.
    pub fn take_relayed(&self) -> Option<mpsc::Receiver<Sealed>> {
        self.shared.relayed_receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Sends one of a relay's datagrams.
    pub fn send_relayed(&self, to: SocketAddr, datagram: &[u8]) {
        self.shared.discovery.send(to, datagram, Traffic::Relayed);
    }

    /// How another node, or any STUN server, sees this endpoint's UDP socket, and the round trip. `None`: no answer.
    pub async fn ask_sight(&self, server: SocketAddr) -> Option<(SocketAddr, Duration)> {
        stun::ask(&self.shared, server).await
    }

    /// Sends a sealed probe from the socket that sessions use.
    pub fn send_probe(&self, to: SocketAddr, datagram: &[u8]) {
        self.shared.discovery.send(to, datagram, Traffic::Probe);
    }

    /// The session that stands with this node.
    pub fn session(&self, peer: NodeId) -> Option<Session> {
        self.shared.peers.session(peer)
    }

    pub fn sessions(&self) -> Vec<Session> {
        self.shared.peers.sessions()
    }

    /// Believes by another store from the next handshake on, and cuts sessions with whom it does not admit any more;
    /// says with how many.
    pub fn set_trust(&self, trust: Arc<TrustStore>) -> usize {
        self.shared.trust.store(trust);
        self.shared.cut_revoked()
    }

    /// Says another Hello from now on: after a renewal, with the new ticket.
    pub fn set_hello(&self, hello: Bytes) {
        self.shared.hello.store(Arc::new(hello));
    }

    /// New sessions use this certificate; those that stand go on.
    ///
    /// # Errors
    /// The certificate, key or roots cannot be used.
    pub fn set_material(&self, material: &Material) -> Result<(), BindError> {
        self.shared.quic.reload(material)
    }

    /// The host's network changed, or it woke up: every session looks for its peer at once, and discovery listens
    /// on the interfaces that are there now.
    pub fn network_changed(&self) {
        self.shared.network_changed();
    }

    /// Names the network that the host is on: what gets through is remembered for each.
    pub fn enter_network(&self, name: &str) {
        self.shared.reach.enter(name);
    }

    /// Tells the local network, by multicast and broadcast of both families.
    pub fn multicast(&self, datagram: &[u8]) {
        self.shared.discovery.multicast(datagram);
    }

    /// Answers one node of the local network.
    pub fn answer(&self, to: SocketAddr, datagram: &[u8]) {
        self.shared.discovery.answer(to, datagram);
    }

    /// Sealed datagrams that come, by whatever path. Once: there is one reader.
    pub fn take_sealed(&self) -> Option<mpsc::Receiver<Sealed>> {
        self.shared.sealed_receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Probes of nodes that are about to meet this one, unopened: anybody may have sent them. Once: there is one reader.
    pub fn take_probes(&self) -> Option<mpsc::Receiver<Sealed>> {
        self.shared.probes_receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Sends a sealed datagram by UDP, or into the route that the address stands for.
    pub fn send_sealed(&self, to: SocketAddr, datagram: &[u8]) {
        if !self.shared.routes.carry(to, datagram, None) {
            self.shared.discovery.send(to, datagram, Traffic::Sealed);
        }
    }

    /// How long ago anything last went to that IP address by UDP. `None`: not within ten minutes.
    pub fn sent_ago(&self, to: IpAddr) -> Option<Duration> {
        self.shared.sent_to.ago(to)
    }

    /// Sends a probe of reachability, which nobody answers.
    pub fn send_reach_probe(&self, to: SocketAddr, datagram: &[u8]) {
        self.shared.discovery.send(to, datagram, Traffic::Discovery);
    }

    /// Takes rate grants.
    pub fn pacer(&self) -> &Arc<Pacer> {
        &self.shared.pacer
    }

    pub fn usage(&self) -> &Usage {
        &self.shared.usage
    }

    /// Closes every session after what was queued has gone out, and then everything else.
    pub async fn close(self, reason: &str) {
        let sessions = self.shared.peers.sessions();
        for session in &sessions {
            session.close(CloseCode::Done, reason);
        }
        let ended = async {
            for session in &sessions {
                session.ended().await;
            }
            self.shared.quic.close();
            self.shared.quic.closed().await;
        };
        // A peer that does not answer is not waited for.
        let _ = tokio::time::timeout(2 * FAREWELL, ended).await;
    }
}

impl Shared {
    /// Runs until the endpoint is dropped.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let tasks = self.tasks.clone();
        tokio::spawn(async move { tasks.run_until_cancelled_owned(task).await });
    }

    pub(crate) fn trust(&self) -> Arc<TrustStore> {
        self.trust.load_full()
    }

    pub(crate) fn hello(&self) -> Arc<Bytes> {
        self.hello.load_full()
    }

    fn cut_revoked(&self) -> usize {
        let sessions = self.peers.sessions();
        sessions.iter().filter(|session| self.cut_if_revoked(session)).count()
    }

    fn cut_if_revoked(&self, session: &Session) -> bool {
        let trust = self.trust();
        let serial = &session.hello().ticket.certificate_serial;
        let revoked = trust.revocations().of_holder(session.peer(), serial, None);
        if let Some(revoked) = revoked {
            let reason = format!("its certificate is {}", revoked.reason);
            session.abort(CloseCode::NotAdmitted, &reason, CloseReason::Revoked(revoked.reason));
        }
        revoked.is_some()
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    pub(crate) fn network_changed(&self) {
        self.discovery.rejoin();
        self.quic.network_changed();
        self.upgrades.hurry();
    }

    /// Lets a TCP connection carry packets under a virtual address. `None`: there are too many.
    pub(crate) fn carry(self: &Arc<Self>, stream: TcpStream, remote: SocketAddr) -> Option<VirtualAddress> {
        let path = Path::Tcp(crate::path::canonical(remote));
        let (end, outbound) = self.routes.open(|_| path)?;
        let address = end.address;
        let shared = Arc::clone(self);
        // Keep-alives come more often than this, so nothing for so long means that nobody uses it.
        let idle = self.idle_timeout;
        self.spawn(async move {
            let reason = match tcp::carry(stream, end, outbound, idle).await {
                Ok(()) => "its TCP connection was closed".to_owned(),
                Err(error) => format!("its TCP connection broke: {error}"),
            };
            shared.route_lost(address, &reason);
        });
        Some(address)
    }

    fn route_lost(&self, address: VirtualAddress, reason: &str) {
        for session in self.peers.sessions().iter().filter(|session| session.route() == Some(address)) {
            session.abort(CloseCode::PathLost, reason, CloseReason::Lost(reason.to_owned()));
        }
    }

    /// Enters a session into the table and runs it.
    pub(crate) fn start(
        self: &Arc<Self>,
        opening: Opening,
        attempt: Attempt,
    ) -> Result<Session, HandshakeError> {
        let (session, running) = Session::new(opening, Arc::clone(&self.pacer), Arc::clone(&self.usage));
        let replaced = attempt.succeed(&session).map_err(|Cancelled| HandshakeError::Duplicate)?;
        // Whoever was revoked between its handshake and now was not among the sessions that were cut.
        self.cut_if_revoked(&session);
        let (shared, opened) = (Arc::clone(self), session.clone());
        self.spawn(async move {
            if let Some(old) = replaced {
                old.replaced_by(&session).await;
            }
            tracing::info!(peer = %session.peer().short(), path = %session.path(), "session opened");
            // An error here and below: the owner is gone, and soon this task.
            let _ = shared.events.send(NetEvent::SessionOpened(session.clone())).await;
            let reason = tokio::select! {
                reason = running.run(&shared.events) => reason,
                never = session.follow_ways(&shared.events) => match never {},
            };
            shared.end(session, reason).await;
        });
        Ok(opened)
    }

    async fn end(&self, session: Session, reason: CloseReason) {
        tracing::info!(peer = %session.peer().short(), %reason, "session closed");
        self.peers.remove(&session);
        if let Some(route) = session.route() {
            self.routes.close(route);
        }
        let peer = session.peer();
        let _ = self.events.send(NetEvent::SessionClosed { peer, session: session.clone(), reason }).await;
        session.set_ended();
    }
}
