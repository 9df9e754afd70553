//! As much of a TURN client (RFC 8656) as a load needs: allocations without credentials, one channel each, over UDP, TCP
//! or TLS.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use muster_net::BurstSocket;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::flow::Leg;

const MAGIC: [u8; 4] = 0x2112_a442_u32.to_be_bytes();
/// RFC 8489, section 5.
const HEADER: usize = 20;
/// Requests of RFC 8656, section 17.
const ALLOCATE: u16 = 0x0003;
const CHANNEL_BIND: u16 = 0x0009;
/// The bit of a success response.
const SUCCESS: u16 = 0x0100;
/// Attributes of RFC 8656, section 18.
const CHANNEL_NUMBER: u16 = 0x000c;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const XOR_RELAYED_ADDRESS: u16 = 0x0016;
const REQUESTED_TRANSPORT: u16 = 0x0019;
const UDP: u8 = 17;

/// The first channel number there is.
pub(crate) const CHANNEL: u16 = 0x4000;

const ANSWER: Duration = Duration::from_secs(10);

fn request(kind: u16, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let body: Vec<u8> = attributes
        .iter()
        .flat_map(|(kind, value)| {
            [&kind.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), &value[..]].concat()
        })
        .collect();
    let transaction: [u8; 12] = rand::random();
    [&kind.to_be_bytes()[..], &(body.len() as u16).to_be_bytes(), &MAGIC, &transaction, &body].concat()
}

fn allocate() -> Vec<u8> {
    request(ALLOCATE, &[(REQUESTED_TRANSPORT, vec![UDP, 0, 0, 0])])
}

fn bind_channel(peer: SocketAddr) -> Result<Vec<u8>> {
    let IpAddr::V4(ip) = peer.ip() else { anyhow::bail!("{peer} is not v4") };
    let port = peer.port() ^ u16::from_be_bytes([MAGIC[0], MAGIC[1]]);
    let ip = u32::from(ip) ^ u32::from_be_bytes(MAGIC);
    let address = [&[0, 1][..], &port.to_be_bytes(), &ip.to_be_bytes()].concat();
    let number = [CHANNEL.to_be_bytes(), [0, 0]].concat();
    Ok(request(CHANNEL_BIND, &[(CHANNEL_NUMBER, number), (XOR_PEER_ADDRESS, address)]))
}

/// The relayed address in an answer to Allocate.
fn relayed(answer: &[u8]) -> Result<SocketAddr> {
    succeeded(answer, ALLOCATE)?;
    let mut rest = &answer[HEADER..];
    while rest.len() >= 4 {
        let word = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
        let (kind, length) = (word(0), usize::from(word(2)));
        if kind == XOR_RELAYED_ADDRESS && rest.len() >= 12 {
            let port = word(6) ^ u16::from_be_bytes([MAGIC[0], MAGIC[1]]);
            let ip: [u8; 4] = std::array::from_fn(|at| rest[8 + at] ^ MAGIC[at]);
            return Ok(SocketAddr::from((Ipv4Addr::from(ip), port)));
        }
        rest = rest.get(4 + length.next_multiple_of(4)..).context("an attribute")?;
    }
    anyhow::bail!("no relayed address")
}

fn succeeded(answer: &[u8], asked: u16) -> Result<()> {
    ensure!(answer.len() >= HEADER, "an answer of {} bytes", answer.len());
    let kind = u16::from_be_bytes([answer[0], answer[1]]);
    ensure!(kind == asked | SUCCESS, "{asked:#x} was answered {kind:#x}");
    Ok(())
}

/// The head of channel data; TCP wants it padded to four bytes, UDP does not.
pub(crate) fn head(payload: usize) -> Vec<u8> {
    [CHANNEL.to_be_bytes(), (payload as u16).to_be_bytes()].concat()
}

/// An allocation by UDP.
pub(crate) fn allocation(server: SocketAddr) -> Result<(UdpSocket, SocketAddr)> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(ANSWER))?;
    let relayed = relayed(&ask(&socket, server, &allocate())?)?;
    Ok((socket, relayed))
}

fn ask(socket: &UdpSocket, server: SocketAddr, request: &[u8]) -> Result<Vec<u8>> {
    socket.send_to(request, server)?;
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).context("the TURN server does not answer")?;
    Ok(buffer[..length].to_vec())
}

/// A client by UDP, whose peer is a plain socket, as where one end needs a relay and the other does not.
pub(crate) fn leg(server: SocketAddr, payload: usize) -> Result<Leg> {
    let (socket, _) = allocation(server)?;
    let peer = UdpSocket::bind("127.0.0.1:0")?;
    succeeded(&ask(&socket, server, &bind_channel(peer.local_addr()?)?)?, CHANNEL_BIND)?;
    let (from, at) = (BurstSocket::new(socket)?, BurstSocket::new(peer)?);
    Ok(Leg { from, to: server, head: head(payload), at, framed: false })
}

/// Allocations of two clients by a stream each, with a channel from one to the other.
pub(crate) async fn pair<S: AsyncRead + AsyncWrite + Unpin>(streams: (S, S)) -> Result<(S, S)> {
    let (mut left, mut right) = streams;
    let left_at = relayed(&ask_stream(&mut left, &allocate()).await?)?;
    let right_at = relayed(&ask_stream(&mut right, &allocate()).await?)?;
    succeeded(&ask_stream(&mut left, &bind_channel(right_at)?).await?, CHANNEL_BIND)?;
    succeeded(&ask_stream(&mut right, &bind_channel(left_at)?).await?, CHANNEL_BIND)?;
    Ok((left, right))
}

async fn ask_stream<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, request: &[u8]) -> Result<Vec<u8>> {
    stream.write_all(request).await?;
    let mut answer = vec![0; HEADER];
    tokio::time::timeout(ANSWER, stream.read_exact(&mut answer)).await??;
    let length = usize::from(u16::from_be_bytes([answer[2], answer[3]]));
    answer.resize(HEADER + length, 0);
    stream.read_exact(&mut answer[HEADER..]).await?;
    Ok(answer)
}
