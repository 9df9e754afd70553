//! Bytes that say something in every field, so that what is made from them reaches every field's parser.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use bytes::Bytes;
use muster_overlay::Claim;
use muster_overlay::dht::{Answer, Kind, Record, Refusal, Request, Service};
use muster_overlay::meeting::{self, Candidate, Ports, Whereabouts};
use muster_overlay::message::{
    Accepted, Attach, Beat, Discovery, Join, Knock, LsnQuery, Message, Neighbor, NeighborList, Part,
    PartCode, Ping, Pong, Seal, Terms,
};
use muster_overlay::standing::{Standing, Uptime};
use muster_proto::control::v1::{
    Downstream, Probe, ProbeAnswer, Upstream, UpstreamItem, downstream, upstream_item,
};
use muster_proto::payload_type::TASK;
use muster_types::{Address, Contact, EnrollmentLink, Instant, Key, NodeId, RootKey, SubnetKey, Token};
use muster_wire::call::Call;
use muster_wire::datagram::{Event, Exchange, Limits, PeerAddress};
use muster_wire::hello::Host;
use muster_wire::meeting::ProbeKeys;
use muster_wire::record::{self, Value};
use muster_wire::revocation::{self, Reason, Revocation};
use muster_wire::sealing::{self, ARGUMENTS};
use muster_wire::testing::{NOW, TestNode};
use muster_wire::{beat, dht, discovery, hello, sealed, session, stun};
use prost::Message as _;

use crate::world::{NONCE, World};

const UPTIME: Uptime = Uptime(4_200);

fn contact(node: NodeId) -> Contact {
    let ports = (Some(27_431), Some(27_432));
    let address = |ip| Address { ip, udp_port: ports.0, tcp_port: ports.1 };
    let addresses = vec![
        address(IpAddr::V4(Ipv4Addr::new(192, 168, 1, 7))),
        address(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7))),
    ];
    Contact { node, addresses }
}

fn claim(world: &World) -> Claim {
    Claim {
        lineage: 3,
        epoch: 9,
        predecessor: Some(NodeId([8; 20])),
        subnet_keys: vec![SubnetKey([4; 20]), SubnetKey([5; 20])],
        claimant: contact(world.node.id),
        uptime: UPTIME,
        standing: Standing { wired: true, mains_powered: true },
        successor: Some(NodeId([6; 20])),
        settled: true,
        seal: Seal::OWN,
    }
}

fn own_attach(world: &World) -> Attach {
    Attach { node: world.node.id, lsn: NodeId([8; 20]), lineage: 3, epoch: 9, seal: Seal::OWN }
}

fn accepted(world: &World) -> Accepted {
    let neighbor = |node| Neighbor {
        contact: contact(node),
        uptime: UPTIME,
        standing: Standing { wired: true, mains_powered: false },
    };
    Accepted {
        neighbors: NeighborList {
            number: 2,
            neighbors: [neighbor(NodeId([6; 20])), neighbor(NodeId([7; 20]))].into(),
        },
        claim: claim(world),
        terms: Terms { lease: Duration::from_secs(10), ping_interval: Duration::from_secs(3) },
        observed: Some((Ipv4Addr::new(192, 168, 1, 7), 27_431).into()),
    }
}

fn part(world: &World) -> Part {
    Part {
        code: PartCode::BETTER_LSN,
        description: "there is a better one".to_owned(),
        better: Some(claim(world)),
    }
}

pub(crate) fn discoveries(world: &World) -> Vec<Vec<u8>> {
    let query =
        LsnQuery { node: world.node.id, subnet_keys: vec![SubnetKey([4; 20])], uptime: UPTIME, nonce: 5 };
    [Discovery::Query(query), Discovery::Claim(claim(world))]
        .iter()
        .map(|said| discovery::encode(said, &world.signer, NOW).expect("a valid datagram").to_vec())
        .collect()
}

