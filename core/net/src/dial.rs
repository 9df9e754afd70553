//! Dials a node: its UDP addresses first, its TCP ports shortly after, or the other way round where UDP is known to be
//! dropped; whichever answers first wins and the others are dropped (in the manner of RFC 8305, Happy Eyeballs).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_types::{Contact, Identity, NodeId, limits};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::endpoint::Shared;
use crate::error::DialError;
use crate::handshake;
use crate::path::{Path, VirtualAddress};
use crate::peers::{Attempt, Begin};
use crate::quic::Connection;
use crate::routes::Routes;
use crate::session::Session;

/// Between two addresses of one kind: RFC 8305's least ("Connection Attempt Delay"), since most are of one LAN.
const STAGGER: Duration = Duration::from_millis(100);

/// UDP's head start before TCP is tried as well; TCP's where UDP is known to be dropped.
const HEAD_START: Duration = Duration::from_millis(300);

/// A dial as a whole, before the Hello.
const DIAL: Duration = Duration::from_secs(5);

/// A session with `contact`: the one that stands, the one that somebody else is about to open, or a new one.
pub(crate) async fn connect(shared: &Arc<Shared>, contact: &Contact) -> Result<Session, DialError> {
    let candidates = || candidates(shared, contact);
    connect_to(shared, contact.node, candidates, |session| note(shared, contact, session)).await
}

/// The same by one path.
pub(crate) async fn connect_by(shared: &Arc<Shared>, peer: NodeId, path: Path) -> Result<Session, DialError> {
    connect_to(shared, peer, || vec![Candidate { path, after: Duration::ZERO }], |_| {}).await
}

async fn connect_to(
    shared: &Arc<Shared>,
    peer: NodeId,
    candidates: impl Fn() -> Vec<Candidate>,
    dialled: impl Fn(&Session),
) -> Result<Session, DialError> {
    if peer == shared.node {
        return Err(DialError::NoAddress(peer));
    }
    loop {
        match shared.peers.begin(peer) {
            Begin::Open(session) => return Ok(session),
            Begin::Underway(done) => {
                done.cancelled().await;
                // Whoever was at it has failed if there is no session now; so would we.
                return shared.peers.session(peer).ok_or_else(|| unreachable(peer, "another attempt failed"));
            }
            Begin::Mine(attempt) => match dial(shared, peer, candidates(), attempt).await {
                // The peer's own dial goes first: it is underway.
                Ok(None) => continue,
                Ok(Some(session)) => {
                    dialled(&session);
                    return Ok(session);
                }
                // A crossing dial may have become the session instead.
                Err(error) => return shared.peers.session(peer).ok_or(error),
            },
        }
    }
}

/// A second session by UDP beside the one by TCP, which it replaces once it stands.
pub(crate) async fn upgrade(shared: &Arc<Shared>, contact: &Contact) -> Result<Session, DialError> {
    let session = beside(shared, contact, |path| matches!(path, Path::Udp(_))).await?;
    note(shared, contact, &session);
    Ok(session)
}

/// A session by TCP beside one that is silent, which it replaces once it stands.
pub(crate) async fn probe(shared: &Arc<Shared>, contact: &Contact) -> Result<Session, DialError> {
    let session = beside(shared, contact, |path| matches!(path, Path::Tcp(_))).await?;
    shared.upgrades.plan(contact);
    Ok(session)
}

async fn beside(
    shared: &Arc<Shared>,
    contact: &Contact,
    by: impl Fn(Path) -> bool,
) -> Result<Session, DialError> {
    let peer = contact.node;
    let attempt = shared.peers.begin_again(peer);
    let attempt = attempt.ok_or_else(|| unreachable(peer, "another dial is underway"))?;
    let mut candidates = candidates(shared, contact);
    candidates.retain(|candidate| by(candidate.path));
    let session = dial(shared, peer, candidates, attempt).await?;
    session.ok_or_else(|| unreachable(peer, "its own dial goes first"))
}

/// What the way that a session took says of this network.
fn note(shared: &Shared, contact: &Contact, session: &Session) {
    match session.path() {
        Path::Udp(_) => shared.reach.udp_worked(Instant::now()),
        Path::Tcp(_) => {
            if shared.udp && contact.addresses.iter().any(|address| address.udp().is_some()) {
                shared.reach.udp_failed(Instant::now());
            }
            shared.upgrades.plan(contact);
        }
        Path::Relay(_) => {}
    }
}

