//! A UDP socket that is read and written in bursts, for whoever forwards packets that others sealed. One call reads
//! datagrams of many senders, and those that one sender sent at once lie side by side (UDP_GRO, UDP_SEGMENT).

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;

use noq::udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::path::canonical;

/// What the kernel joins at most.
const JOINED_BYTES: usize = 64 * 1024;

/// Room for what arrives while a burst is worked off; the system may grant less.
const BUFFER: usize = 4 * 1024 * 1024;

/// The socket. Sending never waits: a packet for which the system has no room is lost, as any network may.
#[derive(Debug)]
pub struct BurstSocket {
    socket: UdpSocket,
    state: UdpSocketState,
}

/// Where bursts are read to, again and again.
pub struct Bursts {
    buffers: Vec<Vec<u8>>,
    meta: [RecvMeta; BATCH_SIZE],
    count: usize,
}

/// Datagrams that one sender sent at once, all of `size` bytes but the last, which may be shorter.
pub struct Burst<'a> {
    pub from: SocketAddr,
    pub bytes: &'a mut [u8],
    pub size: usize,
}

impl BurstSocket {
    /// # Errors
    /// The socket cannot be set up.
    pub fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        let state = UdpSocketState::new((&socket).into())?;
        for resized in [
            state.set_recv_buffer_size((&socket).into(), BUFFER),
            state.set_send_buffer_size((&socket).into(), BUFFER),
        ] {
            if let Err(error) = resized {
                tracing::debug!(%error, "a buffer keeps its size");
            }
        }
        Ok(Self { socket, state })
    }

    /// # Errors
    /// The socket is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits for bursts.
    ///
    /// # Errors
    /// What the system reports; errors that concern a single peer are skipped.
    pub async fn receive(&self, bursts: &mut Bursts) -> io::Result<()> {
        let read = |bursts: &mut Bursts| {
            let mut slices: Vec<_> =
                bursts.buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
            self.state.recv((&self.socket).into(), &mut slices, &mut bursts.meta)
        };
        let received = self.socket.async_io(Interest::READABLE, || read(bursts)).await;
        bursts.count = match received {
            // An ICMP message about a packet that was sent long ago.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => 0,
            other => other?,
        };
        Ok(())
    }

    /// Sends datagrams of `size` bytes each, the last one perhaps shorter.
    pub fn send(&self, to: SocketAddr, bytes: &[u8], size: usize) {
        let segments = self.state.max_gso_segments().get();
        for contents in bytes.chunks(size.max(1) * segments) {
            let segment_size = (contents.len() > size).then_some(size);
            let transmit = Transmit { destination: to, ecn: None, contents, segment_size, src_ip: None };
            // Not by way of the runtime: it knows that a socket is writable only after it was once waited for.
            let sent = self.state.try_send((&self.socket).into(), &transmit);
            if let Err(error) = sent {
                tracing::trace!(%to, %error, "lost packets");
            }
        }
    }
}

impl Default for Bursts {
    fn default() -> Self {
        let buffers = vec![vec![0; JOINED_BYTES]; BATCH_SIZE];
        Self { buffers, meta: [RecvMeta::default(); BATCH_SIZE], count: 0 }
    }
}

impl Bursts {
    /// What the last [`receive`](BurstSocket::receive) brought.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = Burst<'_>> {
        self.buffers.iter_mut().zip(&self.meta).take(self.count).map(|(buffer, meta)| Burst {
            from: canonical(meta.addr),
            bytes: &mut buffer[..meta.len],
            size: meta.stride.max(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn datagrams_sent_at_once_arrive_whole_and_in_order() {
        let open = || BurstSocket::new(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        let (left, right) = (open(), open());
        let sent: Vec<u8> = (0..100).flat_map(|number| [number; 50]).collect();
        left.send(right.local_addr().unwrap(), &sent[..sent.len() - 20], 50);
        let (mut bursts, mut received) = (Bursts::default(), Vec::new());
        while received.len() < 100 {
            right.receive(&mut bursts).await.unwrap();
            for burst in bursts.iter_mut() {
                assert_eq!(burst.from, left.local_addr().unwrap());
                received.extend(burst.bytes.chunks(burst.size).map(<[u8]>::to_vec));
            }
        }
        let lengths: Vec<_> = received.iter().map(Vec::len).collect();
        assert_eq!((&lengths[..99], lengths[99]), (&[50; 99][..], 30));
        assert_eq!(received.concat(), sent[..sent.len() - 20]);
    }
}
