//! A Hello is believed only from the holder of the very certificate that its ticket belongs to; and what the
//! master and a node say to each other passes through unchanged.

use bytes::Bytes;
use muster_proto::control::v1::{Downstream, Probe, Upstream, downstream};
use muster_proto::relay::v1::{CarryRequest, CarryResponse, Packet, carry_request, carry_response};
use muster_types::NodeId;
use muster_wire::hello::{self, Host, TlsPeer};
use muster_wire::session::{self, Received};
use muster_wire::testing::{NOW, TestNetwork};
use muster_wire::{Kind, Verifier, WireError};

const NODE: NodeId = NodeId([1; 20]);

#[test]
fn a_hello_of_the_certificates_own_node_is_believed() {
    let network = TestNetwork::new();
    let node = network.node(NODE);
    let trust = network.trust();
    let host = Host { name: "desk-7".into(), os: "Debian 12".into(), architecture: "x86_64".into() };
    let version = "1.2.3".parse().unwrap();
    let bytes = hello::encode(&host, version, &["relay".to_owned()], &node.signer(5));
    assert_eq!(Kind::of(&bytes), Kind::Hello);
    let peer = TlsPeer { node: NODE, certificate_serial: node.serial.clone() };
    let read = hello::decode(&bytes, &peer, &Verifier { trust: &trust, now: NOW }).unwrap();
    assert_eq!((read.node(), read.software, read.boot_nonce), (NODE, version, 5));
    assert_eq!((read.host, read.capabilities), (host, vec!["relay".to_owned()]));
}

#[test]
fn a_hello_with_the_ticket_of_another_node_or_certificate_is_refused() {
    let network = TestNetwork::new();
    let node = network.node(NODE);
    let trust = network.trust();
    let verifier = Verifier { trust: &trust, now: NOW };
    let bytes = hello::encode(&Host::default(), "1.2.3".parse().unwrap(), &[], &node.signer(5));
    let other_node = TlsPeer { node: NodeId([2; 20]), certificate_serial: node.serial.clone() };
    let error = hello::decode(&bytes, &other_node, &verifier).unwrap_err();
    assert!(matches!(error, WireError::Stranger { field: "hello.ticket", .. }), "{error}");
    let other_certificate = TlsPeer { node: NODE, certificate_serial: Bytes::from_static(b"old") };
    let error = hello::decode(&bytes, &other_certificate, &verifier).unwrap_err();
    assert!(matches!(error, WireError::Invalid { field: "hello.ticket", .. }), "{error}");
}

#[test]
fn the_masters_word_passes_through_and_a_child_speaks_only_for_itself() {
    let network = TestNetwork::new();
    let trust = network.trust();
    let peer = network.node(NODE).hello(5, &trust);
    let verifier = Verifier { trust: &trust, now: NOW };
    let target = Bytes::copy_from_slice(NODE.as_bytes());
    let body = Some(downstream::Body::Probe(Probe { nonce: 3, signed: false }));
    let down = Downstream { targets: vec![target.clone()], body };
    let bytes = session::encode_downstream(down.clone()).unwrap();
    assert_eq!(session::decode(&bytes, &peer, &verifier), Ok(Received::Downstream(down)));

    let up = Upstream { node_id: target, items: Vec::new() };
    let bytes = session::encode_upstream(up.clone()).unwrap();
    assert_eq!(session::decode(&bytes, &peer, &verifier), Ok(Received::Upstream(up)));
    let forged = Upstream { node_id: Bytes::from_static(&[2; 20]), items: Vec::new() };
    let bytes = session::encode_upstream(forged).unwrap();
    let error = session::decode(&bytes, &peer, &verifier).unwrap_err();
    assert!(matches!(error, WireError::Stranger { field: "upstream.node_id", .. }), "{error}");
}

#[test]
fn the_words_of_a_node_that_relays_are_read_as_they_were_written() {
    let network = TestNetwork::new();
    let trust = network.trust();
    let peer = network.node(NODE).hello(5, &trust);
    let verifier = Verifier { trust: &trust, now: NOW };
    let packet = Packet { channel: 7, payload: Bytes::from_static(b"sealed") };
    for request in [None, Some(carry_request::Request::Packet(packet.clone()))] {
        let asked = CarryRequest { request };
        let bytes = session::encode_carry_request(asked.clone()).unwrap();
        assert_eq!(Kind::of(&bytes), Kind::CarryRequest);
        assert_eq!(session::decode(&bytes, &peer, &verifier), Ok(Received::CarryRequest(asked)));
    }
    let answer = CarryResponse { response: Some(carry_response::Response::Packet(packet)) };
    let bytes = session::encode_carry_response(answer.clone()).unwrap();
    assert_eq!(Kind::of(&bytes), Kind::CarryResponse);
    assert_eq!(session::decode(&bytes, &peer, &verifier), Ok(Received::CarryResponse(answer)));
}
