//! A session: one QUIC connection between two nodes that have proved who they are, with a stream of messages,
//! datagrams, and further streams of any traffic class. One task carries it; a [`Session`] is a handle to it.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use muster_types::NodeId;
use muster_wire::{Hello, Kind, frame};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::class::TrafficClass;
use crate::error::{CloseCode, CloseReason, SendError};
use crate::event::NetEvent;
use crate::pacer::Pacer;
use crate::path::{Path, VirtualAddress};
use crate::queue::{Outbox, Refused};
use crate::quic::{Connection, Loss, RecvStream, SendStream};
use crate::stream::{self, Stream, StreamError, StreamHeader};
use crate::usage::{Traffic, Usage};

/// Messages waiting to be sent to one peer.
const OUTBOX: usize = 64;

/// What was sent before a close may take this long to arrive.
const FLUSH: Duration = Duration::from_secs(1);

/// Which end dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Dialled,
    Accepted,
}

/// A handle; clones are the same session.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    hello: Hello,
    side: Side,
    path: Path,
    route: Option<VirtualAddress>,
    opened: Instant,
    connection: Connection,
    outbox: Arc<Outbox<Bytes>>,
    closing: Notify,
    ended: CancellationToken,
    /// Set once, by whoever closes first on this side.
    verdict: OnceLock<(CloseCode, String, CloseReason)>,
    pacer: Arc<Pacer>,
    usage: Arc<Usage>,
}

/// What becomes a session: both ends have said Hello.
pub(crate) struct Opening {
    pub(crate) connection: Connection,
    pub(crate) hello: Hello,
    pub(crate) side: Side,
    pub(crate) path: Path,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
}

/// The task's share of a session.
pub(crate) struct Running {
    session: Session,
    send: SendStream,
    recv: RecvStream,
}

impl Session {
    pub(crate) fn new(opening: Opening, pacer: Arc<Pacer>, usage: Arc<Usage>) -> (Self, Running) {
        let Opening { connection, hello, side, path, send, recv } = opening;
        let by_tcp = matches!(path, Path::Tcp(_));
        let session = Self(Arc::new(Inner {
            hello,
            side,
            path,
            route: connection.remote().filter(|_| by_tcp).and_then(VirtualAddress::from_socket_address),
            opened: Instant::now(),
            connection,
            outbox: Arc::new(Outbox::new(OUTBOX)),
            closing: Notify::new(),
            ended: CancellationToken::new(),
            verdict: OnceLock::new(),
            pacer,
            usage,
        }));
        (session.clone(), Running { session, send, recv })
    }

    pub fn peer(&self) -> NodeId {
        self.0.hello.node()
    }

    /// What the peer said of itself, verified.
    pub fn hello(&self) -> &Hello {
        &self.0.hello
    }

    pub fn side(&self) -> Side {
        self.0.side
    }

    /// What carries it now.
    pub fn path(&self) -> Path {
        let Some(remote) = self.0.connection.remote() else { return self.0.path };
        match (self.0.path, VirtualAddress::from_socket_address(remote)) {
            // A peer behind UDP may have moved, and one behind a relay may have been met.
            (Path::Udp(_) | Path::Relay(_), None) => Path::Udp(remote),
            (Path::Relay(_), Some(address)) => Path::Relay(address),
            (path, _) => path,
        }
    }

    /// Whether it began by a relay, and so may have other paths.
    pub fn is_relayed(&self) -> bool {
        matches!(self.0.path, Path::Relay(_))
    }

    /// Gives a session that began by a relay one more path: a direct one carries it from then on, another relay's stands
    /// in for the one that is gone. Only who dialled can; what is under way is not lost.
    ///
    /// # Errors
    /// The path leads nowhere, or the session has one path for good.
    pub async fn open_way(&self, path: Path) -> Result<(), String> {
        let to = match path {
            Path::Udp(address) => address,
            Path::Relay(address) => address.socket_address(),
            Path::Tcp(_) => return Err("a session does not move to TCP".to_owned()),
        };
        self.0.connection.open_way(to).await
    }

    /// Tells of every other path that carries the session; never ends by itself.
    pub(crate) async fn follow_ways(&self, events: &mpsc::Sender<NetEvent>) -> Infallible {
        if self.is_relayed() {
            let changed = Notify::new();
            let follow = self.0.connection.follow_ways(|| changed.notify_one());
            let tell = async {
                loop {
                    changed.notified().await;
                    // The owner is gone, and soon this task.
                    let _ = events.send(NetEvent::PathChanged(self.clone())).await;
                }
            };
            tokio::select! {
                () = follow => {}
                () = tell => {}
            }
        }
        std::future::pending().await
    }

