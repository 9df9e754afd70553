//! The registry at work: real TLS, real gRPC, real datagrams on loopback, whose whole /8 is ours: 127.0.0.1 is where
//! candidates are, 127.0.0.2 and 127.0.0.3 are where the master probes from.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_gsn_registry::{Config, StoreConfig};
use muster_kit::clock;
use muster_kit::connect::{AUTH, GSN_REGISTRY, Master, MasterChannel};
use muster_kit::grpc::{self, Routes};
use muster_kit::listen::Listener;
use muster_kit::policy::Policy;
use muster_kit::shutdown::Shutdown;
use muster_kit::status;
use muster_kit::testing::pki::Pki;
use muster_kit::tls::{self, CallerCertificate, ClientTls, ServerTls};
use muster_proto::auth::v1::authority_service_server::{AuthorityService, AuthorityServiceServer};
use muster_proto::auth::v1::revocation_service_server::{RevocationService, RevocationServiceServer};
use muster_proto::auth::v1::*;
use muster_proto::gsn::v1::offer_request::Request as Say;
use muster_proto::gsn::v1::offer_response::Response as Hear;
use muster_proto::gsn::v1::registry_service_client::RegistryServiceClient;
use muster_proto::gsn::v1::{
    Candidacy, CandidateState, Caps, IssueRelayTicketRequest, ListSuperNodesRequest, ListSuperNodesResponse,
    OfferRequest, OfferResponse, ProbeHeard, RegisterRelayRequest, Relay, RelayAddress,
};
use muster_proto::overlay::v1::Contact;
use muster_proto::payload_type::{NODE_TICKET, RELAY_TICKET};
use muster_proto::trust::v1::{Envelope, NodeTicket};
use muster_types::{Identity, NodeId, Role};
use muster_wire::relay::{Bearer, RelayTicket};
use muster_wire::testing::TestNetwork;
use muster_wire::time::to_wire;
use muster_wire::{gsn, probe};
use prost::Message;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

const LIMIT: Duration = Duration::from_secs(30);

/// What the registry asks of auth, answered by a network made for the test.
struct Auth(Arc<TestNetwork>);

#[tonic::async_trait]
impl AuthorityService for Auth {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let sign = |it: Payload| self.0.sign(RELAY_TICKET, it.payload);
        let envelopes = request.into_inner().payloads.into_iter().map(sign).collect();
        Ok(Response::new(SignResponse { envelopes }))
    }

    async fn get_trust_bundle(
        &self,
        _: Request<GetTrustBundleRequest>,
    ) -> Result<Response<GetTrustBundleResponse>, Status> {
        let trust_bundle = Some(self.0.bundle());
        Ok(Response::new(GetTrustBundleResponse { trust_bundle, network_id: Bytes::new() }))
    }
}

/// Nobody is revoked.
struct NoRevocations;

#[tonic::async_trait]
impl RevocationService for NoRevocations {
    type WatchRevocationListStream = ReceiverStream<Result<WatchRevocationListResponse, Status>>;

    async fn revoke_certificate(
        &self,
        _: Request<RevokeCertificateRequest>,
    ) -> Result<Response<RevokeCertificateResponse>, Status> {
        panic!("the registry revokes nobody")
    }

    async fn reinstate_certificate(
        &self,
        _: Request<ReinstateCertificateRequest>,
    ) -> Result<Response<ReinstateCertificateResponse>, Status> {
        panic!("the registry reinstates nobody")
    }

    async fn adopt_revocation_list(
        &self,
        _: Request<AdoptRevocationListRequest>,
    ) -> Result<Response<AdoptRevocationListResponse>, Status> {
        panic!("the registry knows no list of its own")
    }

    async fn get_revocation_list(
        &self,
        _: Request<GetRevocationListRequest>,
    ) -> Result<Response<GetRevocationListResponse>, Status> {
        Ok(Response::new(GetRevocationListResponse::default()))
    }

    async fn watch_revocation_list(
        &self,
        _: Request<WatchRevocationListRequest>,
    ) -> Result<Response<Self::WatchRevocationListStream>, Status> {
        panic!("the registry asks now and then")
    }
}

