//! A seat's way by UDP: ties this node's socket to its session at the relay, again and again, and tells whether that holds.
//! Packets go by UDP while it does, and by the session's stream else; the relay answers by the same way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use muster_net::{Endpoint, RelayInbound, RelayLeg};
use muster_proto::relay::v1::carry_request::Request;
use muster_proto::relay::v1::{CarryRequest, Packet};
use muster_wire::relay::UdpToken;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Waits for the relay's confirmation, as for STUN's answers.
const WAITS: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_millis(1_000)];

/// Between two binds of a way that is used: so soon its loss is noticed.
const USED: Duration = Duration::from_secs(5);

/// The same for one that is not: translators forget after 20 s at the worst (RFC 4787, REQ-5 asks for two minutes).
const UNUSED: Duration = Duration::from_secs(15);

/// Where UDP does not pass it is tried again after so long.
const AGAIN: Duration = Duration::from_secs(60);

/// A channel that relays give to nobody: they have fewer.
const NOBODY: u32 = u16::MAX as u32;

/// The way; dropping it ends the binding.
pub(super) struct Way {
    leg: RelayLeg,
    holds: AtomicBool,
    doubted: Notify,
}

/// Renews the binding for as long as it is held.
pub(super) struct Binding(JoinHandle<()>);

impl Drop for Binding {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Way {
    pub(super) fn open(
        endpoint: &Endpoint,
        at: SocketAddr,
        token: UdpToken,
        asks: mpsc::WeakSender<CarryRequest>,
    ) -> (Arc<Self>, Binding) {
        let way = Arc::new(Self {
            leg: endpoint.relay_leg(at),
            holds: AtomicBool::new(false),
            doubted: Notify::new(),
        });
        let bound = Arc::clone(&way);
        (way, Binding(tokio::spawn(async move { bound.keep(token, at, asks).await })))
    }

    pub(super) fn join(&self, channel: u32, inbound: RelayInbound) {
        if let Ok(channel) = u16::try_from(channel) {
            self.leg.join(channel, inbound);
        }
    }

    pub(super) fn part(&self, channel: u32) {
        if let Ok(channel) = u16::try_from(channel) {
            self.leg.part(channel);
        }
    }

    /// Somebody is about to be met: what held a while ago is proven anew first, and both directions go by the stream till then.
    pub(super) fn doubt(&self) {
        self.holds.store(false, Ordering::Relaxed);
        self.doubted.notify_one();
    }

    /// `false`: it has to go by the stream.
    pub(super) fn carry(&self, channel: u32, packet: &[u8]) -> bool {
        let channel = u16::try_from(channel).ok().filter(|_| self.holds.load(Ordering::Relaxed));
        if let Some(channel) = channel {
            self.leg.send(channel, packet);
        }
        channel.is_some()
    }

    async fn keep(&self, token: UdpToken, at: SocketAddr, asks: mpsc::WeakSender<CarryRequest>) {
        let mut counter = 0;
        loop {
            let held = self.bind(&token, &mut counter).await;
            if self.holds.swap(held, Ordering::Relaxed) != held {
                tracing::debug!(%at, held, "a relay's packets by UDP");
                if held {
                    // What was still under way by the stream would turn the relay back to it.
                    self.bind(&token, &mut counter).await;
                }
            }
            if !held {
                back_to_stream(&asks);
                let _ = timeout(AGAIN, self.doubted.notified()).await;
                continue;
            }
            let mut waited = Duration::ZERO;
            while waited < UNUSED && !(waited >= USED && self.leg.take_used()) {
                if timeout(USED, self.doubted.notified()).await.is_ok() {
                    back_to_stream(&asks);
                    break;
                }
                waited += USED;
            }
        }
    }

    /// Whether the relay confirmed one of a few tries.
    async fn bind(&self, token: &UdpToken, counter: &mut u64) -> bool {
        let (mut bound, first) = (self.leg.bound(), *counter + 1);
        for wait in WAITS {
            *counter += 1;
            self.leg.bind(token, *counter);
            if matches!(timeout(wait, bound.wait_for(|last| *last >= first)).await, Ok(Ok(_))) {
                return true;
            }
        }
        false
    }
}

/// Where UDP passes one way alone, the relay has heard the bind: a packet by the stream, to nobody, turns it back.
fn back_to_stream(asks: &mpsc::WeakSender<CarryRequest>) {
    let packet = Packet { channel: NOBODY, payload: Bytes::new() };
    if let Some(asks) = asks.upgrade() {
        // Full: then packets go by the stream anyway.
        let _ = asks.try_send(super::seat::request(Request::Packet(packet)));
    }
}
