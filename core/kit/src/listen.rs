//! One TCP port for a whole master: the first byte tells TLS from plain HTTP, the server name tells the services apart.
//!
//! Connection -> (permit) -> first byte -> ClientHello -> the named service's certificate -> handshake -> its queue.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use muster_types::{Identity, Instant};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::admission::Admission;
use crate::shutdown::Shutdown;
use crate::tls::{ServerTls, peer_identity};

mod busy;
mod plain;

pub use plain::ROOT_PATH;

/// What plain HTTP is answered with beside the root: content type and body of a path.
type Pages = Arc<dyn Fn(&str) -> Option<(&'static str, Bytes)> + Send + Sync>;

/// From accepting to a finished handshake, and for a place in the service's queue.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Connections of all services; further ones are sent away. Two thirds of the usual 30,000 descriptors.
const CONNECTIONS: usize = 20_000;
/// Verified connections that a service has not taken yet; with a full queue the handshake's limit runs.
const QUEUED: usize = 128;
/// Handshakes begun in a second, unless set otherwise: half of one core's work at a millisecond each.
pub const HANDSHAKES: NonZeroU32 = NonZeroU32::new(500).unwrap();
/// Who finds all connections taken is asked to come back after this.
const TAKEN_PAUSE: Duration = Duration::from_secs(30);
/// Connections that are being sent away at once; beyond it they are closed without a word.
const SENDING_AWAY: usize = 4_096;
/// Connections that the kernel holds while they wait to be accepted: as many as it holds at most by default.
const BACKLOG: u32 = 4_096;
/// After a failed accept, mostly for want of file descriptors, there is no use in trying at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A fatal alert, in the clear as it may be before the handshake: 112 is unrecognized_name (RFC 8446, sections 5.1 and
/// 6.2). Who tries the addresses of a divided master one after the other goes on.
const UNRECOGNISED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// The first byte of every TLS connection (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// Who is at the other end of a connection. In the extensions of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// `None`: no certificate was shown.
    pub identity: Option<Identity>,
    /// The certificate's serial number; empty without one.
    pub serial: Vec<u8>,
    pub remote_addr: SocketAddr,
}

/// A port with the services behind it.
pub struct Listener {
    tcp: TcpListener,
    services: HashMap<String, Service>,
    root_der: Option<Bytes>,
    pages: Option<Pages>,
    handshakes: NonZeroU32,
}

#[derive(Clone)]
struct Service {
    tls: Arc<ServerTls>,
    queue: mpsc::Sender<Connection>,
}

