//! The border to gRPC: who calls, and what a session's news looks like on the wire.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use muster_kit::clock;
use muster_kit::listen::PeerInfo;
use muster_kit::shutdown::Shutdown;
use muster_kit::status::fault;
use muster_overlay::relay::Grant;
use muster_proto::relay::v1::carry_response::Response as Body;
use muster_proto::relay::v1::relay_service_server::RelayService;
use muster_proto::relay::v1::{
    CarryRequest, CarryResponse, Opened, Packet, PeerGone, PeerHere, Refused, Restarting, Welcome,
};
use muster_types::{Instant, NodeId};
use muster_wire::time::{span_to_wire, to_wire};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::hall::{Hall, News};
use crate::outbox::Item;
use crate::session::{self, Session};
use crate::trust::Trust;

pub(crate) struct Carrying {
    hall: Arc<Hall>,
    trust: Arc<Trust>,
    name: Arc<str>,
    shutdown: Shutdown,
}

impl Carrying {
    pub(crate) fn new(hall: Arc<Hall>, trust: Arc<Trust>, name: String, shutdown: Shutdown) -> Self {
        Self { hall, trust, name: name.into(), shutdown }
    }
}

#[tonic::async_trait]
impl RelayService for Carrying {
    type CarryStream = Pin<Box<dyn Stream<Item = Result<CarryResponse, Status>> + Send>>;

    async fn carry(
        &self,
        request: Request<Streaming<CarryRequest>>,
    ) -> Result<Response<Self::CarryStream>, Status> {
        let peer = request.extensions().get::<PeerInfo>();
        let node = peer.and_then(|peer| Some((peer.identity.as_ref()?.node_id()?, peer.serial.clone())));
        let (node, certificate_serial) =
            node.ok_or_else(|| fault(Code::PermissionDenied, "NOT_A_NODE", "only nodes are relayed"))?;
        if self.shutdown.is_triggered() {
            return Err(fault(Code::Unavailable, "RESTARTING", "this relay ends; ask another one").into());
        }
        let stay = self
            .hall
            .enter(node, certificate_serial.clone().into(), rand::random())
            .map_err(|refusal| fault(Code::ResourceExhausted, "RELAY_FULL", refusal.to_string()))?;
        let stay = Arc::new(stay);
        let session = Session {
            hall: self.hall.clone(),
            trust: self.trust.clone(),
            relay: self.name.clone(),
            node,
            certificate_serial: certificate_serial.into(),
            stay: stay.clone(),
        };
        self.shutdown.spawn(session.read(request.into_inner()));
        let welcome =
            Welcome { udp_token: Bytes::copy_from_slice(&stay.token), udp_port: self.hall.udp_port().into() };
        let first = futures::stream::iter([Ok(response(Body::Welcome(welcome)))]);
        let hall = self.hall.clone();
        let rest = futures::stream::unfold(stay, move |stay| {
            let now = hall.now();
            async move {
                let item = stay.outbox.next().await?;
                Some((Ok(response(body(item, now))), stay))
            }
        });
        Ok(Response::new(Box::pin(futures::StreamExt::chain(first, rest))))
    }
}

fn response(body: Body) -> CarryResponse {
    CarryResponse { response: Some(body) }
}

fn id(node: NodeId) -> Bytes {
    Bytes::copy_from_slice(node.as_bytes())
}

fn body(item: Item<News>, now: Instant) -> Body {
    match item {
        Item::Packet(channel, payload) => Body::Packet(Packet { channel: channel.0.into(), payload }),
        Item::News(News::Opened { peer, channel, grant, here }) => {
            let Grant { bytes_per_second, until } = grant;
            Body::Opened(Opened {
                peer_id: id(peer),
                channel: channel.0.into(),
                bytes_per_second,
                expire_time: Some(to_wire(clock::wall() + until.since(now))),
                peer_here: here,
            })
        }
        Item::News(News::Refused { peer, reason }) => Body::Refused(Refused { peer_id: id(peer), reason }),
        Item::News(News::PeerHere { peer, channel }) => {
            Body::PeerHere(PeerHere { peer_id: id(peer), channel: channel.0.into() })
        }
        Item::News(News::PeerGone(channel)) => Body::PeerGone(PeerGone { channel: channel.0.into() }),
        Item::News(News::Restarting) => {
            Body::Restarting(Restarting { remaining: Some(span_to_wire(session::GRACE)) })
        }
    }
}
