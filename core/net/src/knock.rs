//! Whether uninvited packets reach a node: STUN and a TCP connection, from ports that it has never heard of. A host's firewall
//! lets in what comes to a port that the host has sent from, so a dial from this node's own port proves little where the
//! other one has dialled.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use muster_types::{Contact, limits};
use muster_wire::stun::{self, Message, Transaction};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// For all of it. A LAN answers in milliseconds; a lost SYN is repeated after a second (RFC 6298, section 2).
const PATIENCE: Duration = Duration::from_millis(1_500);
/// Waits for an answer by UDP, within that.
const WAITS: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_millis(750)];
/// Knocks at once; each holds two sockets for each address. A cell has two deputies, and few rivals.
pub(crate) const AT_ONCE: usize = 8;

/// Tries every address by both ways at once; one that answers is enough.
pub(crate) async fn knock(turns: &Semaphore, port: u16, contact: &Contact) -> bool {
    let Ok(_turn) = turns.acquire().await else { return false };
    let mut tries = JoinSet::new();
    for address in contact.addresses.iter().take(limits::ADDRESSES) {
        if let Some(to) = address.udp() {
            tries.spawn(by_udp(to, port));
        }
        if let Some(to) = address.tcp() {
            tries.spawn(by_tcp(to, port));
        }
    }
    let answered = async {
        while let Some(tried) = tries.join_next().await {
            if matches!(tried, Ok(Ok(true))) {
                return true;
            }
        }
        false
    };
    timeout(PATIENCE, answered).await.unwrap_or(false)
}

async fn by_udp(to: SocketAddr, port: u16) -> io::Result<bool> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    if is_own(socket.local_addr()?, to, port) {
        return Ok(false);
    }
    let transaction: Transaction = rand::random();
    let (request, mut buffer) = (stun::request(&transaction), [0; stun::ANSWER_BYTES]);
    for wait in WAITS {
        socket.send(&request).await?;
        if let Ok(read) = timeout(wait, socket.recv(&mut buffer)).await {
            let answer = stun::decode(&buffer[..read?]);
            return Ok(matches!(answer, Some(Message::Answer(of, _)) if of == transaction));
        }
    }
    Ok(false)
}

async fn by_tcp(to: SocketAddr, port: u16) -> io::Result<bool> {
    let stream = TcpStream::connect(to).await?;
    Ok(!is_own(stream.local_addr()?, to, port))
}

/// An address that two hosts have (of a bridge for containers) leads back to this one.
fn is_own(from: SocketAddr, to: SocketAddr, port: u16) -> bool {
    from.ip() == to.ip() && to.port() == port
}