    /// Where the peer's packets come from, if this host sees it.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.path().remote()
    }

    /// Where packets to the peer go, be it real or virtual: for datagrams beside the session's own.
    pub fn carrier_address(&self) -> Option<SocketAddr> {
        self.0.connection.remote().map(crate::path::canonical)
    }

    /// Where the peer says that this node's packets come from. Its own word.
    pub fn observed(&self) -> Option<SocketAddr> {
        let udp = matches!(self.0.path, Path::Udp(_));
        self.0.connection.observed().filter(|_| udp)
    }

    pub fn rtt(&self) -> Option<Duration> {
        self.0.connection.rtt()
    }

    pub fn opened(&self) -> Instant {
        self.0.opened
    }

    /// UDP payload bytes of this session so far, sent and received, everything included.
    pub fn traffic(&self) -> (u64, u64) {
        self.0.connection.traffic()
    }

    pub fn is_closed(&self) -> bool {
        self.0.verdict.get().is_some() || self.0.connection.close_reason().is_some()
    }

    /// Queues a message, waiting while the queue is full.
    ///
    /// # Errors
    /// The message is too large, or the session has ended.
    pub async fn send(&self, message: Bytes) -> Result<(), SendError> {
        let (class, frame) = (class_of(&message), frame::framed(&message)?);
        self.0.outbox.push(class, frame.len(), frame).await.map_err(|_| SendError::Closed(self.peer()))
    }

    /// Queues a message, or says at once why not.
    ///
    /// # Errors
    /// The message is too large, the queue full, or the session has ended.
    pub fn try_send(&self, message: &[u8]) -> Result<(), SendError> {
        self.try_send_as(class_of(message), message)
    }

    /// The same for a message whose class its content decides.
    ///
    /// # Errors
    /// The message is too large, there is no room for its class, or the session has ended.
    pub fn try_send_as(&self, class: TrafficClass, message: &[u8]) -> Result<(), SendError> {
        let frame = frame::framed(message)?;
        self.0.outbox.try_push(class, frame.len(), frame).map_err(|refused| match refused {
            Refused::Full => SendError::Full(self.peer()),
            Refused::Closed => SendError::Closed(self.peer()),
        })
    }

    /// Sends a datagram now; if the path is busy, the oldest waiting one is dropped.
    ///
    /// # Errors
    /// It exceeds what the path carries, or the session has ended.
    pub fn send_datagram(&self, bytes: Bytes) -> Result<(), SendError> {
        let actual = bytes.len();
        self.0.connection.send_datagram(bytes).map_err(|limit| match limit {
            Some(limit) => SendError::DatagramTooLarge { peer: self.peer(), actual, limit },
            None => SendError::Closed(self.peer()),
        })?;
        self.0.usage.sent(Traffic::Datagram, actual);
        Ok(())
    }

    /// Opens a further stream to the peer, which learns its class and kind from the header.
    ///
    /// # Errors
    /// The session has ended.
    pub async fn open_stream(&self, header: StreamHeader) -> Result<Stream, StreamError> {
        let (send, recv) = self.0.connection.open().await?;
        stream::open(header, send, recv, Arc::clone(&self.0.pacer), Arc::clone(&self.0.usage)).await
    }

    /// The next stream that the peer opens. A stream whose header is not understood is refused, and is an error.
    ///
    /// # Errors
    /// The session has ended, or the stream's header is not understood.
    pub async fn accept_stream(&self) -> Result<Stream, StreamError> {
        let (send, recv) = self.0.connection.accept().await?;
        stream::accept(send, recv, Arc::clone(&self.0.pacer), Arc::clone(&self.0.usage)).await
    }

    /// Ends the session after what was queued has gone out, or a second.
    pub fn close(&self, code: CloseCode, reason: impl Into<String>) {
        if self.0.verdict.set((code, reason.into(), CloseReason::Local)).is_ok() {
            self.0.closing.notify_one();
        }
    }

    /// Ends it now.
    pub(crate) fn abort(&self, code: CloseCode, reason: &str, shown: CloseReason) {
        let verdict = (code, reason.to_owned(), shown);
        if self.0.verdict.set(verdict).is_ok() {
            self.0.connection.close(code, reason);
        }
    }

    /// The peer goes on with another session. What was queued here still goes out if it only leaves TCP for UDP; else this
    /// one has broken.
    pub(crate) async fn replaced_by(&self, next: &Self) {
        const WHY: &str = "a new session replaces it";
        if matches!((self.path(), next.path()), (Path::Tcp(_), Path::Udp(_))) {
            if self.0.verdict.set((CloseCode::Duplicate, WHY.to_owned(), CloseReason::Replaced)).is_ok() {
                self.0.closing.notify_one();
            }
        } else {
            self.abort(CloseCode::Duplicate, WHY, CloseReason::Replaced);
        }
        self.ended().await;
    }

    pub(crate) fn boot_nonce(&self) -> u64 {
        self.0.hello.boot_nonce
    }

    /// The virtual address of the TCP connection that is its own. A relay's route is the channel's, which outlives sessions.
    pub(crate) fn route(&self) -> Option<VirtualAddress> {
        self.0.route
    }

    /// Told once, after the session's last event.
    pub(crate) fn set_ended(&self) {
        self.0.ended.cancel();
    }

    /// Waits until nothing goes through it any more.
    pub async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    pub(crate) fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({} by {})", self.peer().short(), self.0.path)
    }
}

