//! Every message survives the wire; nothing on the wire makes the reader panic, and nothing unsigned is believed.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use muster_overlay::Claim;
use muster_overlay::message::{
    Accepted, Attach, Beat, Discovery, Join, Knock, LsnQuery, Message, Neighbor, NeighborList, Part,
    PartCode, Ping, Pong, Seal, Terms,
};
use muster_overlay::standing::{Standing, Uptime};
use muster_types::{Address, Contact, NodeId, SubnetKey};
use muster_wire::session::Received;
use muster_wire::testing::{NOW, TestNetwork, TestNode};
use muster_wire::{Hello, Signer, TrustStore, Verifier, WireError, beat, discovery, session};
use proptest::collection::vec;
use proptest::prelude::*;

const NONCE: u64 = 77;
const UPTIME: Uptime = Uptime(4_200);
const SELF: NodeId = NodeId([1; 20]);

struct World {
    network: TestNetwork,
    node: TestNode,
    trust: TrustStore,
    signer: Signer,
    hello: Hello,
}

/// The node that speaks, and what its hearers know of it.
static WORLD: LazyLock<World> = LazyLock::new(|| {
    let network = TestNetwork::new();
    let node = network.node(SELF);
    let trust = network.trust();
    let mut signer = node.signer(NONCE);
    signer.set_uptime(network.uptime(SELF, UPTIME));
    let hello = node.hello(NONCE, &trust);
    World { network, node, trust, signer, hello }
});

fn verifier() -> Verifier<'static> {
    Verifier { trust: &WORLD.trust, now: NOW }
}

fn read(bytes: &[u8]) -> Result<Received, WireError> {
    session::decode(bytes, &WORLD.hello, &verifier())
}

/// What the hearer holds carries the seal that the sender put on; everything else must be equal.
fn without_seals(message: Message) -> Message {
    let bare = |claim: Claim| Claim { seal: Seal::OWN, ..claim };
    match message {
        Message::Join(join) => {
            Message::Join(Join { attach: Attach { seal: Seal::OWN, ..join.attach }, ..join })
        }
        Message::Accepted(accepted) => {
            Message::Accepted(Accepted { claim: bare(accepted.claim.clone()), ..accepted })
        }
        Message::Refused(part) => Message::Refused(Part { better: part.better.map(bare), ..part }),
        Message::Part(part) => Message::Part(Part { better: part.better.map(bare), ..part }),
        Message::Pong(pong) => Message::Pong(Pong { lsn: pong.lsn.map(bare), ..pong }),
        Message::Claim(claim) => Message::Claim(bare(claim)),
        other => other,
    }
}

fn node_id() -> impl Strategy<Value = NodeId> {
    any::<[u8; 20]>().prop_map(NodeId)
}

fn address() -> impl Strategy<Value = Address> {
    let port = || prop::option::of(1..=u16::MAX);
    (any::<IpAddr>(), port(), port()).prop_map(|(ip, udp_port, tcp_port)| Address { ip, udp_port, tcp_port })
}

fn contact_of(node: impl Strategy<Value = NodeId>) -> impl Strategy<Value = Contact> {
    (node, vec(address(), 0..=8)).prop_map(|(node, addresses)| Contact { node, addresses })
}

fn keys() -> impl Strategy<Value = Vec<SubnetKey>> {
    vec(any::<[u8; 20]>().prop_map(SubnetKey), 0..=8)
}

fn standing() -> impl Strategy<Value = Standing> {
    any::<(bool, bool)>().prop_map(|(wired, mains_powered)| Standing { wired, mains_powered })
}

fn claim() -> impl Strategy<Value = Claim> {
    let who = (contact_of(Just(SELF)), standing(), prop::option::of(node_id()), prop::option::of(node_id()));
    (any::<(u64, u64, bool)>(), keys(), who).prop_map(|((lineage, epoch, settled), subnet_keys, who)| {
        let (claimant, standing, predecessor, successor) = who;
        let seal = Seal::OWN;
        Claim {
            lineage,
            epoch,
            predecessor,
            subnet_keys,
            claimant,
            uptime: UPTIME,
            standing,
            successor,
            settled,
            seal,
        }
    })
}

fn neighbors() -> impl Strategy<Value = NeighborList> {
    let neighbor = (contact_of(node_id()), 0..=10_000u16, standing())
        .prop_map(|(contact, uptime, standing)| Neighbor { contact, uptime: Uptime(uptime), standing });
    (any::<u64>(), vec(neighbor, 0..20))
        .prop_map(|(number, neighbors)| NeighborList { number, neighbors: neighbors.into() })
}

