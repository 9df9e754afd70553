//! Packets through a relay: as many as come through with a window open, and one by one for their time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use muster_net::{BurstSocket, Bursts};

use crate::figures::percentile;

/// Payload of a packet: what a QUIC session's packets are at most on an Ethernet, less the relay's head. Divisible by
/// four, as channel data over TCP has to be.
pub(crate) const PAYLOAD: usize = 1_400;

/// Packets under way at most, over all pairs: no queue of either relay overflows.
pub(crate) const WINDOW: u64 = 96;

/// Packets that are sent at once, as a QUIC session sends them.
pub(crate) const BURST: usize = 8;

/// What has not come by then is lost.
pub(crate) const LOST: Duration = Duration::from_millis(200);

/// One way by UDP.
pub(crate) struct Leg {
    pub(crate) from: BurstSocket,
    pub(crate) to: SocketAddr,
    pub(crate) head: Vec<u8>,
    pub(crate) at: BurstSocket,
    /// Whether packets arrive with a head as well.
    pub(crate) framed: bool,
}

/// What came through.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flow {
    pub(crate) seconds: f64,
    pub(crate) packets: u64,
    pub(crate) lost: u64,
}

impl Flow {
    pub(crate) fn bytes(self) -> f64 {
        (self.packets * PAYLOAD as u64) as f64
    }
}

impl Leg {
    /// Without a relay: what the sockets themselves take.
    pub(crate) fn direct() -> Result<Self> {
        let socket = || BurstSocket::new(std::net::UdpSocket::bind("127.0.0.1:0")?);
        let (from, at) = (socket()?, socket()?);
        Ok(Self { from, to: at.local_addr()?, head: Vec::new(), at, framed: false })
    }

    fn packet(&self) -> Vec<u8> {
        [&self.head[..], &[7; PAYLOAD]].concat()
    }

    /// How many packets came next.
    async fn arrived(&self, bursts: &mut Bursts) -> Result<u64> {
        self.at.receive(bursts).await?;
        let expected = PAYLOAD + if self.framed { self.head.len() } else { 0 };
        let mut packets = 0;
        for burst in bursts.iter_mut() {
            ensure!(burst.size == expected, "a packet of {} bytes", burst.size);
            packets += burst.bytes.len().div_ceil(burst.size) as u64;
        }
        Ok(packets)
    }

    /// As much as goes through for `span`, in bursts, a window at a time.
    pub(crate) async fn fill(&self, span: Duration, window: u64) -> Result<Flow> {
        let packet = self.packet();
        let burst = packet.repeat(BURST);
        let (mut flow, mut bursts, mut under_way) = (Flow::default(), Bursts::default(), 0);
        let begin = Instant::now();
        while begin.elapsed() < span {
            while under_way + BURST as u64 <= window {
                self.from.send(self.to, &burst, packet.len());
                under_way += BURST as u64;
            }
            match tokio::time::timeout(LOST, self.arrived(&mut bursts)).await {
                Ok(arrived) => {
                    let arrived = arrived?;
                    flow.packets += arrived;
                    under_way = under_way.saturating_sub(arrived);
                }
                Err(_) => {
                    flow.lost += under_way;
                    under_way = 0;
                }
            }
        }
        flow.seconds = begin.elapsed().as_secs_f64();
        Ok(flow)
    }

    /// The time of each of so many packets from one end to the other, in microseconds.
    pub(crate) async fn one_by_one(&self, count: usize) -> Result<Vec<f64>> {
        let (packet, mut bursts, mut spans) = (self.packet(), Bursts::default(), Vec::new());
        for _ in 0..count {
            tokio::time::sleep(super::PACE).await;
            let begin = Instant::now();
            self.from.send(self.to, &packet, packet.len());
            if let Ok(arrived) = tokio::time::timeout(LOST, self.arrived(&mut bursts)).await {
                arrived?;
                spans.push(begin.elapsed().as_secs_f64() * 1e6);
            }
        }
        spans.sort_by(f64::total_cmp);
        Ok(spans)
    }
}

/// The median and the 99th percentile of sorted spans.
pub(crate) fn typical(spans: &[f64]) -> (f64, f64) {
    (percentile(spans, 0.5), percentile(spans, 0.99))
}