struct Scene {
    pki: Pki,
    network: Arc<TestNetwork>,
    address: SocketAddr,
    _folder: tempfile::TempDir,
    _shutdown: Shutdown,
}

type Client = RegistryServiceClient<MasterChannel>;

impl Scene {
    async fn new() -> Self {
        let (pki, network, shutdown) = (Pki::new(), Arc::new(TestNetwork::new()), Shutdown::new());
        let mut listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = |name: &str| {
            let material = pki.leaf(&pki.identity(Role::Service, name));
            ServerTls::new(material, CallerCertificate::Required).unwrap()
        };
        let policy = Policy::new()
            .roles("/muster.auth.v1.AuthorityService/Sign", &[Role::Service])
            .roles("/muster.auth.v1.AuthorityService/GetTrustBundle", &[Role::Service])
            .roles("/muster.auth.v1.RevocationService/GetRevocationList", &[Role::Service]);
        let routes = Routes::new()
            .with(AuthorityServiceServer::new(Auth(network.clone())))
            .with(RevocationServiceServer::new(NoRevocations));
        let incoming = listener.service(AUTH, server("auth"));
        shutdown.spawn(grpc::serve("auth", routes, incoming, policy, shutdown.clone()));

        let material = pki.leaf(&pki.identity(Role::Service, "gsn-registry"));
        let auth = Master::new([address.to_string()], ClientTls::new(material).unwrap()).service(AUTH);
        let folder = tempfile::tempdir().unwrap();
        let store = StoreConfig::Sqlite(folder.path().join("gsn-registry.db"));
        let probe_from = [[127, 0, 0, 2], [127, 0, 0, 3]].map(IpAddr::from).to_vec();
        let config = Config { probe_from, ..Config::new(store, network.id, vec![network.root()]) };
        let incoming = listener.service(GSN_REGISTRY, server("gsn-registry"));
        shutdown.spawn(muster_gsn_registry::run(config, incoming, auth, shutdown.clone()));
        shutdown.spawn(listener.run(shutdown.clone()));
        Self { pki, network, address, _folder: folder, _shutdown: shutdown }
    }

    fn client(&self, identity: &Identity) -> (Client, Bytes) {
        let material = self.pki.leaf(identity);
        let serial = tls::peer_identity(&material.chain).unwrap().serial.into();
        let tls = ClientTls::new(material).unwrap();
        let channel = Master::new([self.address.to_string()], tls).service(GSN_REGISTRY);
        (RegistryServiceClient::new(channel), serial)
    }

    fn of_node(&self, node: NodeId) -> (Client, Bytes) {
        self.client(&Identity::node(self.pki.network, node))
    }

    fn of_service(&self, name: &str) -> Client {
        self.client(&self.pki.identity(Role::Service, name)).0
    }

    /// The ticket of a node, valid today.
    fn ticket(&self, node: NodeId) -> Envelope {
        let now = clock::wall();
        let ticket = NodeTicket {
            node_id: Bytes::copy_from_slice(node.as_bytes()),
            certificate_serial: Bytes::from_static(&[1]),
            noise_key: Bytes::from_static(&[1; 32]),
            sealing_key: Bytes::from_static(&[2; 32]),
            signing_key: Bytes::from_static(&[3; 32]),
            not_before_time: Some(to_wire(now - LIMIT)),
            not_after_time: Some(to_wire(now + LIMIT * 10)),
            ..NodeTicket::default()
        };
        self.network.sign(NODE_TICKET, ticket.encode_to_vec().into())
    }

    async fn candidate(&self, number: u8) -> Candidate {
        let node = NodeId([number; 20]);
        Candidate::new(self, node, self.ticket(node)).await
    }

