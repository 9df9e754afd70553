//! Sealed datagrams' way in and out: the endpoint's own sockets and routes, or a socket that carries nothing else.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use muster_types::NodeId;
use muster_types::limits::DATAGRAM_BYTES;
use muster_wire::stun;
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::endpoint::Endpoint;
use crate::stun::Responder;

/// Datagrams that wait to be looked at; beyond it they are lost, as on any network.
pub(crate) const WAITING: usize = 1_024;

/// Probes that wait: rounds of five meetings at once. They never take the room of anything else.
pub(crate) const PROBES: usize = 256;

/// One sealed datagram, as it came.
#[derive(Debug)]
pub struct Sealed {
    pub from: SocketAddr,
    pub bytes: Bytes,
}

/// Sends sealed datagrams. Nothing here opens a connection.
pub trait Carrier: Send + Sync + 'static {
    /// A datagram that cannot go out now is lost.
    fn send(&self, to: SocketAddr, datagram: &[u8]);

    /// Where packets of this node go already, whatever carries them.
    fn path(&self, _node: NodeId) -> Option<SocketAddr> {
        None
    }

    /// Whether an address means something to other nodes too.
    fn is_public(&self, _at: SocketAddr) -> bool {
        true
    }
}

impl Carrier for Endpoint {
    fn send(&self, to: SocketAddr, datagram: &[u8]) {
        self.send_sealed(to, datagram);
    }

    fn path(&self, node: NodeId) -> Option<SocketAddr> {
        self.session(node)?.carrier_address()
    }

    fn is_public(&self, at: SocketAddr) -> bool {
        crate::path::VirtualAddress::from_socket_address(at).is_none()
    }
}

/// A UDP socket for sealed datagrams alone: of bootstrap nodes and benchmarks. One task reads it, and answers STUN.
pub struct SealedSocket {
    socket: Arc<UdpSocket>,
}

impl SealedSocket {
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(at: SocketAddr) -> io::Result<Self> {
        Ok(Self { socket: Arc::new(UdpSocket::bind(at).await?) })
    }

    /// # Errors
    /// The system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// What sends, and what comes; the reader ends when the receiver is dropped.
    pub fn split(self) -> (Arc<dyn Carrier>, mpsc::Receiver<Sealed>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let socket = Arc::clone(&self.socket);
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = read(&socket, &sender) => {}
            }
        });
        (Arc::new(self), receiver)
    }
}

impl Carrier for SealedSocket {
    fn send(&self, to: SocketAddr, datagram: &[u8]) {
        send(&self.socket, to, datagram);
    }
}

fn send(socket: &UdpSocket, to: SocketAddr, datagram: &[u8]) {
    // Not by way of the runtime: it knows that a socket is writable only after it was once waited for.
    if let Err(error) = SockRef::from(socket).send_to(datagram, &to.into()) {
        tracing::debug!(%error, %to, "a datagram is lost");
    }
}

async fn read(socket: &UdpSocket, sender: &mpsc::Sender<Sealed>) {
    let mut buffer = [0; DATAGRAM_BYTES + 1];
    let mut responder = Responder::default();
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                if stun::decode(&buffer[..length]).is_some() {
                    if let Some(answer) = responder.answer(from, &buffer[..length]) {
                        send(socket, from, &answer);
                    }
                    continue;
                }
                let bytes = Bytes::copy_from_slice(&buffer[..length]);
                if sender.try_send(Sealed { from, bytes }).is_err() {
                    tracing::debug!(%from, "dropped a sealed datagram: nobody keeps up");
                }
            }
            // An ICMP message reported late concerns one peer.
            Err(error) => tracing::debug!(%error, "sealed receive"),
        }
    }
}
