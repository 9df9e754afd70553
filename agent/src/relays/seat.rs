//! A seat at one relay: one gRPC stream over TCP. Packets of a channel go into the QUIC route that stands for it and come
//! out of it; the seat is given up when nobody has been behind it for a minute.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use muster_kit::connect::MasterChannel;
use muster_net::{Endpoint, Path, RelayInbound};
use muster_proto::relay::v1::carry_request::Request;
use muster_proto::relay::v1::carry_response::Response;
use muster_proto::relay::v1::relay_service_client::RelayServiceClient;
use muster_proto::relay::v1::{CarryRequest, CarryResponse, Opened, Packet, PeerHere};
use muster_types::NodeId;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::Event;

/// Events that wait for the meetings.
pub(super) const EVENTS: usize = 256;

/// Packets on their way to the relay. Short: what waits long is sent twice.
const OUTGOING: usize = 256;

/// From dialling to the relay's welcome.
const WELCOME: Duration = Duration::from_secs(10);

/// A seat behind which nobody is.
const EMPTY: Duration = Duration::from_secs(60);

/// One connected relay. The stream's task alone holds it open: a seat that is kept keeps nothing.
pub(super) struct Seat {
    asks: mpsc::WeakSender<CarryRequest>,
}

pub(super) fn request(request: Request) -> CarryRequest {
    CarryRequest { request: Some(request) }
}

impl Seat {
    /// Connects, and serves the stream until it ends.
    pub(super) async fn take(
        relay: &str,
        channel: MasterChannel,
        endpoint: &Endpoint,
        events: &mpsc::Sender<Event>,
    ) -> Result<Self, String> {
        let (asks, outgoing) = mpsc::channel(OUTGOING);
        let mut client = RelayServiceClient::new(channel);
        let opening = async {
            let carried = client.carry(ReceiverStream::new(outgoing)).await;
            let mut answers = carried.map_err(|status| status.message().to_owned())?.into_inner();
            match answers.message().await.map_err(|status| status.message().to_owned())? {
                Some(CarryResponse { response: Some(Response::Welcome(_)) }) => Ok(answers),
                _ => Err("it did not welcome us".to_owned()),
            }
        };
        let answers =
            timeout(WELCOME, opening).await.map_err(|_| format!("no welcome within {WELCOME:?}"))??;
        tracing::debug!(relay, "sat down at a relay");
        let weak = asks.downgrade();
        let stream = Stream {
            relay: relay.to_owned(),
            asks: weak.clone(),
            endpoint: endpoint.clone(),
            events: events.clone(),
            channels: HashMap::new(),
        };
        tokio::spawn(stream.run(answers, asks));
        Ok(Self { asks: weak })
    }

    pub(super) fn is_taken(&self) -> bool {
        self.asks().is_some()
    }

    /// Into the stream, while it lasts. Not to be kept: it would hold the stream open.
    pub(super) fn asks(&self) -> Option<mpsc::Sender<CarryRequest>> {
        self.asks.upgrade().filter(|asks| !asks.is_closed())
    }
}

struct Stream {
    relay: String,
    asks: mpsc::WeakSender<CarryRequest>,
    endpoint: Endpoint,
    events: mpsc::Sender<Event>,
    channels: HashMap<u32, Channel>,
}

/// A peer behind the relay.
struct Channel {
    peer: NodeId,
    path: Path,
    inbound: RelayInbound,
    here: bool,
}

impl Stream {
    /// Until the relay ends it, or nobody has been behind it for long. The stream's own sender keeps it open.
    async fn run(mut self, mut answers: Streaming<CarryResponse>, asks: mpsc::Sender<CarryRequest>) {
        let reason = loop {
            let answer = tokio::select! {
                answer = answers.message() => answer,
                () = tokio::time::sleep(EMPTY), if self.channels.is_empty() => break "nobody is behind it".to_owned(),
            };
            match answer {
                Ok(Some(CarryResponse { response: Some(response) })) => self.on_response(response).await,
                // Of a newer version.
                Ok(Some(_)) => {}
                Ok(None) => break "it ended the stream".to_owned(),
                Err(status) => break status.message().to_owned(),
            }
        };
        tracing::info!(relay = self.relay, reason, "left a relay");
        drop((answers, asks));
        for channel in std::mem::take(&mut self.channels).into_values() {
            self.gone(channel).await;
        }
    }

    async fn on_response(&mut self, response: Response) {
        match response {
            Response::Packet(Packet { channel, payload }) => {
                if let Some(channel) = self.channels.get(&channel) {
                    channel.inbound.deliver(payload);
                }
            }
            // Also of a channel that stands: whoever asked for it again waits for the word.
            Response::Opened(Opened { peer_id, channel, peer_here, .. }) => {
                self.meet(channel, &peer_id, peer_here, true).await;
            }
            Response::PeerHere(PeerHere { peer_id, channel }) => {
                self.meet(channel, &peer_id, true, false).await;
            }
            Response::PeerGone(gone) => {
                if let Some(channel) = self.channels.remove(&gone.channel) {
                    self.gone(channel).await;
                }
            }
            Response::Refused(refused) => {
                if let Ok(peer) = NodeId::try_from(&refused.peer_id[..]) {
                    self.tell(Event::Refused { peer, reason: refused.reason }).await;
                }
            }
            // It carries on until it ends; then its sessions go to the other relay.
            Response::Restarting(_) | Response::Welcome(_) => {}
        }
    }

    async fn meet(&mut self, number: u32, peer: &Bytes, here: bool, asked: bool) {
        let Ok(peer) = NodeId::try_from(&peer[..]) else { return };
        let known = self.channels.get(&number).filter(|channel| channel.peer == peer);
        let was_here = known.is_some_and(|channel| channel.here);
        if known.is_none() && !self.route(number, peer) {
            return;
        }
        let Some(channel) = self.channels.get_mut(&number) else { return };
        channel.here = here || was_here;
        let path = channel.path;
        if here && (asked || !was_here) {
            self.tell(Event::Here { peer, relay: self.relay.clone(), path }).await;
        }
    }

    /// Joins a channel and a new route. `false`: there are too many routes, or the stream has ended.
    fn route(&mut self, number: u32, peer: NodeId) -> bool {
        let (Some(route), Some(asks)) = (self.endpoint.relay_route(), self.asks.upgrade()) else {
            return false;
        };
        let path = route.path();
        let (inbound, mut outbound) = route.split();
        self.channels.insert(number, Channel { peer, path, inbound, here: false });
        // Ends with the route, or with the stream.
        tokio::spawn(async move {
            while let Some(payload) = outbound.recv().await {
                let packet = Request::Packet(Packet { channel: number, payload });
                if asks.send(request(packet)).await.is_err() {
                    return;
                }
            }
        });
        true
    }

    async fn gone(&self, channel: Channel) {
        let Channel { peer, path, here, .. } = channel;
        if here {
            self.tell(Event::Gone { peer, relay: self.relay.clone(), path }).await;
        }
    }

    async fn tell(&self, event: Event) {
        // The agent is about to end.
        let _ = self.events.send(event).await;
    }
}