fn part() -> impl Strategy<Value = Part> {
    (100..600u16, "[a-zåäö ]{0,80}", prop::option::of(claim())).prop_map(|(code, description, better)| Part {
        code: PartCode(code),
        description,
        better,
    })
}

fn join() -> impl Strategy<Value = Join> {
    (contact_of(Just(SELF)), keys(), standing(), node_id(), any::<(u64, u64, Option<u32>)>()).prop_map(
        |(contact, subnet_keys, standing, lsn, (lineage, epoch, brings))| Join {
            contact,
            subnet_keys,
            uptime: UPTIME,
            standing,
            attach: Attach { node: SELF, lsn, lineage, epoch, seal: Seal::OWN },
            version: WORLD.hello.software,
            brings,
        },
    )
}

fn accepted() -> impl Strategy<Value = Accepted> {
    let span = || (1..u32::MAX).prop_map(|millis| Duration::from_millis(millis.into()));
    let terms = (span(), span()).prop_map(|(lease, ping_interval)| Terms { lease, ping_interval });
    let observed = prop::option::of((any::<IpAddr>(), 1..=u16::MAX).prop_map(|(ip, port)| {
        // A mapped address is shown as what it stands for.
        std::net::SocketAddr::new(ip.to_canonical(), port)
    }));
    (neighbors(), claim(), terms, observed).prop_map(|(neighbors, claim, terms, observed)| Accepted {
        neighbors,
        claim,
        terms,
        observed,
    })
}