impl Running {
    /// Carries the session until it ends, and says why it did.
    pub(crate) async fn run(self, events: &mpsc::Sender<NetEvent>) -> CloseReason {
        let Self { session, send, recv } = self;
        let loss = tokio::select! {
            loss = read_messages(&session, recv, events) => loss,
            loss = write_messages(&session, send) => loss,
            loss = read_datagrams(&session, events) => loss,
        };
        session.0.outbox.close();
        match session.0.verdict.get() {
            Some((_, _, reason)) => reason.clone(),
            None => loss,
        }
    }
}

async fn read_messages(session: &Session, mut recv: RecvStream, events: &mpsc::Sender<NetEvent>) -> Loss {
    let connection = &session.0.connection;
    loop {
        let bytes = match stream::read_frame(&mut recv).await {
            Ok(Some(bytes)) => bytes,
            // The peer is about to close; its reason is on the way.
            Ok(None) => return timeout(2 * FLUSH, connection.closed()).await.unwrap_or(Loss::Local),
            Err(StreamError::Session(loss)) => return loss,
            Err(error) => {
                let what = format!("{} sent {error}", session.peer());
                let shown = CloseReason::Misbehaved(what.clone());
                session.abort(CloseCode::Misbehaved, &what, shown.clone());
                return shown;
            }
        };
        session.0.usage.received(Traffic::Message(Kind::of(&bytes)), bytes.len());
        if events.send(NetEvent::Message { from: session.clone(), bytes }).await.is_err() {
            return Loss::Local;
        }
    }
}

async fn write_messages(session: &Session, mut send: SendStream) -> Loss {
    let connection = &session.0.connection;
    loop {
        let frame = tokio::select! {
            biased;
            Some((_, frame)) = session.0.outbox.pop(&session.0.pacer) => frame,
            () = session.0.closing.notified() => break,
        };
        if let Err(loss) = write(session, &mut send, &frame).await {
            return loss;
        }
    }
    let rest = session.0.outbox.close();
    let flush = async {
        for frame in rest {
            write(session, &mut send, &frame).await?;
        }
        if send.finish().is_ok() {
            let _ = send.stopped().await;
        }
        Ok::<(), Loss>(())
    };
    // A peer that takes nothing more in does not keep the session open.
    let _ = timeout(FLUSH, flush).await;
    if let Some((code, reason, _)) = session.0.verdict.get() {
        connection.close(*code, reason);
    }
    Loss::Local
}

fn class_of(message: &[u8]) -> TrafficClass {
    Traffic::Message(Kind::of(message)).class()
}

async fn write(session: &Session, send: &mut SendStream, frame: &[u8]) -> Result<(), Loss> {
    let message = &frame[frame::HEADER_BYTES..];
    session.0.usage.sent(Traffic::Message(Kind::of(message)), message.len());
    if send.write_all(frame).await.is_ok() {
        return Ok(());
    }
    let connection = &session.0.connection;
    // The peer stopped the stream of messages without closing: nobody of ours does that.
    Err(connection.close_reason().unwrap_or_else(|| Loss::Misbehaved("it stopped reading".to_owned())))
}

async fn read_datagrams(session: &Session, events: &mpsc::Sender<NetEvent>) -> Loss {
    loop {
        let bytes = match session.0.connection.read_datagram().await {
            Ok(bytes) => bytes,
            // The stream of messages may still hold some; its reader ends the session.
            Err(_) => return std::future::pending().await,
        };
        session.0.usage.received(Traffic::Datagram, bytes.len());
        let event = NetEvent::Datagram { from: session.clone(), bytes };
        if let Err(mpsc::error::TrySendError::Closed(_)) = events.try_send(event) {
            return Loss::Local;
        }
    }
}