pub(crate) fn session_messages(world: &World) -> Vec<Vec<u8>> {
    let join = Join {
        contact: contact(world.node.id),
        subnet_keys: vec![SubnetKey([4; 20])],
        uptime: UPTIME,
        standing: Standing { wired: true, mains_powered: true },
        attach: own_attach(world),
        version: world.hello.software,
        brings: Some(7),
    };
    let spoken = [
        Message::Join(join),
        Message::Refused(part(world)),
        Message::Ping(Ping { sequence: 4, load_percent: 50 }),
        Message::Pong(Pong { sequence: 4, load_percent: 50, lsn: Some(claim(world)), without_master: true }),
        Message::Part(part(world)),
        Message::NeighborList(accepted(world).neighbors),
        Message::Claim(claim(world)),
        Message::Knock(Knock::Unanswered),
    ];
    let mut messages: Vec<_> = spoken
        .iter()
        .map(|message| session::encode(message, &world.signer, NOW).expect("a valid message").to_vec())
        .collect();
    messages.extend(acceptances(world));
    messages.extend(passing_through(world));
    messages
}

fn passing_through(world: &World) -> Vec<Vec<u8>> {
    let node_id = world.node.id.as_bytes().to_vec();
    let answer = ProbeAnswer { nonce: 1, ..ProbeAnswer::default() };
    let item = UpstreamItem {
        class: 1,
        body: Some(upstream_item::Body::ProbeAnswer(answer)),
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
    };
    let up = Upstream { node_id: node_id.clone().into(), items: vec![item] };
    let body = Some(downstream::Body::Probe(Probe { nonce: 1, signed: true }));
    let down = Downstream { targets: vec![node_id.into()], body };
    vec![
        session::encode_upstream(up).expect("a valid message").to_vec(),
        session::encode_downstream(down).expect("a valid message").to_vec(),
    ]
}

pub(crate) fn calls(world: &World) -> Vec<Vec<u8>> {
    let candidate = |at: &str, kind| Candidate { at: at.parse().expect("an address and a port"), kind };
    let candidates = vec![
        candidate("192.168.1.7:27431", meeting::Kind::Host),
        candidate("[2001:db8::7]:27431", meeting::Kind::Reflexive),
    ];
    let call = Call {
        to: world.peer.id,
        meeting: 77,
        answer: true,
        whereabouts: Whereabouts { candidates, ports: Ports::Counted(2) },
        relays: vec!["relay-0".to_owned()],
    };
    let seal = |key| call.seal(&world.signer, key, NOW).payload.to_vec();
    vec![seal(None), seal(Some(world.sealing.public()))]
}

/// Of the node and of its peer.
pub(crate) fn probe_keys(world: &World) -> (ProbeKeys, ProbeKeys) {
    let peer = world.peer.hello(NONCE, &world.trust).ticket.noise_key;
    let (own, other) = (&world.node, &world.peer);
    let keys = |own: &TestNode, other: (NodeId, &[u8; 32])| {
        ProbeKeys::new(world.network.id, 77, (own.id, &own.noise_secret), other)
    };
    (keys(own, (other.id, &peer)), keys(other, (own.id, &world.hello.ticket.noise_key)))
}

pub(crate) fn meeting_probes(world: &World) -> Vec<Vec<u8>> {
    let (keys, _) = probe_keys(world);
    let seal = |probe| keys.seal(probe).expect("randomness").to_vec();
    vec![seal(meeting::Probe::Ask(7)), seal(meeting::Probe::Answer(8))]
}

pub(crate) fn stun() -> Vec<Vec<u8>> {
    let seen = |ip: IpAddr| stun::answer(&[7; 12], (ip, 27_431).into()).to_vec();
    vec![stun::request(&[7; 12]).to_vec(), seen(Ipv4Addr::LOCALHOST.into()), seen(Ipv6Addr::LOCALHOST.into())]
}

