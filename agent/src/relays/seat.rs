//! A seat at one relay: one gRPC stream over TCP, or messages of a session with a super node, and beside either, where that
//! passes, UDP. Packets of a channel go into the QUIC route that stands for it and come out of it; the seat is given up when
//! nobody has been behind it for a minute.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
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

use super::Event;
use super::udp::{Binding, Way};

/// Events that wait for the meetings.
pub(super) const EVENTS: usize = 256;

/// Packets on their way to the relay. Short: what waits long is sent twice.
pub(super) const OUTGOING: usize = 256;

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

/// What a relay says, whatever brings it.
pub(super) type Answers = BoxStream<'static, Result<CarryResponse, String>>;

/// By a stream of the relay service.
pub(super) async fn by_stream(
    channel: MasterChannel,
    outgoing: mpsc::Receiver<CarryRequest>,
) -> Result<Answers, String> {
    let carried = RelayServiceClient::new(channel).carry(ReceiverStream::new(outgoing)).await;
    let answers = carried.map_err(|status| status.message().to_owned())?.into_inner();
    Ok(answers.map(|answer| answer.map_err(|status| status.message().to_owned())).boxed())
}

impl Seat {
    /// Connects, and serves the stream until it ends. `opening` takes what `asks` sends, and says where UDP goes.
    pub(super) async fn take(
        relay: &str,
        asks: mpsc::Sender<CarryRequest>,
        opening: impl Future<Output = Result<(Answers, Option<SocketAddr>), String>>,
        endpoint: &Endpoint,
        events: &mpsc::Sender<Event>,
    ) -> Result<Self, String> {
        let welcomed = async {
            let (mut answers, udp) = opening.await?;
            match answers.next().await.transpose()?.and_then(|answer| answer.response) {
                Some(Response::Welcome(welcome)) => Ok((answers, udp, welcome)),
                Some(Response::Refused(refused)) => Err(refused.reason),
                _ => Err("it did not welcome us".to_owned()),
            }
        };
        let (answers, udp, welcome) =
            timeout(WELCOME, welcomed).await.map_err(|_| format!("no welcome within {WELCOME:?}"))??;
        tracing::debug!(relay, ?udp, "sat down at a relay");
        let weak = asks.downgrade();
        let token = welcome.udp_token[..].try_into().ok();
        let udp = udp.filter(|_| welcome.udp_port > 0).zip(token);
        let (way, binding) = udp.map(|(at, token)| Way::open(endpoint, at, token, weak.clone())).unzip();
        let stream = Stream {
            relay: relay.to_owned(),
            asks: weak.clone(),
            endpoint: endpoint.clone(),
            events: events.clone(),
            way,
            _binding: binding,
            channels: HashMap::new(),
        };
        tokio::spawn(stream.run(answers, asks));
        Ok(Self { asks: weak })
    }

    #[cfg(test)]
    pub(super) fn by(asks: &mpsc::Sender<CarryRequest>) -> Self {
        Self { asks: asks.downgrade() }
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
    /// By UDP, where that passes.
    way: Option<Arc<Way>>,
    _binding: Option<Binding>,
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
    async fn run(mut self, mut answers: Answers, asks: mpsc::Sender<CarryRequest>) {
        let reason = loop {
            let answer = tokio::select! {
                answer = answers.next() => answer,
                () = tokio::time::sleep(EMPTY), if self.channels.is_empty() => break "nobody is behind it".to_owned(),
            };
            match answer {
                Some(Ok(CarryResponse { response: Some(response) })) => self.on_response(response).await,
                // Of a newer version.
                Some(Ok(_)) => {}
                None => break "it ended the stream".to_owned(),
                Some(Err(reason)) => break reason,
            }
        };
        tracing::info!(relay = self.relay, reason, "left a relay");
        drop((answers, asks));
        for (number, channel) in std::mem::take(&mut self.channels) {
            self.part(number);
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
                self.part(gone.channel);
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
        if here
            && !was_here
            && let Some(way) = &self.way
        {
            way.doubt();
        }
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
        if let Some(way) = &self.way {
            way.join(number, inbound.clone());
        }
        self.channels.insert(number, Channel { peer, path, inbound, here: false });
        let way = self.way.clone();
        // Ends with the route, or with the stream.
        tokio::spawn(async move {
            while let Some(payload) = outbound.recv().await {
                if way.as_ref().is_some_and(|way| way.carry(number, &payload)) {
                    continue;
                }
                let packet = Request::Packet(Packet { channel: number, payload });
                if asks.send(request(packet)).await.is_err() {
                    return;
                }
            }
        });
        true
    }

    /// The way by UDP lets a channel's route go: it would keep its packets' task, and with that the stream.
    fn part(&self, number: u32) {
        if let Some(way) = &self.way {
            way.part(number);
        }
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
