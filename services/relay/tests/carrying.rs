//! The relay at work: real TLS, real gRPC, real datagrams on loopback; tickets by a network made for the test.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use muster_kit::connect::{AUTH, Master, RELAY};
use muster_kit::grpc::Routes;
use muster_kit::listen::Listener;
use muster_kit::policy::Policy;
use muster_kit::shutdown::Shutdown;
use muster_kit::testing::pki::Pki;
use muster_kit::tls::{self, CallerCertificate, ClientTls, Material, ServerTls};
use muster_kit::{clock, grpc};
use muster_overlay::relay::Channel;
use muster_proto::auth::v1::authority_service_server::{AuthorityService, AuthorityServiceServer};
use muster_proto::auth::v1::revocation_service_server::{RevocationService, RevocationServiceServer};
use muster_proto::auth::v1::{
    AdoptRevocationListRequest, AdoptRevocationListResponse, GetRevocationListRequest,
    GetRevocationListResponse, GetTrustBundleRequest, GetTrustBundleResponse, ReinstateCertificateRequest,
    ReinstateCertificateResponse, RevokeCertificateRequest, RevokeCertificateResponse, SignRequest,
    SignResponse, WatchRevocationListRequest, WatchRevocationListResponse,
};
use muster_proto::payload_type::RELAY_TICKET;
use muster_proto::relay::v1::carry_request::Request as Ask;
use muster_proto::relay::v1::carry_response::Response as Answer;
use muster_proto::relay::v1::relay_service_client::RelayServiceClient;
use muster_proto::relay::v1::{CarryRequest, CarryResponse, Open, Opened, Packet};
use muster_proto::trust::v1::{Envelope, TrustBundle};
use muster_relay::Config;
use muster_types::{NodeId, Role};
use muster_wire::relay::{self, AddressProof, Datagram, RelayTicket, UdpToken};
use muster_wire::revocation::{Reason, Revocation};
use muster_wire::testing::TestNetwork;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

const LIMIT: Duration = Duration::from_secs(20);
const NAME: &str = "relay-1";
const TRUST_BUNDLE: &str = "/muster.auth.v1.AuthorityService/GetTrustBundle";
const WATCH_LIST: &str = "/muster.auth.v1.RevocationService/WatchRevocationList";

/// The part of auth that a relay asks: which signers there are.
struct Signers(TrustBundle);

#[tonic::async_trait]
impl AuthorityService for Signers {
    async fn sign(&self, _: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        panic!("a relay has nothing signed")
    }

    async fn get_trust_bundle(
        &self,
        _: Request<GetTrustBundleRequest>,
    ) -> Result<Response<GetTrustBundleResponse>, Status> {
        let trust_bundle = Some(self.0.clone());
        Ok(Response::new(GetTrustBundleResponse { trust_bundle, network_id: Bytes::new() }))
    }
}

/// The other part: who is not admitted any more.
struct List(watch::Sender<Vec<Envelope>>);

#[tonic::async_trait]
impl RevocationService for List {
    type WatchRevocationListStream = BoxStream<'static, Result<WatchRevocationListResponse, Status>>;

    async fn revoke_certificate(
        &self,
        _: Request<RevokeCertificateRequest>,
    ) -> Result<Response<RevokeCertificateResponse>, Status> {
        panic!("a relay revokes nobody")
    }

    async fn reinstate_certificate(
        &self,
        _: Request<ReinstateCertificateRequest>,
    ) -> Result<Response<ReinstateCertificateResponse>, Status> {
        panic!("a relay reinstates nobody")
    }

    async fn adopt_revocation_list(
        &self,
        _: Request<AdoptRevocationListRequest>,
    ) -> Result<Response<AdoptRevocationListResponse>, Status> {
        panic!("a relay knows no list of its own")
    }

    async fn get_revocation_list(
        &self,
        _: Request<GetRevocationListRequest>,
    ) -> Result<Response<GetRevocationListResponse>, Status> {
        panic!("a relay follows the list")
    }