pub(crate) fn acceptances(world: &World) -> Vec<Vec<u8>> {
    let bundle = world.network.bundle();
    let encoded = session::encode_accepted(&accepted(world), bundle, &world.signer, NOW);
    vec![encoded.expect("a valid message").to_vec()]
}

pub(crate) fn beats() -> Vec<Vec<u8>> {
    vec![beat::encode(&Beat { lineage: 3, epoch: 9, sequence: 1_000, answer: true }).to_vec()]
}

pub(crate) fn hellos(world: &World) -> Vec<Vec<u8>> {
    let host = Host { name: "host".to_owned(), os: "linux".to_owned(), architecture: "x86_64".to_owned() };
    let capabilities = ["tcp".to_owned()];
    vec![hello::encode(&host, world.hello.software, &capabilities, &world.signer).to_vec()]
}

pub(crate) fn claims(world: &World) -> Vec<Vec<u8>> {
    let sealed = sealed::claim_to_wire(&claim(world), &world.signer, NOW);
    vec![sealed.expect("an own claim").payload.to_vec()]
}

pub(crate) fn attaches(world: &World) -> Vec<Vec<u8>> {
    let sealed = sealed::attach_to_wire(&own_attach(world), &world.signer, NOW);
    vec![sealed.expect("an own attach").payload.to_vec()]
}

pub(crate) fn node_tickets(world: &World) -> Vec<Vec<u8>> {
    vec![world.node.ticket.payload.to_vec()]
}

pub(crate) fn uptime_tickets(world: &World) -> Vec<Vec<u8>> {
    vec![world.network.uptime(world.node.id, UPTIME).payload.to_vec()]
}

pub(crate) fn trust_bundles(world: &World) -> Vec<Vec<u8>> {
    vec![world.network.bundle().encode_to_vec()]
}

pub(crate) fn enrollment_links() -> Vec<Vec<u8>> {
    let mut point = [7; 65];
    point[0] = 4;
    let root_key = RootKey::from_point(&point).expect("an uncompressed point");
    let link = |address: &str| EnrollmentLink {
        address: address.to_owned(),
        token: Token::from_bytes([3; 16]),
        root_key,
    };
    ["master.example:27431", "[2001:db8::1]:443"].map(|address| link(address).reveal().into_bytes()).to_vec()
}

pub(crate) fn certificate_requests() -> Vec<Vec<u8>> {
    vec![request(rcgen::CertificateParams::default())]
}

pub(crate) fn device_requests() -> Vec<Vec<u8>> {
    let names = vec!["printer-3.example.org".to_owned()];
    let mut params = rcgen::CertificateParams::new(names).expect("a DNS name");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "printer-3");
    vec![request(params)]
}

fn request(params: rcgen::CertificateParams) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().expect("the system has randomness");
    params.serialize_request(&key).expect("plain names can be encoded").der().to_vec()
}

pub(crate) fn scep_messages() -> Vec<Vec<u8>> {
    vec![muster_auth::scep::testing::message()]
}

/// What sealed seeds belong to.
pub const PLACE: &[u8] = b"one task on one node";

pub(crate) fn envelopes(world: &World) -> Vec<Vec<u8>> {
    let master = world.network.sign(TASK, Bytes::from_static(b"order"));
    let both = world.operators.countersign(TASK, master.clone());
    vec![master.encode_to_vec(), both.encode_to_vec()]
}

pub(crate) fn revocation_lists(world: &World) -> Vec<Vec<u8>> {
    let one = world.node.revocation(3, Reason::Lost);
    let two = Revocation { key: Some([5; 32]), number: 7, reason: Reason::Revoked, ..one.clone() };
    vec![revocation::encode(0, 7, NOW, &[one, two]).to_vec()]
}

pub(crate) fn sealed_arguments(world: &World) -> Vec<Vec<u8>> {
    let sealed = sealing::seal(world.sealing.public(), ARGUMENTS, PLACE, b"a secret");
    sealed.iter().map(|sealed| sealed.encode_to_vec()).collect()
}