fn message() -> impl Strategy<Value = Message> {
    let load = 0..=100u8;
    prop_oneof![
        join().prop_map(Message::Join),
        accepted().prop_map(Message::Accepted),
        part().prop_map(Message::Refused),
        part().prop_map(Message::Part),
        (any::<u64>(), load.clone())
            .prop_map(|(sequence, load_percent)| Message::Ping(Ping { sequence, load_percent })),
        (any::<u64>(), load, prop::option::of(claim()), any::<bool>()).prop_map(
            |(sequence, load_percent, lsn, without_master)| {
                Message::Pong(Pong { sequence, load_percent, lsn, without_master })
            }
        ),
        neighbors().prop_map(Message::NeighborList),
        claim().prop_map(Message::Claim),
        prop::sample::select(vec![Knock::Please, Knock::Answered, Knock::Unanswered])
            .prop_map(Message::Knock),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_message_of_a_session_survives_the_wire(message in message()) {
        let bytes = session::encode(&message, &WORLD.signer, NOW).unwrap();
        let Received::Overlay(read) = read(&bytes).unwrap() else { panic!("not an overlay message") };
        prop_assert_eq!(without_seals(read.clone()), message);
        // What was received is passed on as it was signed.
        let passed_on = session::encode(&read, &WORLD.signer, NOW).unwrap();
        if !matches!(read, Message::Join(_)) {
            prop_assert_eq!(passed_on, bytes);
        }
    }

    #[test]
    fn a_truncated_message_is_an_error_and_never_a_panic(message in message(), cut in any::<prop::sample::Index>()) {
        let bytes = session::encode(&message, &WORLD.signer, NOW).unwrap();
        let _ = read(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn a_message_with_a_flipped_bit_never_panics(message in message(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut bytes = session::encode(&message, &WORLD.signer, NOW).unwrap().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let _ = read(&bytes);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..600)) {
        let _ = read(&bytes);
        let _ = beat::decode(&bytes);
        let _ = discovery::decode(&bytes, &verifier());
        let marked: Vec<u8> = [discovery::MARK].into_iter().chain(bytes).collect();
        let _ = discovery::decode(&marked, &verifier());
    }

    #[test]
    fn a_beat_survives_the_wire((lineage, epoch, sequence, answer) in any::<(u64, u64, u64, bool)>()) {
        let beat = Beat { lineage, epoch, sequence, answer };
        prop_assert_eq!(beat::decode(&beat::encode(&beat)), Ok(beat));
    }

    #[test]
    fn a_query_survives_the_local_network(node in node_id(), subnet_keys in keys(), nonce in any::<u32>()) {
        let query = Discovery::Query(LsnQuery { node, subnet_keys, uptime: UPTIME, nonce });
        let bytes = discovery::encode(&query, &WORLD.signer, NOW).unwrap();
        prop_assert_eq!(discovery::decode(&bytes, &verifier()).unwrap(), query);
    }

    #[test]
    fn a_claim_fits_one_datagram_if_need_be_with_fewer_addresses(claim in claim()) {
        let bytes = discovery::encode(&Discovery::Claim(claim.clone()), &WORLD.signer, NOW).unwrap();
        prop_assert!(bytes.len() <= 1_200);
        let Discovery::Claim(heard) = discovery::decode(&bytes, &verifier()).unwrap() else { panic!("a query") };
        prop_assert!(claim.claimant.addresses.starts_with(&heard.claimant.addresses));
        prop_assert_eq!(heard.claimant.addresses.is_empty(), claim.claimant.addresses.is_empty());
    }
}

fn plain_claim(claimant: NodeId) -> Claim {
    Claim {
        lineage: 1,
        epoch: 1,
        predecessor: None,
        subnet_keys: Vec::new(),
        claimant: Contact { node: claimant, addresses: Vec::new() },
        uptime: UPTIME,
        standing: Standing::default(),
        successor: None,
        settled: false,
        seal: Seal::OWN,
    }
}

fn claim_bytes(signer: &Signer, claimant: NodeId) -> Vec<u8> {
    session::encode(&Message::Claim(plain_claim(claimant)), signer, NOW).unwrap().to_vec()
}

#[test]
fn nobody_signs_a_claim_for_another() {
    let claim = Message::Claim(plain_claim(NodeId([9; 20])));
    let error = session::encode(&claim, &WORLD.signer, NOW).unwrap_err();
    assert!(matches!(error, WireError::Stranger { field: "claim.claimant", .. }), "{error}");
}

#[test]
fn a_claim_with_anothers_ticket_is_not_believed() {
    let thief = WORLD.network.node(NodeId([9; 20]));
    let mut hand = thief.signer(1);
    hand.set_ticket(WORLD.node.ticket.clone());
    let error = read(&claim_bytes(&hand, thief.id)).unwrap_err();
    assert!(matches!(error, WireError::Envelope { field: "claim", .. }), "{error}");
}

#[test]
fn a_claim_of_another_network_is_not_believed() {
    let elsewhere = TestNetwork::new().node(SELF);
    let error = read(&claim_bytes(&elsewhere.signer(1), SELF)).unwrap_err();
    assert!(matches!(error, WireError::Ticket { field: "claim.ticket", .. }), "{error}");
}

#[test]
fn an_uptime_ticket_of_another_node_lends_no_uptime() {
    let mut hand = WORLD.node.signer(NONCE);
    hand.set_uptime(WORLD.network.uptime(NodeId([9; 20]), Uptime(10_000)));
    let error = read(&claim_bytes(&hand, SELF)).unwrap_err();
    assert!(matches!(error, WireError::Stranger { field: "claim.uptime", .. }), "{error}");
}

#[test]
fn an_uptime_ticket_that_ran_out_counts_as_none() {
    let later = Verifier { trust: &WORLD.trust, now: NOW + Duration::from_secs(2 * 86_400) };
    let bytes = claim_bytes(&WORLD.signer, SELF);
    let Ok(Received::Overlay(Message::Claim(claim))) = session::decode(&bytes, &WORLD.hello, &later) else {
        panic!("the claim itself still stands")
    };
    assert_eq!(claim.uptime, Uptime(0));
}

#[test]
fn an_attach_of_an_earlier_run_is_refused() {
    let mut peer = WORLD.hello.clone();
    peer.boot_nonce = NONCE + 1;
    let join = Message::Join(Join {
        contact: Contact { node: SELF, addresses: Vec::new() },
        subnet_keys: Vec::new(),
        uptime: UPTIME,
        standing: Standing::default(),
        attach: Attach { node: SELF, lsn: NodeId([2; 20]), lineage: 1, epoch: 1, seal: Seal::OWN },
        version: peer.software,
        brings: None,
    });
    let bytes = session::encode(&join, &WORLD.signer, NOW).unwrap();
    let error = session::decode(&bytes, &peer, &verifier()).unwrap_err();
    assert!(matches!(error, WireError::Invalid { field: "join.attach", .. }), "{error}");
}

#[test]
fn a_message_of_a_later_version_is_told_from_a_broken_one() {
    // Field 100, length-delimited, empty.
    assert_eq!(read(&[0xa2, 0x06, 0x00]), Err(WireError::UnknownKind("session message")));
}