    async fn watch_revocation_list(
        &self,
        _: Request<WatchRevocationListRequest>,
    ) -> Result<Response<Self::WatchRevocationListStream>, Status> {
        let lists = futures::stream::unfold((self.0.subscribe(), 0), |(mut lists, sent)| async move {
            let list = lists.wait_for(|lists| lists.len() > sent).await.ok()?.get(sent)?.clone();
            let response =
                WatchRevocationListResponse { revocation_list: Some(list), number: sent as u64 + 1 };
            Some((Ok(response), (lists, sent + 1)))
        });
        Ok(Response::new(lists.boxed()))
    }
}

/// A relay, and the network that it serves.
struct Scene {
    revoked: watch::Sender<Vec<Envelope>>,
    pki: Pki,
    network: TestNetwork,
    address: SocketAddr,
    shutdown: Shutdown,
}

/// A node at the relay.
struct Guest {
    id: NodeId,
    serial: Bytes,
    material: Material,
    asks: mpsc::Sender<CarryRequest>,
    answers: Streaming<CarryResponse>,
    token: UdpToken,
    udp: UdpSocket,
    relay: SocketAddr,
}

impl Scene {
    async fn new() -> Self {
        let (pki, network, shutdown) = (Pki::new(), TestNetwork::new(), Shutdown::new());
        let mut listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = |name: &str| {
            let material = pki.leaf(&pki.identity(Role::Service, name));
            ServerTls::new(material, CallerCertificate::Required).unwrap()
        };
        let signers = AuthorityServiceServer::new(Signers(network.bundle()));
        let revoked = watch::Sender::new(Vec::new());
        let list = RevocationServiceServer::new(List(revoked.clone()));
        let policy = [TRUST_BUNDLE, WATCH_LIST];
        let policy = policy.into_iter().fold(Policy::new(), |all, one| all.roles(one, &[Role::Service]));
        let incoming = listener.service(AUTH, server("auth"));
        let routes = Routes::new().with(signers).with(list);
        shutdown.spawn(grpc::serve("auth", routes, incoming, policy, shutdown.clone()));

        let material = pki.leaf(&pki.identity(Role::Service, "relay"));
        let auth = Master::new([address.to_string()], ClientTls::new(material).unwrap()).service(AUTH);
        let config = Config::new(NAME.to_owned(), network.id, vec![network.root()]);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let incoming = listener.service(RELAY, server("relay"));
        shutdown.spawn(muster_relay::run(config, incoming, Some(socket), auth, shutdown.clone()));
        shutdown.spawn(listener.run(shutdown.clone()));
        Self { revoked, pki, network, address, shutdown }
    }

    async fn guest(&self, number: u8) -> Guest {
        let id = NodeId([number; 20]);
        let material = self.pki.leaf(&muster_types::Identity::node(self.pki.network, id));
        let serial = tls::peer_identity(&material.chain).unwrap().serial.into();
        let (asks, mut answers) = self.stream(&material).await.unwrap();
        let welcome = answers.message().await.unwrap().unwrap().response;
        let Some(Answer::Welcome(welcome)) = welcome else { panic!("welcomed first: {welcome:?}") };
        let relay = SocketAddr::new(self.address.ip(), welcome.udp_port.try_into().unwrap());
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let token = welcome.udp_token[..].try_into().unwrap();
        Guest { id, serial, material, asks, answers, token, udp, relay }
    }

    /// A session with this certificate.
    async fn stream(
        &self,
        material: &Material,
    ) -> Result<(mpsc::Sender<CarryRequest>, Streaming<CarryResponse>), Status> {
        let tls = ClientTls::new(material.clone()).unwrap();
        let channel = Master::new([self.address.to_string()], tls).service(RELAY);
        let (asks, outgoing) = mpsc::channel(64);
        let answers = RelayServiceClient::new(channel).carry(ReceiverStream::new(outgoing)).await?;
        Ok((asks, answers.into_inner()))
    }