pub(crate) fn operator_policies(world: &World) -> Vec<Vec<u8>> {
    vec![world.operators.says(world.network.id, 4, true).encode_to_vec()]
}

pub(crate) fn operator_certificates(world: &World) -> Vec<Vec<u8>> {
    vec![world.operators.certificate.to_vec()]
}

fn values(world: &World) -> Vec<(Key, Value)> {
    let (own, subnet) = (contact(world.node.id), SubnetKey([4; 20]));
    vec![
        (world.node.id.into(), Value::Contact(own.clone(), vec![subnet])),
        (
            subnet.into(),
            Value::Subnet { subnet, lsn: own.clone(), lineage: 3, epoch: 9, via: vec![own.clone()] },
        ),
        (Key([6; 20]), Value::Holder { holder: own.clone(), subnet: Some(subnet) }),
        (world.node.id.into(), Value::NodeKeys),
        (record::root_key(world.network.id), Value::Root(world.network.root().to_vec().into())),
        (Key([6; 20]), Value::Gsn { contact: own, reliability_basis_points: 9_900 }),
        (Key([6; 20]), Value::Opaque("text".into())),
    ]
}

fn signed(world: &World) -> Vec<Record> {
    let moment = (Instant::ZERO, NOW);
    let sign =
        |(key, value)| record::sign(key, &value, record::LIFE, &world.signer, moment).expect("own values");
    values(world).into_iter().map(sign).collect()
}

pub(crate) fn records(world: &World) -> Vec<Vec<u8>> {
    let payload = |record: Record| {
        muster_proto::trust::v1::Envelope::decode(&record.bytes[..]).expect("an envelope").payload.to_vec()
    };
    signed(world).into_iter().map(payload).collect()
}

pub(crate) fn dht_requests(world: &World) -> Vec<Vec<u8>> {
    let (record, key) = (signed(world).remove(0), Key([6; 20]));
    let requests = [
        Request::Ping,
        Request::FindNode { target: key },
        Request::FindValue { key, kind: Kind::Subnet },
        Request::Store { record: record.clone(), cached: true },
        Request::Offer { digests: vec![1, 2, 3] },
        Request::Listen { key, kind: Kind::Opaque, lease: Duration::from_secs(600) },
        Request::Changed { record },
        Request::Parting,
    ];
    requests.iter().map(|request| dht::encode_request(request, Service::Volunteer).to_vec()).collect()
}

pub(crate) fn dht_answers(world: &World) -> Vec<Vec<u8>> {
    const ROOM: usize = 1_100;
    let closest: Vec<_> = (1..=20).map(|number| NodeId([number; 20])).collect();
    let locate = |node| Some(PeerAddress { node, key: [7; 32], at: ([192, 0, 2, 1], 27_431).into() });
    let answers = [
        Answer::Pong { offices: 7 },
        Answer::Nodes { closest: closest.clone() },
        Answer::Value { records: signed(world)[..1].to_vec(), closest },
        Answer::Stored,
        Answer::Wanted { digests: vec![1, 2, 3] },
        Answer::Listening { lease: Duration::from_secs(600) },
        Answer::Refused(Refusal::Full),
    ];
    answers.iter().map(|answer| dht::encode_answer(answer, Service::Office, ROOM, locate).to_vec()).collect()
}

pub(crate) fn sealed_datagrams(world: &World) -> Vec<Vec<u8>> {
    let mut peer = Exchange::new(world.peer.own(), Limits::default(), Instant::ZERO);
    let own = world.node.own();
    let to = PeerAddress { node: own.node(), key: own.public_key(), at: ([192, 0, 2, 2], 9).into() };
    peer.request(to, "who is near?".into(), Instant::ZERO, NOW).expect("a small request");
    let opening = std::iter::from_fn(|| peer.poll_event()).find_map(|event| match event {
        Event::Send { datagram, .. } => Some(datagram.to_vec()),
        _ => None,
    });
    vec![opening.expect("an opening")]
}
