//! One parser each: what is fed to it, and whether it took the bytes to their last field.

use std::net::SocketAddr;

use bytes::Bytes;
use muster_auth::domain::device::DeviceRequest;
use muster_auth::domain::request::CertificateRequest;
use muster_auth::scep;
use muster_proto::payload_type::{
    ATTACH, CALL, CLAIM, NODE_TICKET, RECORD, REVOCATION_LIST, TASK, UPTIME_TICKET,
};
use muster_proto::trust::v1::{Envelope, Sealed, TrustBundle};
use muster_types::{EnrollmentLink, Instant};
use muster_wire::call::Called;
use muster_wire::datagram::{Event, Exchange, Limits};
use muster_wire::hello::{self, TlsPeer};
use muster_wire::record::{Moment, Reader};
use muster_wire::sealing::ARGUMENTS;
use muster_wire::testing::NOW;
use muster_wire::{NodeTicket, OperatorPolicy, beat, dht, discovery, frame, sealed, session, stun, ticket};
use prost::Message;

use crate::seeds;
use crate::world::World;

pub struct Target {
    pub name: &'static str,
    /// Bytes that the parser must take whole.
    pub seeds: fn(&World) -> Vec<Vec<u8>>,
    /// Whether the parser took them; it may refuse, and must not panic.
    pub feed: fn(&World, &[u8]) -> bool,
}

pub const TARGETS: &[Target] = &[
    Target {
        name: "discovery",
        seeds: seeds::discoveries,
        feed: |world, bytes| discovery::decode(bytes, &world.verifier()).is_ok(),
    },
    Target {
        name: "session",
        seeds: seeds::session_messages,
        feed: |world, bytes| session::decode(bytes, &world.hello, &world.verifier()).is_ok(),
    },
    Target {
        name: "offered_bundle",
        seeds: seeds::acceptances,
        feed: |_, bytes| session::offered_bundle(bytes).is_some(),
    },
    Target {
        name: "frame",
        seeds: |_| vec![vec![0, 0, 1, 0]],
        feed: |_, bytes| bytes.first_chunk().is_some_and(|header| frame::length(*header).is_ok()),
    },
    Target { name: "beat", seeds: |_| seeds::beats(), feed: |_, bytes| beat::decode(bytes).is_ok() },
    Target { name: "hello", seeds: seeds::hellos, feed: hello },
    Target { name: "claim", seeds: seeds::claims, feed: claim },
    Target { name: "attach", seeds: seeds::attaches, feed: attach },
    Target { name: "node_ticket", seeds: seeds::node_tickets, feed: node_ticket },
    Target { name: "uptime_ticket", seeds: seeds::uptime_tickets, feed: uptime_ticket },
    Target { name: "trust_bundle", seeds: seeds::trust_bundles, feed: trust_bundle },
    Target { name: "dsse", seeds: seeds::envelopes, feed: dsse },
    Target { name: "revocation_list", seeds: seeds::revocation_lists, feed: revocation_list },
    Target { name: "sealed", seeds: seeds::sealed_arguments, feed: unseal },
    Target { name: "operator_policy", seeds: seeds::operator_policies, feed: operator_policy },
    Target { name: "operator_certificate", seeds: seeds::operator_certificates, feed: operator_certificate },
    Target { name: "record", seeds: seeds::records, feed: record },
    Target { name: "dht_request", seeds: seeds::dht_requests, feed: dht_request },
    Target { name: "dht_answer", seeds: seeds::dht_answers, feed: dht_answer },
    Target { name: "sealed_datagram", seeds: seeds::sealed_datagrams, feed: sealed_datagram },
    Target { name: "call", seeds: seeds::calls, feed: call },
    Target { name: "meeting_probe", seeds: seeds::meeting_probes, feed: meeting_probe },
    Target { name: "stun", seeds: |_| seeds::stun(), feed: |_, bytes| stun::decode(bytes).is_some() },
    Target {
        name: "certificate_request",
        seeds: |_| seeds::certificate_requests(),
        feed: |_, bytes| CertificateRequest::parse(bytes).is_ok(),
    },
    Target {
        name: "device_request",
        seeds: |_| seeds::device_requests(),
        feed: |_, bytes| DeviceRequest::parse(bytes).is_ok(),
    },
    Target {
        name: "scep_message",
        seeds: |_| seeds::scep_messages(),
        feed: |_, bytes| scep::is_message(bytes),
    },
    Target {
        name: "enrollment_link",
        seeds: |_| seeds::enrollment_links(),
        feed: |_, bytes| str::from_utf8(bytes).is_ok_and(|text| text.parse::<EnrollmentLink>().is_ok()),
    },
];