    fn ticket(&self, guest: &Guest, peer: Option<NodeId>) -> RelayTicket {
        let issued = clock::wall();
        RelayTicket {
            node: guest.id,
            certificate_serial: guest.serial.clone(),
            peer,
            relay: NAME.to_owned(),
            bytes_per_second: 10_000_000,
            issued,
            expires: issued + Duration::from_secs(60),
        }
    }

    async fn open(&self, guest: &Guest, peer: NodeId, ticket: &RelayTicket) {
        let sealed = self.network.sign(RELAY_TICKET, ticket.to_payload());
        guest.open(peer, sealed).await;
    }
}

impl Guest {
    async fn ask(&self, request: Ask) {
        self.asks.send(CarryRequest { request: Some(request) }).await.unwrap();
    }

    async fn open(&self, peer: NodeId, ticket: Envelope) {
        let peer_id = Bytes::copy_from_slice(peer.as_bytes());
        self.ask(Ask::Open(Open { peer_id, ticket: Some(ticket) })).await;
    }

    async fn send(&self, channel: u32, payload: &'static [u8]) {
        self.ask(Ask::Packet(Packet { channel, payload: Bytes::from_static(payload) })).await;
    }

    async fn hears(&mut self) -> Answer {
        let next = tokio::time::timeout(LIMIT, self.answers.message()).await.expect("an answer in time");
        next.unwrap().unwrap().response.unwrap()
    }

    async fn packet(&mut self) -> Packet {
        match self.hears().await {
            Answer::Packet(packet) => packet,
            other => panic!("a packet, not {other:?}"),
        }
    }

    /// Binds its UDP address.
    async fn bind(&self, counter: u64) {
        let unproven = relay::bind(&self.token, counter, &AddressProof::default());
        self.udp.send_to(&unproven, self.relay).await.unwrap();
        let told = relay::decode(&self.hears_datagram().await);
        let Some(Datagram::Prove { proof }) = told else { panic!("to be proven, not {told:?}") };
        self.udp.send_to(&relay::bind(&self.token, counter, &proof), self.relay).await.unwrap();
        assert_eq!(relay::decode(&self.hears_datagram().await), Some(Datagram::Bound { counter }));
    }

    async fn send_datagram(&self, channel: u32, payload: &[u8]) {
        let channel = Channel(channel.try_into().unwrap());
        let datagram = [&relay::header(channel)[..], payload].concat();
        self.udp.send_to(&datagram, self.relay).await.unwrap();
    }

    async fn hears_datagram(&self) -> Vec<u8> {
        let mut buffer = [0; 2_048];
        let received = tokio::time::timeout(LIMIT, self.udp.recv_from(&mut buffer)).await;
        let (length, from) = received.expect("a datagram in time").unwrap();
        assert_eq!(from, self.relay);
        buffer[..length].to_vec()
    }

    async fn datagram(&self) -> (u32, Vec<u8>) {
        let datagram = self.hears_datagram().await;
        let Some(Datagram::Data(channel)) = relay::decode(&datagram) else { panic!("data") };
        (channel.0.into(), datagram[relay::HEADER..].to_vec())
    }
}

/// Two guests, and the channels by which they know each other.
async fn pair(scene: &Scene) -> ((Guest, u32), (Guest, u32)) {
    let (mut anna, mut bert) = (scene.guest(1).await, scene.guest(2).await);
    scene.open(&anna, bert.id, &scene.ticket(&anna, Some(bert.id))).await;
    let Answer::Opened(opened) = anna.hears().await else { panic!("opened") };
    assert!(opened.peer_here);
    let Answer::PeerHere(here) = bert.hears().await else { panic!("introduced") };
    assert_eq!(here.peer_id[..], anna.id.as_bytes()[..]);
    ((anna, opened.channel), (bert, here.channel))
}

