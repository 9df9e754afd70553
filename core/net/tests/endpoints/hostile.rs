//! Peers that are no endpoints of ours: they speak QUIC by hand.

use std::net::SocketAddr;
use std::sync::Arc;

use muster_net::CloseReason;
use muster_types::Identity;
use muster_wire::frame;
use muster_wire::testing::TestNetwork;
use noq::crypto::rustls::QuicClientConfig;
use noq::rustls;
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;

use crate::house::{self, Guest, V4, guest, id};

/// A QUIC client under `network`'s root, with a node's certificate or with none.
fn client(network: &TestNetwork, certificate: Option<&muster_wire::testing::TestNode>) -> noq::Endpoint {
    let mut roots = RootCertStore::empty();
    roots.add(network.root()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut tls = match certificate {
        Some(node) => {
            let key = PrivateKeyDer::try_from(node.tls_key.clone()).unwrap();
            builder.with_client_auth_cert(node.chain.clone(), key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"muster/1".to_vec()];
    let config = noq::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = noq::Endpoint::client(SocketAddr::new(V4, 0)).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

async fn connect(client: &noq::Endpoint, network: &TestNetwork, to: &Guest) -> noq::Connection {
    let name = Identity::node(network.id, to.id).server_name().unwrap();
    let address = SocketAddr::new(V4, to.endpoint.port());
    client.connect(address, &name).unwrap().await.unwrap()
}

#[tokio::test]
async fn a_peer_without_a_certificate_gets_no_session() {
    let network = TestNetwork::new();
    let mut bob = guest(&network, 2).await;
    let client = client(&network, None);
    // TLS 1.3 lets the client believe that it is connected until the server has looked at its certificate.
    let connection = connect(&client, &network, &bob).await;
    let error = connection.closed().await;
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(bob.endpoint.sessions().is_empty());
    assert!(bob.events.try_recv().is_err());
}

#[tokio::test]
async fn an_oversized_frame_ends_the_session_and_names_the_culprit() {
    let network = TestNetwork::new();
    let mut bob = guest(&network, 2).await;
    let node = network.node(id(1));
    let client = client(&network, Some(&node));
    let connection = connect(&client, &network, &bob).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let hello = house::config(&network, &node, 1).hello;
    send.write_all(&frame::framed(&hello).unwrap()).await.unwrap();
    let mut header = [0; frame::HEADER_BYTES];
    recv.read_exact(&mut header).await.unwrap();
    bob.opened().await;
    send.write_all(&[0xff; frame::HEADER_BYTES]).await.unwrap();
    let CloseReason::Misbehaved(what) = bob.closed().await else { panic!("the peer misbehaved") };
    assert!(what.contains(&id(1).to_string()) && what.contains("4294967295 bytes"), "{what}");
    let error = connection.closed().await;
    assert!(error.to_string().contains("4294967295 bytes"), "{error}");
}

#[tokio::test]
async fn a_first_message_that_is_no_hello_opens_nothing() {
    let network = TestNetwork::new();
    let mut bob = guest(&network, 2).await;
    let node = network.node(id(1));
    let client = client(&network, Some(&node));
    let connection = connect(&client, &network, &bob).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&frame::framed(&[0x22, 0]).unwrap()).await.unwrap();
    let error = connection.closed().await;
    assert!(error.to_string().contains("hello is missing"), "{error}");
    assert!(bob.events.try_recv().is_err());
}