fn hello(world: &World, bytes: &[u8]) -> bool {
    let peer = TlsPeer { node: world.node.id, certificate_serial: world.node.serial.clone() };
    hello::decode(bytes, &peer, &world.verifier()).is_ok()
}

fn claim(world: &World, payload: &[u8]) -> bool {
    let sealed = world.signer.sign(CLAIM, Bytes::copy_from_slice(payload));
    sealed::claim_from_wire(&sealed, &world.verifier()).is_ok()
}

fn attach(world: &World, payload: &[u8]) -> bool {
    let sealed = world.signer.sign(ATTACH, Bytes::copy_from_slice(payload));
    sealed::attach_from_wire(&sealed, &world.hello.ticket).is_ok()
}

fn moment(world: &World) -> Moment<'_> {
    Moment { verifier: world.verifier(), now: Instant::ZERO }
}

/// Behind the publisher's signature.
fn record(world: &World, payload: &[u8]) -> bool {
    let sealed = world.signer.sign(RECORD, Bytes::copy_from_slice(payload));
    Reader::default().open(&sealed.encode_to_vec(), &moment(world)).is_ok()
}

fn dht_request(world: &World, bytes: &[u8]) -> bool {
    let mut reader = Reader::default();
    dht::decode_request(bytes, &mut |record| reader.open(record, &moment(world))).is_ok()
}

fn dht_answer(world: &World, bytes: &[u8]) -> bool {
    let mut reader = Reader::default();
    dht::decode_answer(bytes, &mut |record| reader.open(record, &moment(world)), |_| {}).is_ok()
}

/// The whole session layer of a node that knows nobody yet.
fn sealed_datagram(world: &World, bytes: &[u8]) -> bool {
    let mut exchange = Exchange::new(world.node.own(), Limits::default(), Instant::ZERO);
    exchange.receive(SocketAddr::from(([192, 0, 2, 1], 9)), bytes, &world.verifier(), Instant::ZERO);
    matches!(exchange.poll_event(), Some(Event::Request { .. }))
}

/// Behind the caller's signature.
fn call(world: &World, payload: &[u8]) -> bool {
    let sealed = world.signer.sign(CALL, Bytes::copy_from_slice(payload));
    Called::open(&sealed, world.peer.id, &world.sealing, &world.verifier()).is_ok()
}

fn meeting_probe(world: &World, bytes: &[u8]) -> bool {
    seeds::probe_keys(world).1.open(bytes).is_some()
}

fn node_ticket(world: &World, payload: &[u8]) -> bool {
    let sealed = world.network.sign(NODE_TICKET, Bytes::copy_from_slice(payload));
    NodeTicket::open(&sealed, &world.trust, NOW).is_ok()
}

fn uptime_ticket(world: &World, payload: &[u8]) -> bool {
    let sealed = world.network.sign(UPTIME_TICKET, Bytes::copy_from_slice(payload));
    ticket::open_uptime(&sealed, &world.trust, NOW).is_ok()
}

fn dsse(world: &World, bytes: &[u8]) -> bool {
    Envelope::decode(bytes).is_ok_and(|sealed| world.trust.open(&sealed, TASK).is_ok())
}

fn revocation_list(world: &World, payload: &[u8]) -> bool {
    let sealed = world.network.sign(REVOCATION_LIST, Bytes::copy_from_slice(payload));
    world.trust.clone().revoke([&sealed]).is_ok()
}

fn unseal(world: &World, bytes: &[u8]) -> bool {
    let open = |sealed: Sealed| world.sealing.open(ARGUMENTS, seeds::PLACE, &sealed).is_ok();
    Sealed::decode(bytes).is_ok_and(open)
}

fn operator_policy(world: &World, payload: &[u8]) -> bool {
    let sealed = world.operators.seal_policy(Bytes::copy_from_slice(payload));
    OperatorPolicy::pin(&sealed, world.network.id).is_ok()
}

fn operator_certificate(world: &World, der: &[u8]) -> bool {
    let policy = world.operators.policy(&world.operators.says(world.network.id, 1, true));
    let Ok(policy) = OperatorPolicy::pin(&policy, world.network.id) else { return false };
    let sealed = world.network.sign(TASK, Bytes::from_static(b"order"));
    let mut sealed = world.operators.countersign(TASK, sealed);
    for signature in sealed.signatures.iter_mut().filter(|it| !it.certificates.is_empty()) {
        signature.certificates = vec![Bytes::copy_from_slice(der)];
    }
    policy.operator_of(&sealed, TASK, NOW).is_ok()
}

fn trust_bundle(world: &World, bytes: &[u8]) -> bool {
    let Ok(bundle) = TrustBundle::decode(bytes) else { return false };
    world.trust.clone().load(&bundle, NOW).is_ok()
}
