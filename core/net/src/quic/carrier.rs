//! The socket that QUIC believes in: real UDP sockets of both families, and a queue for packets that TCP
//! connections or relays brought. Datagrams that are not QUIC's are taken out on the way.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use noq::udp::{RecvMeta, Transmit};
use noq::{AsyncUdpSocket, Runtime, TokioRuntime, UdpSender};
use tokio::sync::mpsc;

use crate::demux::Owner;
use crate::path::{canonical, mapped};
use crate::routes::{Packet, Routes};
use crate::sent::Sent;

/// A datagram of ours from the shared socket.
#[derive(Debug)]
pub(crate) struct Tapped {
    pub(crate) from: SocketAddr,
    pub(crate) interface: Option<u32>,
    pub(crate) bytes: Bytes,
}

/// Takes our datagrams; when its queue is full, they are dropped, as any network may.
pub(crate) type Tap = mpsc::Sender<Tapped>;

pub(crate) struct Carrier {
    /// By family; either may be absent.
    v4: Option<Box<dyn AsyncUdpSocket>>,
    v6: Option<Box<dyn AsyncUdpSocket>>,
    routes: Arc<Routes>,
    sent_to: Arc<Sent>,
    virtual_packets: mpsc::Receiver<Packet>,
    tap: Tap,
    port: u16,
    /// Which source is asked first, so that a busy one starves no other.
    turn: usize,
}

impl Carrier {
    pub(crate) fn new(
        v4: Option<std::net::UdpSocket>,
        v6: Option<std::net::UdpSocket>,
        port: u16,
        (routes, virtual_packets): (Arc<Routes>, mpsc::Receiver<Packet>),
        tap: Tap,
        sent_to: Arc<Sent>,
    ) -> io::Result<Self> {
        let wrap = |socket: Option<std::net::UdpSocket>| {
            socket.map(|socket| TokioRuntime.wrap_udp_socket(socket)).transpose()
        };
        Ok(Self { v4: wrap(v4)?, v6: wrap(v6)?, routes, sent_to, virtual_packets, tap, port, turn: 0 })
    }

    fn poll_virtual(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<usize> {
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let packet = match self.virtual_packets.poll_recv(cx) {
                Poll::Ready(Some(packet)) => packet,
                // The routes hold the sender, so the queue never ends.
                Poll::Ready(None) | Poll::Pending => break,
            };
            let len = packet.bytes.len().min(buf.len());
            buf[..len].copy_from_slice(&packet.bytes[..len]);
            // The stride must not be zero: QUIC splits the buffer by it.
            *meta = RecvMeta::default();
            (meta.addr, meta.len, meta.stride) = (packet.from, len, len.max(1));
            count += 1;
        }
        if count == 0 { Poll::Pending } else { Poll::Ready(count) }
    }
}