/// `None`: the peer's dial is preferred.
async fn dial(
    shared: &Arc<Shared>,
    peer: NodeId,
    candidates: Vec<Candidate>,
    attempt: Attempt,
) -> Result<Option<Session>, DialError> {
    if candidates.is_empty() {
        return Err(DialError::NoAddress(peer));
    }
    let raced = tokio::select! {
        raced = timeout(DIAL, race(shared, peer, candidates)) => raced,
        () = attempt.cancelled() => return Ok(None),
    };
    let reason = match raced {
        Ok(Ok(connection)) => {
            let opened = handshake::dialled(shared, connection, attempt).await;
            return opened.map(Some).map_err(|error| DialError::Refused { peer, reason: error.to_string() });
        }
        Ok(Err(reason)) => reason,
        Err(_) => format!("no answer within {DIAL:?}"),
    };
    Err(unreachable(peer, &reason))
}

fn unreachable(peer: NodeId, reason: &str) -> DialError {
    DialError::Unreachable { peer, reason: reason.to_owned() }
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    path: Path,
    /// After the one before it was started.
    after: Duration,
}

fn candidates(shared: &Shared, contact: &Contact) -> Vec<Candidate> {
    let addresses = || contact.addresses.iter().take(limits::ADDRESSES);
    let udp = addresses().filter_map(|address| address.udp()).map(Path::Udp).filter(|_| shared.udp);
    let tcp = addresses().filter_map(|address| address.tcp()).map(Path::Tcp);
    let (mut paths, rest): (Vec<_>, Vec<_>) = match shared.reach.drops_udp(Instant::now()) {
        true => (tcp.collect(), udp.collect()),
        false => (udp.collect(), tcp.collect()),
    };
    let first = paths.len();
    paths.extend(rest);
    let after = |index| match index {
        0 => Duration::ZERO,
        _ if index == first => HEAD_START,
        _ => STAGGER,
    };
    paths.into_iter().enumerate().map(|(index, path)| Candidate { path, after: after(index) }).collect()
}

/// The first connection that comes about. A failure starts the next candidate at once.
async fn race(shared: &Arc<Shared>, peer: NodeId, candidates: Vec<Candidate>) -> Result<Connection, String> {
    let mut attempts = JoinSet::new();
    let mut failures = Vec::new();
    let mut waiting = candidates.into_iter().peekable();
    let mut started = Instant::now();
    loop {
        let next = waiting.peek().map(|candidate| started + candidate.after);
        tokio::select! {
            Some(result) = attempts.join_next() => match result {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(failure)) => failures.push(failure),
                Err(panic) => failures.push(panic.to_string()),
            },
            () = sleep_until(next.unwrap_or(started)), if next.is_some() && !attempts.is_empty() => {}
            else => {}
        }
        let due = attempts.is_empty() || next.is_some_and(|at| Instant::now() >= at);
        match waiting.next_if(|_| due) {
            Some(candidate) => {
                attempts.spawn(open(Arc::clone(shared), peer, candidate.path));
                started = Instant::now();
            }
            None if attempts.is_empty() => return Err(failures.join("; ")),
            None => {}
        }
    }
}

async fn open(shared: Arc<Shared>, peer: NodeId, path: Path) -> Result<Connection, String> {
    let opened = match path {
        Path::Udp(address) => over(&shared, peer, address).await,
        Path::Tcp(address) => over_tcp(&shared, peer, address).await,
        Path::Relay(address) => over_relay(&shared, peer, address).await,
    };
    opened.map_err(|error| format!("{path}: {error}"))
}

async fn over(shared: &Shared, peer: NodeId, address: SocketAddr) -> Result<Connection, String> {
    let name = Identity::node(shared.network, peer).server_name().unwrap_or_default();
    shared.quic.connect(address, &name).await
}

async fn over_relay(shared: &Shared, peer: NodeId, address: VirtualAddress) -> Result<Connection, String> {
    let name = Identity::node(shared.network, peer).server_name().unwrap_or_default();
    shared.quic.connect_relayed(address.socket_address(), &name).await
}

async fn over_tcp(shared: &Arc<Shared>, peer: NodeId, address: SocketAddr) -> Result<Connection, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let route = shared.carry(stream, address).ok_or("too many connections that carry packets")?;
    let unused = UnusedRoute { address: Some(route), routes: Arc::clone(&shared.routes) };
    let connection = over(shared, peer, route.socket_address()).await?;
    unused.keep();
    Ok(connection)
}

/// Closes the TCP connection under a handshake that failed or was given up.
struct UnusedRoute {
    address: Option<VirtualAddress>,
    routes: Arc<Routes>,
}

impl UnusedRoute {
    fn keep(mut self) {
        self.address = None;
    }
}

impl Drop for UnusedRoute {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            self.routes.close(address);
        }
    }
}
