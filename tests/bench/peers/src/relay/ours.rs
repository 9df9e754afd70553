//! Guests of our relay, in pairs: sessions by gRPC over TLS, packets by them or by UDP.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use muster_kit::clock;
use muster_kit::connect::{Master, RELAY};
use muster_kit::testing::pki::Pki;
use muster_kit::tls::{self, ClientTls};
use muster_net::BurstSocket;
use muster_overlay::relay::Channel;
use muster_proto::payload_type::RELAY_TICKET;
use muster_proto::relay::v1::carry_request::Request as Ask;
use muster_proto::relay::v1::carry_response::Response as Answer;
use muster_proto::relay::v1::relay_service_client::RelayServiceClient;
use muster_proto::relay::v1::{CarryRequest, CarryResponse, Open};
use muster_types::{Identity, NodeId};
use muster_wire::relay::{self, AddressProof, RelayTicket};
use muster_wire::testing::TestNetwork;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::flow::Leg;
use super::serve::NAME;

/// Packets that wait for a session's way up.
const WAITING: usize = 256;

const ANSWER: Duration = Duration::from_secs(20);

pub(crate) struct Guest {
    id: NodeId,
    serial: Bytes,
    pub(crate) asks: mpsc::Sender<CarryRequest>,
    pub(crate) answers: Streaming<CarryResponse>,
    token: relay::UdpToken,
    udp: SocketAddr,
}

pub(crate) struct Scene {
    pub(crate) pki: Pki,
    pub(crate) network: TestNetwork,
    pub(crate) address: SocketAddr,
}

impl Scene {
    pub(crate) async fn guest(&self, number: u32) -> Result<Guest> {
        let mut id = [0; NodeId::LEN];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let id = NodeId(id);
        let material = self.pki.leaf(&Identity::node(self.pki.network, id));
        let serial = tls::peer_identity(&material.chain).context("an identity")?.serial.into();
        let channel = Master::new([self.address.to_string()], ClientTls::new(material)?).service(RELAY);
        let (asks, outgoing) = mpsc::channel(WAITING);
        let answers = RelayServiceClient::new(channel).carry(ReceiverStream::new(outgoing)).await;
        let mut answers = answers?.into_inner();
        let Some(Answer::Welcome(welcome)) = next(&mut answers).await? else { bail!("no welcome") };
        let udp = SocketAddr::new(self.address.ip(), welcome.udp_port.try_into()?);
        Ok(Guest { id, serial, asks, answers, token: welcome.udp_token[..].try_into()?, udp })
    }

    /// Two guests, and the channel of each to the other.
    pub(crate) async fn pair(&self, number: u32) -> Result<((Guest, u32), (Guest, u32))> {
        let (mut anna, mut bert) = (self.guest(2 * number).await?, self.guest(2 * number + 1).await?);
        let issued = clock::wall();
        let ticket = RelayTicket {
            node: anna.id,
            certificate_serial: anna.serial.clone(),
            peer: Some(bert.id),
            relay: NAME.to_owned(),
            bytes_per_second: 10_000_000_000,
            issued,
            expires: issued + Duration::from_secs(600),
        };
        let ticket = Some(self.network.sign(RELAY_TICKET, ticket.to_payload()));
        let peer_id = Bytes::copy_from_slice(bert.id.as_bytes());
        anna.asks.send(CarryRequest { request: Some(Ask::Open(Open { peer_id, ticket })) }).await?;
        let opened = match next(&mut anna.answers).await? {
            Some(Answer::Opened(opened)) => opened,
            other => bail!("{other:?}"),
        };
        ensure!(opened.peer_here, "the peer is not there");
        let Some(Answer::PeerHere(here)) = next(&mut bert.answers).await? else { bail!("not introduced") };
        Ok(((anna, opened.channel), (bert, here.channel)))
    }

    /// A pair by UDP; the sessions have to stay.
    pub(crate) async fn leg(&self, number: u32) -> Result<(Leg, (Guest, Guest))> {
        let ((anna, channel), (bert, _)) = self.pair(number).await?;
        let head = relay::header(Channel(channel.try_into()?)).to_vec();
        let leg = Leg { from: anna.bind().await?, to: anna.udp, head, at: bert.bind().await?, framed: true };
        Ok((leg, (anna, bert)))
    }
}

impl Guest {
    async fn bind(&self) -> Result<BurstSocket> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(ANSWER))?;
        let mut buffer = [0; 64];
        socket.send_to(&relay::bind(&self.token, 1, &AddressProof::default()), self.udp)?;
        let length = socket.recv(&mut buffer)?;
        let Some(relay::Datagram::Prove { proof }) = relay::decode(&buffer[..length]) else { bail!("no proof") };
        socket.send_to(&relay::bind(&self.token, 1, &proof), self.udp)?;
        let length = socket.recv(&mut buffer)?;
        ensure!(relay::decode(&buffer[..length]) == Some(relay::Datagram::Bound { counter: 1 }), "not bound");
        Ok(BurstSocket::new(socket)?)
    }
}

async fn next(answers: &mut Streaming<CarryResponse>) -> Result<Option<Answer>> {
    Ok(tokio::time::timeout(ANSWER, answers.message()).await??.and_then(|answer| answer.response))
}
