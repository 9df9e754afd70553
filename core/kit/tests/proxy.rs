//! The way to a master through a real HTTP proxy, and what is said when it does not carry.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::time::Duration;

use muster_kit::connect::{AUTH, ConnectError, Master, Proxies, ProxyConfig};
use muster_kit::listen::{Incoming, Listener};
use muster_kit::shutdown::Shutdown;
use muster_kit::testing::pki::Pki;
use muster_kit::testing::tinyproxy::Tinyproxy;
use muster_kit::tls::{CallerCertificate, ClientTls, ServerTls};
use muster_types::Role;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

const PASSWORD: &str = "BasicAuth ada s3cret\n";
/// The same, with one letter written as a URL may have it.
const LOGIN: &str = "ada:s%33cret";

/// A master that shakes hands. Loopback is never reached by a proxy, but this host is called 0.0.0.0 too.
struct World {
    pki: Pki,
    address: String,
    _auth: Incoming,
    _listening: AbortOnDropHandle<()>,
}

async fn world() -> World {
    let pki = Pki::new();
    let mut listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = format!("0.0.0.0:{}", listener.local_addr().unwrap().port());
    let leaf = pki.leaf(&pki.identity(Role::Service, "auth"));
    let auth = listener.service(AUTH, ServerTls::new(leaf, CallerCertificate::Optional).unwrap());
    let listening = AbortOnDropHandle::new(tokio::spawn(listener.run(Shutdown::new())));
    World { pki, address, _auth: auth, _listening: listening }
}

impl World {
    /// What comes of a handshake with `address` where the settings name this proxy.
    async fn greet(
        &self,
        address: &str,
        proxy: &str,
        except: &[&str],
    ) -> (Arc<Proxies>, Result<(), ConnectError>) {
        let except = except.iter().map(|it| (*it).to_owned()).collect();
        let proxies = Arc::new(Proxies::new(ProxyConfig { url: proxy.into(), except }));
        let tls = ClientTls::new(self.pki.leaf(&self.pki.identity(Role::Operator, "ada"))).unwrap();
        let master = Master::new([address.to_owned()], tls).through(proxies.clone());
        (proxies, master.greet(AUTH).await)
    }

    /// The words of the error where there is no other way than by this proxy.
    async fn refused(&self, proxy: &str) -> String {
        let (_, greeted) = self.greet(&unknown(), proxy, &[]).await;
        greeted.unwrap_err().to_string()
    }
}

/// No name: it is longer than DNS allows, so nobody is asked, neither here nor by the proxy.
fn unknown() -> String {
    format!("{}:27431", "x".repeat(64))
}

/// Whether the last connection went by the proxy; `None`: none was to.
fn carried(proxies: &Proxies) -> Option<bool> {
    proxies.last().map(|tried| tried.fault.is_none())
}

/// A proxy of our own that answers every request with these bytes.
async fn answering(answer: Vec<u8>) -> (String, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            // The client may have heard enough before the end.
            let _ = client.write_all(&answer).await;
            let _ = client.read_u8().await;
        }
    });
    (url, AbortOnDropHandle::new(serving))
}

#[tokio::test]
async fn a_proxy_that_asks_for_a_password_carries_whoever_has_it() {
    let (world, proxy) = (world().await, Tinyproxy::start(PASSWORD));
    let (proxies, greeted) = world.greet(&world.address, &proxy.url(LOGIN), &[]).await;
    greeted.unwrap();
    assert_eq!(carried(&proxies), Some(true));
    let (proxies, greeted) = world.greet(&world.address, &proxy.url(LOGIN), &["0.0.0.0/8"]).await;
    greeted.unwrap();
    assert_eq!(carried(&proxies), None, "it was excepted");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_with_its_own_words_and_what_to_do_and_never_with_the_password() {
    let (world, proxy) = (world().await, Tinyproxy::start(PASSWORD));
    let narrow = Tinyproxy::start("ConnectPort 443\n");
    let address = proxy.url("");
    let address = address.trim_start_matches("http://");
    let stranger = world.refused(&proxy.url("")).await;
    assert!(stranger.contains("\"407 Proxy Authentication Required\": give user:password"), "{stranger}");
    assert!(stranger.contains(&format!("the proxy {address}, named by the settings,")), "{stranger}");
    let guess = world.refused(&proxy.url("ada:guess")).await;
    assert!(guess.contains("does not accept the user") && !guess.contains("guess"), "{guess}");
    // The name was the proxy's to resolve.
    let unresolved = world.refused(&proxy.url(LOGIN)).await;
    assert!(unresolved.contains("\"500 Unable to connect\""), "{unresolved}");
    let forbidden = world.refused(&narrow.url("")).await;
    assert!(forbidden.contains("\"403 ") && forbidden.contains("NO_PROXY"), "{forbidden}");
}

#[tokio::test]
async fn what_is_no_http_proxy_is_said_to_be_none() {
    let world = world().await;
    let (endless, _serving) =
        answering([b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; 64 * 1024]].concat()).await;
    let (nonsense, _serving) = answering(b"SSH-2.0-OpenSSH_9\r\n\r\n".to_vec()).await;
    for (url, says) in [
        (endless.as_str(), "does not answer as an HTTP proxy"),
        (nonsense.as_str(), "does not answer as an HTTP proxy"),
        ("socks5://127.0.0.1:1", "it is a socks5 proxy"),
        ("http://ada:open sesame@127.0.0.1:1", "it has no URL like"),
    ] {
        let refused = world.refused(url).await;
        assert!(refused.contains(says) && !refused.contains("sesame"), "{url}: {refused}");
    }
}

#[tokio::test]
async fn a_proxy_of_yesterday_keeps_nobody_from_the_master() {
    let world = world().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (proxies, greeted) = world.greet(&world.address, &format!("http://{closed}"), &[]).await;
    greeted.unwrap();
    assert_eq!(carried(&proxies), Some(false));
    // Nobody reads what is said to it; the direct way does not wait for its end.
    let (proxies, greeted) =
        world.greet(&world.address, &format!("http://{}", silent.local_addr().unwrap()), &[]).await;
    greeted.unwrap();
    assert_eq!(carried(&proxies), None);
}

#[tokio::test]
async fn a_full_master_is_heard_through_a_proxy_too() {
    let world = world().await;
    let full = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\n\r\n";
    let (url, _serving) =
        answering(format!("HTTP/1.1 200 Connection established\r\n\r\n{full}").into_bytes()).await;
    let (_, greeted) = world.greet(&unknown(), &url, &[]).await;
    let Err(ConnectError::Busy { retry_after, .. }) = greeted else { panic!("{greeted:?}") };
    assert_eq!(retry_after, Duration::from_secs(7));
}