#[tokio::test]
async fn two_nodes_talk_through_it_by_stream_by_datagrams_and_by_either_to_the_other() {
    let scene = Scene::new().await;
    let ((mut anna, to_bert), (mut bert, to_anna)) = pair(&scene).await;
    anna.send(to_bert, b"by stream").await;
    assert_eq!(bert.packet().await, Packet { channel: to_anna, payload: Bytes::from_static(b"by stream") });
    bert.bind(1).await;
    anna.send(to_bert, b"from a stream to a datagram").await;
    assert_eq!(bert.datagram().await, (to_anna, b"from a stream to a datagram".to_vec()));
    bert.send_datagram(to_anna, b"and back").await;
    assert_eq!(anna.packet().await.payload, Bytes::from_static(b"and back"));
    anna.bind(1).await;
    anna.send_datagram(to_bert, b"by datagrams").await;
    assert_eq!(bert.datagram().await, (to_anna, b"by datagrams".to_vec()));
}

#[tokio::test]
async fn a_node_that_sends_by_its_stream_again_is_answered_there_until_it_binds_anew() {
    let scene = Scene::new().await;
    let ((mut anna, to_bert), (mut bert, to_anna)) = pair(&scene).await;
    bert.bind(1).await;
    anna.send(to_bert, b"by datagram").await;
    assert_eq!(bert.datagram().await.1, b"by datagram");
    bert.send(to_anna, b"UDP fails here").await;
    assert_eq!(anna.packet().await.payload, Bytes::from_static(b"UDP fails here"));
    anna.bind(1).await;
    anna.send_datagram(to_bert, b"by stream").await;
    assert_eq!(bert.packet().await.payload, Bytes::from_static(b"by stream"));
    bert.bind(2).await;
    anna.send_datagram(to_bert, b"by datagram again").await;
    assert_eq!(bert.datagram().await.1, b"by datagram again");
}

#[tokio::test]
async fn a_peer_that_comes_goes_and_comes_again_is_told() {
    let scene = Scene::new().await;
    let mut anna = scene.guest(1).await;
    let bert = NodeId([2; 20]);
    scene.open(&anna, bert, &scene.ticket(&anna, None)).await;
    let Answer::Opened(opened) = anna.hears().await else { panic!("opened") };
    assert!(!opened.peer_here);
    let bert = scene.guest(2).await;
    assert!(matches!(anna.hears().await, Answer::PeerHere(here) if here.channel == opened.channel));
    drop(bert);
    assert!(matches!(anna.hears().await, Answer::PeerGone(gone) if gone.channel == opened.channel));
    let _again = scene.guest(2).await;
    assert!(matches!(anna.hears().await, Answer::PeerHere(here) if here.channel == opened.channel));
}

#[tokio::test]
async fn a_ticket_that_is_forged_foreign_or_for_another_peer_opens_nothing() {
    let scene = Scene::new().await;
    let (mut anna, bert) = (scene.guest(1).await, scene.guest(2).await);
    let good = scene.ticket(&anna, Some(bert.id));
    let of_bert = scene.ticket(&bert, None);
    let elsewhere = RelayTicket { relay: "relay-2".to_owned(), ..good.clone() };
    let carl = RelayTicket { peer: Some(NodeId([3; 20])), ..good.clone() };
    let old = RelayTicket { issued: good.issued - LIMIT, expires: good.issued - LIMIT / 2, ..good.clone() };
    for (ticket, why) in [
        (of_bert, "another node's"),
        (elsewhere, "relay \"relay-2\""),
        (carl, "another peer"),
        (old, "not now"),
    ] {
        scene.open(&anna, bert.id, &ticket).await;
        let Answer::Refused(refused) = anna.hears().await else { panic!("refused: {why}") };
        assert!(refused.reason.contains(why), "{why}: {}", refused.reason);
    }
    anna.open(bert.id, TestNetwork::new().sign(RELAY_TICKET, good.to_payload())).await;
    assert!(matches!(anna.hears().await, Answer::Refused(_)));
    scene.open(&anna, bert.id, &good).await;
    assert!(matches!(anna.hears().await, Answer::Opened(_)));
}

