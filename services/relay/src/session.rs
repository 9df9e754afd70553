//! What one node sends up its session: tickets, which open channels, and packets, which go through them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_kit::clock;
use muster_overlay::relay::{Channel, Grant};
use muster_proto::relay::v1::carry_request::Request as Body;
use muster_proto::relay::v1::{CarryRequest, Open, Packet};
use muster_types::NodeId;
use muster_wire::relay::{Bearer, PACKET_BYTES};
use tonic::Streaming;

use crate::hall::{Hall, News, Stay};
use crate::metrics;
use crate::trust::Trust;

/// How long a relay that ends carries on: a little less than its calls are given.
pub(crate) const GRACE: Duration = Duration::from_secs(8);

pub(crate) struct Session {
    pub(crate) hall: Arc<Hall>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) relay: Arc<str>,
    pub(crate) node: NodeId,
    pub(crate) certificate_serial: Bytes,
    pub(crate) stay: Arc<Stay>,
}

impl Session {
    /// Until the node ends its stream, a newer session of its takes over, or the relay ends.
    pub(crate) async fn read(self, mut requests: Streaming<CarryRequest>) {
        loop {
            let request = tokio::select! {
                () = self.stay.outbox.closed() => return self.stay.end(),
                request = requests.message() => request,
            };
            match request {
                Ok(Some(CarryRequest { request: Some(Body::Packet(packet)) })) => self.carry(packet),
                Ok(Some(CarryRequest { request: Some(Body::Open(open)) })) => self.open(open).await,
                // Of a newer version.
                Ok(Some(CarryRequest { request: None })) => {}
                Ok(None) | Err(_) => break,
            }
        }
        self.stay.outbox.close();
    }

    fn carry(&self, Packet { channel, payload }: Packet) {
        let Ok(channel) = u16::try_from(channel) else { return };
        if payload.len() <= PACKET_BYTES {
            self.hall.carry(self.stay.seat, Channel(channel), payload);
        }
    }

    async fn open(&self, Open { peer_id, ticket }: Open) {
        // Nobody to answer about.
        let Ok(peer) = NodeId::try_from(&peer_id[..]) else { return };
        let bearer = Bearer {
            node: self.node,
            certificate_serial: &self.certificate_serial,
            relay: &self.relay,
            peer,
        };
        match self.trust.ticket(&ticket.unwrap_or_default(), &bearer).await {
            Ok(ticket) => {
                let until = self.hall.now() + ticket.expires.since(clock::wall());
                let grant = Grant { bytes_per_second: ticket.bytes_per_second, until };
                self.hall.open(self.stay.seat, peer, grant);
            }
            Err(error) => {
                metrics::ticket_refused();
                self.stay.outbox.tell(News::Refused { peer, reason: error.to_string() });
            }
        }
    }
}
