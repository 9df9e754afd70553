//! Packets through a relay by streams, where a firewall drops UDP at both ends.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use muster_proto::relay::v1::carry_request::Request as Ask;
use muster_proto::relay::v1::carry_response::Response as Answer;
use muster_proto::relay::v1::{CarryRequest, Packet};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::flow::{BURST, Flow, LOST, PAYLOAD};
use super::ours::Guest;
use super::turn::{CHANNEL, head};

/// Nothing that was sent stays away so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Two ends of one way; packets arrive in the order in which they were sent.
pub(crate) trait Way {
    async fn send(&mut self, packets: usize) -> Result<()>;
    async fn receive(&mut self) -> Result<()>;
}

/// As much as goes through for `span` with a window open.
pub(crate) async fn fill(way: &mut impl Way, span: Duration, window: u64) -> Result<Flow> {
    let (mut flow, mut under_way, begin) = (Flow::default(), 0, Instant::now());
    while begin.elapsed() < span {
        while under_way + BURST as u64 <= window {
            way.send(BURST).await?;
            under_way += BURST as u64;
        }
        match tokio::time::timeout(LOST, way.receive()).await {
            Ok(received) => {
                received?;
                under_way = under_way.saturating_sub(1);
                flow.packets += 1;
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

/// The time of each of so many packets, in microseconds.
pub(crate) async fn one_by_one(way: &mut impl Way, count: usize) -> Result<Vec<f64>> {
    let mut spans = Vec::new();
    for _ in 0..count {
        tokio::time::sleep(super::PACE).await;
        let begin = Instant::now();
        way.send(1).await?;
        tokio::time::timeout(PATIENCE, way.receive()).await.context("nothing comes")??;
        spans.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    spans.sort_by(f64::total_cmp);
    Ok(spans)
}

/// Two guests of ours.
pub(crate) struct Guests {
    pub(crate) anna: Guest,
    pub(crate) channel: u32,
    pub(crate) bert: Guest,
}

impl Way for Guests {
    async fn send(&mut self, packets: usize) -> Result<()> {
        for _ in 0..packets {
            let packet = Packet { channel: self.channel, payload: Bytes::from_static(&[7; PAYLOAD]) };
            self.anna.asks.send(CarryRequest { request: Some(Ask::Packet(packet)) }).await?;
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<()> {
        match self.bert.answers.message().await?.and_then(|answer| answer.response) {
            Some(Answer::Packet(packet)) if packet.payload.len() == PAYLOAD => Ok(()),
            other => bail!("{other:?}"),
        }
    }
}

/// Two clients of a TURN server.
pub(crate) struct Allocations<S> {
    left: S,
    right: BufReader<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Allocations<S> {
    pub(crate) fn new((left, right): (S, S)) -> Self {
        Self { left, right: BufReader::with_capacity(64 * 1024, right) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Way for Allocations<S> {
    async fn send(&mut self, packets: usize) -> Result<()> {
        let frame = [&head(PAYLOAD)[..], &[7; PAYLOAD]].concat();
        self.left.write_all(&frame.repeat(packets)).await?;
        Ok(self.left.flush().await?)
    }

    async fn receive(&mut self) -> Result<()> {
        let mut frame = [0; 4 + PAYLOAD];
        self.right.read_exact(&mut frame).await?;
        if frame[..2] != CHANNEL.to_be_bytes() {
            bail!("a frame that is no channel's");
        }
        Ok(())
    }
}