#[tokio::test]
async fn strangers_datagrams_and_replayed_binds_are_not_answered() {
    let scene = Scene::new().await;
    let ((anna, to_bert), (bert, _)) = pair(&scene).await;
    anna.bind(5).await;
    bert.bind(1).await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let unknown = AddressProof::default();
    let replay = relay::bind(&anna.token, 5, &unknown);
    let header = relay::header(Channel(to_bert.try_into().unwrap()));
    for datagram in
        [&replay[..], &relay::bind(&[9; 16], 6, &unknown), &[&header[..], b"forged"].concat(), &[0xb2]]
    {
        stranger.send_to(datagram, anna.relay).await.unwrap();
    }
    anna.send_datagram(to_bert, b"genuine").await;
    // One socket hears them in order: what comes out now was sent last.
    assert_eq!(bert.datagram().await.1, b"genuine");
    assert!(stranger.try_recv_from(&mut [0; 64]).is_err());
}

#[tokio::test]
async fn a_session_has_nothing_sent_to_an_address_where_it_does_not_hear() {
    let scene = Scene::new().await;
    let ((anna, to_bert), (mut bert, _)) = pair(&scene).await;
    anna.bind(1).await;
    // Whoever is there hears one short word, and what a proof for another address says counts for nothing here.
    let victim = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    bert.udp.send_to(&relay::bind(&bert.token, 1, &AddressProof::default()), bert.relay).await.unwrap();
    let Some(Datagram::Prove { proof }) = relay::decode(&bert.hears_datagram().await) else {
        panic!("prove")
    };
    victim.send_to(&relay::bind(&bert.token, 2, &proof), bert.relay).await.unwrap();
    let mut buffer = [0; 64];
    let (length, _) = tokio::time::timeout(LIMIT, victim.recv_from(&mut buffer)).await.unwrap().unwrap();
    let told = relay::decode(&buffer[..length]);
    assert!(matches!(told, Some(Datagram::Prove { proof: another }) if another != proof), "{told:?}");
    anna.send_datagram(to_bert, b"not for the victim").await;
    assert_eq!(bert.packet().await.payload, Bytes::from_static(b"not for the victim"));
    assert!(victim.try_recv_from(&mut buffer).is_err());
}

#[tokio::test]
async fn a_relay_that_ends_says_so_and_carries_on_meanwhile() {
    let scene = Scene::new().await;
    let ((mut anna, to_bert), (mut bert, _)) = pair(&scene).await;
    scene.shutdown.trigger();
    assert!(matches!(anna.hears().await, Answer::Restarting(_)));
    assert!(matches!(bert.hears().await, Answer::Restarting(_)));
    anna.send(to_bert, b"not lost").await;
    assert_eq!(bert.packet().await.payload, Bytes::from_static(b"not lost"));
}

#[tokio::test]
async fn a_node_that_comes_twice_has_its_newest_session_alone() {
    let scene = Scene::new().await;
    let mut old = scene.guest(1).await;
    let _new = scene.guest(1).await;
    let ended = tokio::time::timeout(LIMIT, old.answers.message()).await.unwrap();
    assert!(matches!(ended, Ok(None)));
}

#[tokio::test]
async fn a_node_that_is_revoked_loses_its_seat_at_once_and_gets_no_other() {
    let scene = Scene::new().await;
    let ((mut anna, _), (mut bert, to_anna)) = pair(&scene).await;
    let revocation = Revocation {
        number: 1,
        serial: anna.serial.clone(),
        key: None,
        node: Some(anna.id),
        time: muster_wire::testing::NOW,
        expires: muster_wire::testing::NOW + Duration::from_secs(3_600),
        reason: Reason::Revoked,
    };
    scene.revoked.send_modify(|lists| lists.push(scene.network.revocations(0, 1, &[revocation])));
    let ended = tokio::time::timeout(LIMIT, anna.answers.message()).await.unwrap();
    assert!(matches!(ended, Ok(None)), "{ended:?}");
    let Answer::PeerGone(gone) = bert.hears().await else { panic!("gone") };
    assert_eq!(gone.channel, to_anna);

    let again = scene.stream(&anna.material).await.map(drop);
    assert_eq!(muster_kit::status::reason(&again.unwrap_err()).unwrap(), "CERTIFICATE_REVOKED");
    // Others sit on.
    bert.bind(1).await;
}