/// One read from a UDP socket, with our own datagrams tapped off.
fn poll_socket(
    socket: &mut Option<Box<dyn AsyncUdpSocket>>,
    tap: &Tap,
    cx: &mut Context<'_>,
    bufs: &mut [IoSliceMut<'_>],
    meta: &mut [RecvMeta],
) -> Poll<usize> {
    let Some(socket) = socket else { return Poll::Pending };
    // An error would end the endpoint; those that occur here (an ICMP message reported late) concern one peer.
    let count = match ready!(socket.poll_recv(cx, bufs, meta)) {
        Ok(count) => count,
        Err(error) => {
            tracing::debug!(%error, "UDP receive");
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
    };
    for (buf, meta) in bufs.iter_mut().zip(meta.iter_mut()).take(count) {
        tap_off(tap, buf, meta);
        meta.addr = mapped(meta.addr);
        meta.dst_ip = meta.dst_ip.map(|ip| mapped(SocketAddr::new(ip, 0)).ip());
    }
    Poll::Ready(count)
}

/// Hands on what is ours and blanks what is not QUIC's; each segment counts by itself, since the kernel may have
/// joined several datagrams.
fn tap_off(tap: &Tap, buf: &mut [u8], meta: &RecvMeta) {
    for segment in buf[..meta.len].chunks_mut(meta.stride.max(1)) {
        let Some(&first) = segment.first() else { continue };
        match Owner::of(first) {
            Owner::Quic => continue,
            Owner::Overlay | Owner::Stun => {
                let bytes = Bytes::copy_from_slice(segment);
                let from = canonical(meta.addr);
                let tapped = Tapped { from, interface: meta.interface_index, bytes };
                if tap.try_send(tapped).is_err() {
                    tracing::debug!(%from, "dropped a datagram: nobody keeps up");
                }
            }
            Owner::Nobody => tracing::trace!(from = %meta.addr, first, "dropped a datagram"),
        }
        // Without the fixed bit QUIC drops it unseen.
        segment[0] = 0;
    }
}

impl AsyncUdpSocket for Carrier {
    fn create_sender(&self) -> Pin<Box<dyn UdpSender>> {
        Box::pin(CarrierSender {
            v4: self.v4.as_ref().map(|socket| socket.create_sender()),
            v6: self.v6.as_ref().map(|socket| socket.create_sender()),
            routes: Arc::clone(&self.routes),
            sent_to: Arc::clone(&self.sent_to),
        })
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        for _ in 0..3 {
            self.turn = (self.turn + 1) % 3;
            let polled = match self.turn {
                0 => self.poll_virtual(cx, bufs, meta),
                1 => poll_socket(&mut self.v4, &self.tap, cx, bufs, meta),
                _ => poll_socket(&mut self.v6, &self.tap, cx, bufs, meta),
            };
            if let Poll::Ready(count) = polled {
                return Poll::Ready(Ok(count));
            }
        }
        Poll::Pending
    }

    /// Always IPv6: virtual addresses are, and IPv4 ones are mapped.
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddrV6::new([0; 16].into(), self.port, 0, 0).into())
    }

    fn max_receive_segments(&self) -> NonZeroUsize {
        let segments = [&self.v4, &self.v6].into_iter().flatten().map(|socket| socket.max_receive_segments());
        segments.max().unwrap_or(NonZeroUsize::MIN)
    }

    fn may_fragment(&self) -> bool {
        [&self.v4, &self.v6].into_iter().flatten().any(|socket| socket.may_fragment())
    }
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carrier").field("port", &self.port).finish_non_exhaustive()
    }
}

struct CarrierSender {
    v4: Option<Pin<Box<dyn UdpSender>>>,
    v6: Option<Pin<Box<dyn UdpSender>>>,
    routes: Arc<Routes>,
    sent_to: Arc<Sent>,
}

impl UdpSender for CarrierSender {
    /// Waits only for the socket of the packet's own destination. A full route and an absent family lose the
    /// packet, as networks do; QUIC never sees an error, which would end the connection.
    fn poll_send(
        mut self: Pin<&mut Self>,
        transmit: &Transmit<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.routes.carry(transmit.destination, transmit.contents, transmit.segment_size) {
            return Poll::Ready(Ok(()));
        }
        let transmit = Transmit {
            destination: canonical(transmit.destination),
            src_ip: transmit.src_ip.map(|ip: IpAddr| ip.to_canonical()),
            ecn: transmit.ecn,
            contents: transmit.contents,
            segment_size: transmit.segment_size,
        };
        let this = &mut *self;
        let sender = if transmit.destination.is_ipv4() { &mut this.v4 } else { &mut this.v6 };
        let Some(sender) = sender else { return Poll::Ready(Ok(())) };
        this.sent_to.note(transmit.destination.ip());
        match ready!(sender.as_mut().poll_send(&transmit, cx)) {
            Ok(()) => {}
            Err(error) => tracing::debug!(%error, to = %transmit.destination, "UDP send"),
        }
        Poll::Ready(Ok(()))
    }

    fn max_transmit_segments(&self) -> NonZeroUsize {
        let segments =
            [&self.v4, &self.v6].into_iter().flatten().map(|sender| sender.max_transmit_segments());
        segments.min().unwrap_or(NonZeroUsize::MIN)
    }
}

impl fmt::Debug for CarrierSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CarrierSender")
    }
}