impl Listener {
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
        // As of TcpListener::bind: a port whose last connections still linger can be taken again.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let tcp = socket.listen(BACKLOG)?;
        Ok(Self { tcp, services: HashMap::new(), root_der: None, pages: None, handshakes: HANDSHAKES })
    }

    /// Begins at most so many TLS handshakes in a second; further clients are told when to try again.
    pub fn limit_handshakes(&mut self, per_second: NonZeroU32) {
        self.handshakes = per_second;
    }

    /// Every address of the host, of both families; IPv4 alone where the host has no IPv6.
    pub async fn bind_any(port: u16) -> io::Result<Self> {
        match Self::bind((Ipv6Addr::UNSPECIFIED, port).into()).await {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                Self::bind((Ipv4Addr::UNSPECIFIED, port).into()).await
            }
            bound => bound,
        }
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves the root's certificate to plain HTTP, for devices that want to say why TLS failed.
    pub fn serve_root(&mut self, der: impl Into<Bytes>) {
        self.root_der = Some(der.into());
    }

    /// Serves what `find` has for a path, with its content type, to plain HTTP: for what is signed and public.
    pub fn serve_pages(
        &mut self,
        find: impl Fn(&str) -> Option<(&'static str, Bytes)> + Send + Sync + 'static,
    ) {
        self.pages = Some(Arc::new(find));
    }

    /// Connections whose client asked for `name`, as in `auth.muster`. A second service of the same name replaces the first.
    pub fn service(&mut self, name: &str, tls: Arc<ServerTls>) -> Incoming {
        let (queue, incoming) = mpsc::channel(QUEUED);
        self.services.insert(name.to_owned(), Service { tls, queue });
        Incoming(incoming)
    }

    /// Accepts until the shutdown; then every [`Incoming`] ends once it is drained.
    pub async fn run(self, shutdown: Shutdown) {
        let Self { tcp, services, root_der, pages, handshakes } = self;
        let admission = Mutex::new(Admission::new(handshakes));
        let (opened, permits) = (tokio::time::Instant::now(), Arc::new(Semaphore::new(CONNECTIONS)));
        let away = Semaphore::new(SENDING_AWAY);
        let door = Arc::new(Door { services, root_der, pages, admission, opened, permits, away });
        loop {
            let accepted = tokio::select! {
                () = shutdown.triggered() => return,
                accepted = accept(&tcp) => accepted,
            };
            match accepted {
                Ok((stream, remote)) => {
                    let (door, ended) = (door.clone(), shutdown.clone());
                    shutdown.spawn(async move {
                        tokio::select! {
                            () = ended.triggered() => {}
                            () = door.admit(stream, remote) => {}
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn accept(tcp: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, remote) = tcp.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, SocketAddr::new(remote.ip().to_canonical(), remote.port())))
}

/// Why a connection did not come through the door.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("there is no room for it before {0:?} from now")]
    Busy(Duration),
    #[error("it did not get through within {HANDSHAKE_LIMIT:?}")]
    Slow,
    #[error("it asked for {0:?}, which is not served here")]
    UnknownName(Option<String>),
    #[error(transparent)]
    Certificate(#[from] crate::tls::TlsError),
    #[error("the service {0} has ended")]
    Ended(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

struct Door {
    services: HashMap<String, Service>,
    root_der: Option<Bytes>,
    pages: Option<Pages>,
    admission: Mutex<Admission>,
    opened: tokio::time::Instant,
    permits: Arc<Semaphore>,
    away: Semaphore,
}

impl Door {
    async fn admit(&self, stream: TcpStream, remote: SocketAddr) {
        let done = tokio::time::timeout(HANDSHAKE_LIMIT, self.hand_over(stream, remote)).await;
        let Err(refusal) = done.unwrap_or(Err(Refusal::Slow)) else { return };
        metrics::counter!("muster_listener_refusals_total").increment(1);
        if let Refusal::Busy(retry_after) = refusal {
            // In a herd there are thousands of these.
            return tracing::debug!(%remote, ?retry_after, "sent a connection away");
        }
        // The client sees a bare "connection closed" in TLS 1.3: the reason is only here.
        tracing::info!(%remote, reason = %refusal, "refused a connection");
    }

    async fn hand_over(&self, stream: TcpStream, remote_addr: SocketAddr) -> Result<(), Refusal> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Ok(());
        }
        if first[0] != TLS_HANDSHAKE {
            return Ok(plain::answer(stream, self.root_der.as_ref(), self.pages.as_ref()).await?);
        }
        let permit = match self.enter() {
            Ok(permit) => permit,
            Err(retry_after) => {
                if let Ok(_turn) = self.away.try_acquire() {
                    busy::send_away(stream, retry_after).await?;
                }
                return Err(Refusal::Busy(retry_after));
            }
        };
        let mut hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let name = hello.client_hello().server_name().map(str::to_owned);
        let found = name.as_deref().and_then(|name| self.services.get(name));
        let (Some(service), Some(name)) = (found, &name) else {
            hello.io.write_all(&UNRECOGNISED_NAME).await?;
            return Err(Refusal::UnknownName(name));
        };
        let stream = hello.into_stream(service.tls.config()).await?;
        let peer = stream.get_ref().1.peer_certificates().map(peer_identity).transpose()?;
        let (identity, serial) = peer.map(|peer| (peer.identity, peer.serial)).unzip();
        let peer = PeerInfo { identity, serial: serial.unwrap_or_default(), remote_addr };
        let connection = Connection { stream, peer, _permit: permit };
        service.queue.send(connection).await.map_err(|_| Refusal::Ended(name.clone()))
    }
}

impl Door {
    /// Room for one more connection, and for its handshake now.
    fn enter(&self) -> Result<OwnedSemaphorePermit, Duration> {
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| TAKEN_PAUSE)?;
        let now = Instant::from_elapsed(self.opened.elapsed());
        // Nothing panics while it is held.
        self.admission.lock().unwrap_or_else(PoisonError::into_inner).admit(now)?;
        Ok(permit)
    }
}

/// The verified connections of one service, as tonic takes them.
pub struct Incoming(mpsc::Receiver<Connection>);

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|next| next.map(Ok))
    }
}

/// One verified connection.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: PeerInfo,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