#[tokio::test]
async fn a_stranger_gets_no_byte_for_all_that_it_sends_and_others_talk_on_meanwhile() {
    let scene = Scene::new().await;
    let ((anna, to_bert), (bert, _)) = pair(&scene).await;
    anna.bind(1).await;
    bert.bind(1).await;
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.set_nonblocking(true).unwrap();
    let header = relay::header(Channel(to_bert.try_into().unwrap()));
    for round in 0..=u8::MAX {
        let garbage = [&[round][..], &[0x55; 1_100]].concat();
        let forged = [&header[..], &garbage].concat();
        let guessed = relay::bind(&[round; 16], u64::MAX, &AddressProof::default());
        let replayed = relay::bind(&anna.token, 1, &AddressProof::default());
        for datagram in [&garbage[..], &forged, &guessed, &replayed, &[round]] {
            stranger.send_to(datagram, anna.relay).unwrap();
        }
        // One socket hears all of them in order: when this comes out, those before it were looked at.
        anna.send_datagram(to_bert, &[round]).await;
        assert_eq!(bert.datagram().await.1, [round]);
    }
    let answered = stranger.recv_from(&mut [0; 2_048]);
    assert_eq!(answered.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

/// Packets of one measurement: 7 MB, less than what a relay lets pass ahead of its pace.
const PACKETS: u32 = 5_120;
const PAYLOAD: &[u8] = &[7; 1_400];

/// On their way at once.
const WINDOW: u32 = 32;

/// Silence after which what is missing of a window does not come any more.
const LOSS_IS_SEEN: Duration = Duration::from_secs(1);

/// One datagram of so many, on a busy computer.
const MAY_BE_LOST: u32 = 100;

#[tokio::test]
async fn all_of_seven_megabytes_comes_through_by_stream_and_by_datagrams() {
    let scene = Scene::new().await;
    let (mut anna, mut bert) = (scene.guest(1).await, scene.guest(2).await);
    let ticket = RelayTicket { bytes_per_second: 1_000_000_000, ..scene.ticket(&anna, Some(bert.id)) };
    scene.open(&anna, bert.id, &ticket).await;
    let Answer::Opened(Opened { channel: to_bert, .. }) = anna.hears().await else { panic!("opened") };
    assert!(matches!(bert.hears().await, Answer::PeerHere(_)));
    let begun = std::time::Instant::now();
    for _ in 0..PACKETS / WINDOW {
        for _ in 0..WINDOW {
            anna.send(to_bert, PAYLOAD).await;
        }
        for _ in 0..WINDOW {
            assert_eq!(bert.packet().await.payload, PAYLOAD);
        }
    }
    let by_stream = begun.elapsed();
    anna.bind(1).await;
    bert.bind(1).await;
    let begun = std::time::Instant::now();
    let mut lost = 0;
    for _ in 0..PACKETS / WINDOW {
        for _ in 0..WINDOW {
            anna.send_datagram(to_bert, PAYLOAD).await;
        }
        for left in (0..WINDOW).rev() {
            // A kernel without room for a datagram drops it, as UDP may.
            match tokio::time::timeout(LOSS_IS_SEEN, bert.datagram()).await {
                Ok((_, payload)) => assert_eq!(payload, PAYLOAD),
                Err(_) => {
                    lost += left + 1;
                    break;
                }
            }
        }
    }
    println!(
        "{PACKETS} packets, both ends and relay on one core: {by_stream:?} by stream, {:?} by UDP, {lost} lost",
        begun.elapsed()
    );
    assert!(lost <= PACKETS / MAY_BE_LOST, "{lost} of {PACKETS} datagrams are lost");
}