    /// What a node is told, once it is told of so many.
    async fn until_listed(&self, count: usize) -> ListSuperNodesResponse {
        let (mut client, _) = self.of_node(NodeId([99; 20]));
        let told = async {
            loop {
                let listed = client.list_super_nodes(ListSuperNodesRequest::default()).await.unwrap();
                if listed.get_ref().super_nodes.len() == count {
                    return listed.into_inner();
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(LIMIT, told).await.expect("as many as expected are listed in time")
    }
}

/// A node that would serve.
struct Candidate {
    node: NodeId,
    ticket: Envelope,
    socket: UdpSocket,
    says: mpsc::Sender<OfferRequest>,
    hears: Streaming<OfferResponse>,
}

impl Candidate {
    async fn new(scene: &Scene, node: NodeId, ticket: Envelope) -> Self {
        let (mut client, _) = scene.of_node(node);
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // Auth's signers are asked for as the registry starts.
        let begun = async {
            loop {
                let (says, saying) = mpsc::channel(64);
                says.send(candidacy(&ticket, node, socket.local_addr().unwrap())).await.unwrap();
                match client.offer(ReceiverStream::new(saying)).await {
                    Ok(hears) => return (says, hears.into_inner()),
                    Err(status) => assert_eq!(status.code(), Code::Unauthenticated, "{status}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let (says, hears) = tokio::time::timeout(LIMIT, begun).await.unwrap();
        Self { node, ticket, socket, says, hears }
    }

    async fn say(&self, request: Say) {
        self.says.send(OfferRequest { request: Some(request) }).await.unwrap();
    }

    /// Repeats what it hears until it is told that it stands like this.
    async fn until(&mut self, wanted: CandidateState) {
        let became = async {
            let mut buffer = [0; 64];
            loop {
                tokio::select! {
                    heard = self.socket.recv_from(&mut buffer) => {
                        let (length, source) = heard.unwrap();
                        let token = probe::decode(&buffer[..length]).expect("nothing but probes comes here");
                        assert_ne!(source.ip(), IpAddr::from([127, 0, 0, 1]));
                        self.say(heard_of(&token, source, None)).await;
                    }
                    told = self.hears.message() => {
                        let told = told.unwrap().expect("the stream goes on").response;
                        if matches!(&told, Some(Hear::Standing(it)) if it.state() == wanted) {
                            return;
                        }
                    }
                }
            }
        };
        tokio::time::timeout(LIMIT, became).await.expect("the registry decides in time");
    }
}

fn candidacy(ticket: &Envelope, id: NodeId, at: SocketAddr) -> OfferRequest {
    let address = gsn::address_to_wire(at);
    let node_id = Bytes::copy_from_slice(id.as_bytes());
    let contact = Contact { node_id, addresses: vec![address], ..Contact::default() };
    let caps =
        Caps { signalling_bytes_per_second: 5_000, relaying_bytes_per_second: 10_000, relayed_nodes: 100 };
    let request = Say::Candidacy(Candidacy {
        contact: Some(contact),
        ticket: Some(ticket.clone()),
        eligible: true,
        caps: Some(caps),
        subnet_keys: Vec::new(),
        nat: "none".to_owned(),
    });
    OfferRequest { request: Some(request) }
}

fn heard_of(token: &probe::Token, source: SocketAddr, sent_ago: Option<Duration>) -> Say {
    Say::ProbeHeard(ProbeHeard {
        token: Bytes::copy_from_slice(token),
        source: Some(gsn::address_to_wire(source)),
        sent_ago: sent_ago.map(muster_wire::time::span_to_wire),
    })
}

fn relay(name: &str) -> RegisterRelayRequest {
    let address = RelayAddress { host: "relay.example".to_owned(), tcp_port: 443, udp_port: 3_478 };
    RegisterRelayRequest {
        relay: Some(Relay { name: name.to_owned(), addresses: vec![address], ..Relay::default() }),
    }
}

fn ticket(relay: &str) -> IssueRelayTicketRequest {
    IssueRelayTicketRequest { relay: relay.to_owned(), ..IssueRelayTicketRequest::default() }
}

#[tokio::test]
async fn who_repeats_probes_from_two_quiet_addresses_serves_and_is_listed_until_it_leaves() {
    let scene = Scene::new().await;
    let mut candidate = scene.candidate(1).await;
    candidate.until(CandidateState::Serving).await;
    let listed = scene.until_listed(1).await;
    let listed = gsn::SuperNode::from_wire(listed.super_nodes[0].clone()).unwrap();
    assert_eq!(listed.contact.node, candidate.node);
    assert_eq!(listed.contact.addresses[0].udp(), candidate.socket.local_addr().ok());
    drop(candidate);
    scene.until_listed(0).await;
}

#[tokio::test]
async fn who_makes_probes_up_or_had_written_to_the_master_proves_nothing() {
    let scene = Scene::new().await;
    let mut liar = scene.candidate(1).await;
    let honest = scene.candidate(2).await;
    for number in 0..50 {
        let source = SocketAddr::from(([127, 0, 0, 2], 40_000 + u16::from(number)));
        liar.say(heard_of(&[number; 16], source, None)).await;
    }
    // What the other hears is worth nothing to the liar, nor to itself: it wrote there a minute ago.
    let mut buffer = [0; 64];
    for _ in 0..4 {
        let (length, source) = honest.socket.recv_from(&mut buffer).await.unwrap();
        let token = probe::decode(&buffer[..length]).unwrap();
        liar.say(heard_of(&token, source, None)).await;
        honest.say(heard_of(&token, source, Some(Duration::from_secs(60)))).await;
    }
    liar.until(CandidateState::Unproven).await;
    let (mut client, _) = scene.of_node(NodeId([99; 20]));
    let listed = client.list_super_nodes(ListSuperNodesRequest::default()).await.unwrap().into_inner();
    assert!(listed.super_nodes.is_empty());
}

#[tokio::test]
async fn nobody_offers_another_node() {
    let scene = Scene::new().await;
    let candidate = scene.candidate(1).await;
    let at = candidate.socket.local_addr().unwrap();
    let (mut client, _) = scene.of_node(NodeId([2; 20]));
    let own = scene.ticket(NodeId([2; 20]));
    for ticket in [&candidate.ticket, &own] {
        let said = tokio_stream::iter([candidacy(ticket, candidate.node, at)]);
        let refused = client.offer(said).await.unwrap_err();
        assert_eq!(status::reason(&refused).as_deref(), Some("NOT_YOURS"), "{refused}");
    }
}

#[tokio::test]
async fn tickets_are_for_their_caller_at_a_relay_that_is_there_and_are_handed_out_again() {
    let scene = Scene::new().await;
    scene.of_service("relay").register_relay(relay("relay-1")).await.unwrap();
    let node = NodeId([7; 20]);
    let (mut client, serial) = scene.of_node(node);
    let missing = client.issue_relay_ticket(ticket("relay-2")).await.unwrap_err();
    assert_eq!(status::reason(&missing).as_deref(), Some("NO_SUCH_RELAY"));
    let issued = client.issue_relay_ticket(ticket("relay-1")).await.unwrap().into_inner();
    let peer = NodeId([8; 20]);
    let bearer = Bearer { node, certificate_serial: &serial, relay: "relay-1", peer };
    let sealed = issued.ticket.unwrap();
    let opened = RelayTicket::open(&sealed, &bearer, &scene.network.trust(), clock::wall()).unwrap();
    assert_eq!(opened.bytes_per_second, issued.bytes_per_second);
    let again = client.issue_relay_ticket(ticket("relay-1")).await.unwrap().into_inner();
    assert_eq!(again.ticket.unwrap(), sealed, "the same, signed once");
    let thief = Bearer { node: peer, ..bearer };
    assert!(RelayTicket::open(&sealed, &thief, &scene.network.trust(), clock::wall()).is_err());
    let listed = client.list_super_nodes(ListSuperNodesRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.relays[0].addresses[0].udp_port, 3_478);
}

#[tokio::test]
async fn only_relays_register_relays_and_a_node_gets_so_many_tickets_in_a_minute() {
    let scene = Scene::new().await;
    let refused = scene.of_service("topology").register_relay(relay("relay-1")).await.unwrap_err();
    assert_eq!(status::reason(&refused).as_deref(), Some("NOT_A_RELAY"));
    let (mut node, _) = scene.of_node(NodeId([7; 20]));
    let refused = node.register_relay(relay("relay-1")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    scene.of_service("relay").register_relay(relay("relay-1")).await.unwrap();
    let mut last = Ok(());
    for _ in 0..=120 {
        last = node.issue_relay_ticket(ticket("relay-1")).await.map(drop);
    }
    assert_eq!(status::reason(&last.unwrap_err()).as_deref(), Some("TOO_MANY_TICKETS"));
}
