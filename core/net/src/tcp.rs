//! QUIC packets and sealed datagrams over TCP, for networks that drop UDP: two bytes of length in network order, then the packet.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use muster_wire::datagram::Kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::demux::Owner;
use crate::routes::RouteEnd;

/// What QUIC accepts at most (its `max_udp_payload_size`).
const PACKET_BYTES: usize = 1_472;

/// Moves packets both ways until the connection breaks, the route is closed, or nothing came for `idle`.
pub(crate) async fn carry(
    stream: TcpStream,
    end: RouteEnd,
    outbound: mpsc::Receiver<Bytes>,
    idle: Duration,
) -> io::Result<()> {
    // Packets are paced by QUIC already; waiting for more to fill a segment only adds delay.
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    tokio::select! {
        result = receive(read, &end, idle) => result,
        result = transmit(write, outbound) => result,
    }
}

async fn receive(read: OwnedReadHalf, end: &RouteEnd, idle: Duration) -> io::Result<()> {
    let mut read = BufReader::new(read);
    loop {
        let packet = timeout(idle, read_packet(&mut read)).await??;
        if Kind::of(&packet).is_some() {
            end.deliver_sealed(packet);
        } else if !end.deliver(packet).await {
            return Ok(());
        }
    }
}

async fn read_packet(read: &mut BufReader<OwnedReadHalf>) -> io::Result<Bytes> {
    let length = usize::from(read.read_u16().await?);
    if !(1..=PACKET_BYTES).contains(&length) {
        return Err(misbehaved(format!("a packet of {length} bytes")));
    }
    let mut packet = vec![0; length];
    read.read_exact(&mut packet).await?;
    if Owner::of(packet[0]) != Owner::Quic && Kind::of(&packet).is_none() {
        return Err(misbehaved(format!("a packet that begins with {:#04x}", packet[0])));
    }
    Ok(packet.into())
}

fn misbehaved(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the peer sent {what}"))
}

async fn transmit(write: OwnedWriteHalf, mut outbound: mpsc::Receiver<Bytes>) -> io::Result<()> {
    let mut write = BufWriter::new(write);
    while let Some(packet) = outbound.recv().await {
        write_packet(&mut write, &packet).await?;
        while let Ok(packet) = outbound.try_recv() {
            write_packet(&mut write, &packet).await?;
        }
        write.flush().await?;
    }
    Ok(())
}

async fn write_packet(write: &mut BufWriter<OwnedWriteHalf>, packet: &[u8]) -> io::Result<()> {
    let length = u16::try_from(packet.len()).map_err(|_| io::Error::other("a packet beyond 64 KiB"))?;
    write.write_u16(length).await?;
    write.write_all(packet).await
}
