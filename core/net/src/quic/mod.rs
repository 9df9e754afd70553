//! The only place that names the QUIC crate. Up go connections and streams; down goes a carrier that hides
//! whether UDP, TCP or a relay moves the packets.
//!
//! The crate is `noq`, n0's maintained fork of `quinn`: same API and rustls, but state per path, senders that know
//! the destination they wait for, observed addresses, and network changes as a call.

mod burst;
mod carrier;
mod connection;
mod ways;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use noq::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use noq::{EndpointConfig, TokioRuntime, TransportConfig, VarInt};
use ring::{digest, hmac};

pub use burst::{Burst, BurstSocket, Bursts};
pub(crate) use carrier::{Carrier, Tap, Tapped};
pub(crate) use connection::{Connection, Loss, read_error};
pub(crate) use noq::{RecvStream, SendStream};

use crate::config::{Config, Material};
use crate::error::BindError;
use crate::path::{Path, mapped};
use crate::tls;

/// Assumed until measured. RFC 9002's 333 ms (section 6.2.2) make a lost first packet cost a second; most sessions stay
/// within one place.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// A UDP payload that fits IPv6's least MTU of 1,280 bytes. Discovery of more would cost idle sessions a probe
/// round every ten minutes; whoever moves bulk data may switch it on.
const INITIAL_MTU: u16 = 1_232;

/// Room for two of the largest session messages: the sender never waits for a window within one.
const STREAM_WINDOW: u32 = 2 * muster_types::limits::MESSAGE_BYTES as u32;

/// All streams of one session together, in each direction.
const SESSION_WINDOW: u32 = 1024 * 1024;

/// Streams that a peer may have open at once: a remote shell or a transfer each.
const STREAMS: u32 = 64;

/// Paths of a connection: multipath is not even offered.
const ONE_PATH: u32 = 0;

/// A relay, its successor, the direct path, and one that is being tried.
const SEVERAL_PATHS: u32 = 4;

/// Datagrams waiting to be sent or read: beats are small and old ones worthless.
const DATAGRAM_BUFFER: usize = 16 * 1024;

/// Unfinished handshakes of strangers; beyond it new ones are ignored.
pub(crate) const INCOMING: usize = 256;

/// The QUIC endpoint over one carrier.
#[derive(Debug, Clone)]
pub(crate) struct Quic {
    endpoint: noq::Endpoint,
    idle: Idle,
    relayed: Arc<ArcSwap<Relayed>>,
}

/// What connections that begin by a relay are made of: the only ones with several paths. All others have one, and none of
/// the packets that several cost.
#[derive(Debug)]
struct Relayed {
    client: noq::ClientConfig,
    server: Arc<noq::ServerConfig>,
}

#[derive(Debug, Clone, Copy)]
struct Idle {
    timeout: Duration,
    keep_alive: Option<Duration>,
}

/// An unanswered connection attempt.
pub(crate) struct Incoming(noq::Incoming);

impl Quic {
    pub(crate) fn start(config: &Config, carrier: Carrier) -> Result<Self, BindError> {
        let idle = Idle { timeout: config.idle_timeout, keep_alive: config.keep_alive };
        let mut endpoint = EndpointConfig::new(Arc::new(reset_key(&config.material)));
        endpoint.grease_quic_bit(false);
        let endpoint = noq::Endpoint::new_with_abstract_socket(
            endpoint,
            Some(server_config(&config.material, idle, ONE_PATH)?),
            Box::new(carrier),
            Arc::new(TokioRuntime),
        )?;
        endpoint.set_default_client_config(client_config(&config.material, idle, ONE_PATH)?);
        let relayed = Arc::new(ArcSwap::from_pointee(Relayed::new(&config.material, idle)?));
        Ok(Self { endpoint, idle, relayed })
    }

    /// New connections use `material` from now on; those that stand keep what they verified.
    pub(crate) fn reload(&self, material: &Material) -> Result<(), BindError> {
        let server = server_config(material, self.idle, ONE_PATH)?;
        let relayed = Relayed::new(material, self.idle)?;
        self.endpoint.set_default_client_config(client_config(material, self.idle, ONE_PATH)?);
        self.endpoint.set_server_config(Some(server));
        self.relayed.store(Arc::new(relayed));
        Ok(())
    }

    /// TLS fails unless the other end proves `server_name`.
    pub(crate) async fn connect(&self, to: SocketAddr, server_name: &str) -> Result<Connection, String> {
        let connecting = self.endpoint.connect(mapped(to), server_name).map_err(|error| error.to_string())?;
        connecting.await.map(Connection::new).map_err(|error| error.to_string())
    }

    /// The same through a relay; other paths may follow.
    pub(crate) async fn connect_relayed(
        &self,
        to: SocketAddr,
        server_name: &str,
    ) -> Result<Connection, String> {
        let config = self.relayed.load().client.clone();
        let connecting =
            self.endpoint.connect_with(config, to, server_name).map_err(|error| error.to_string())?;
        connecting.await.map(Connection::new).map_err(|error| error.to_string())
    }

    /// Answers a stranger; `path` is what carries him.
    pub(crate) async fn handshake(&self, incoming: Incoming, path: Path) -> Result<Connection, String> {
        let accepted = match path {
            Path::Relay(_) => incoming.0.accept_with(self.relayed.load().server.clone()),
            Path::Udp(_) | Path::Tcp(_) => incoming.0.accept(),
        };
        let connecting = accepted.map_err(|error| error.to_string())?;
        connecting.await.map(Connection::new).map_err(|error| error.to_string())
    }

    /// `None` when the endpoint is closing.
    pub(crate) async fn accept(&self) -> Option<Incoming> {
        self.endpoint.accept().await.map(Incoming)
    }

    /// Tells every connection to look for its peer anew, at once.
    pub(crate) fn network_changed(&self) {
        self.endpoint.handle_network_change(None);
    }

    pub(crate) fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"the agent stops");
    }

    /// Until the peers had a chance to hear of the close.
    pub(crate) async fn closed(&self) {
        self.endpoint.wait_all_draining().await;
    }
}

impl Incoming {
    pub(crate) fn remote(&self) -> SocketAddr {
        self.0.remote_address()
    }

    /// Asks the stranger to prove its address first, if it has not yet. `None`: it was asked.
    pub(crate) fn validated(self) -> Option<Self> {
        if self.0.remote_address_validated() {
            return Some(self);
        }
        if let Err(error) = self.0.retry() {
            tracing::debug!(%error, "a stranger was not asked to prove its address");
        }
        None
    }

    /// No answer: answers to strangers cost more than silence.
    pub(crate) fn ignore(self) {
        self.0.ignore();
    }
}

impl Relayed {
    fn new(material: &Material, idle: Idle) -> Result<Self, BindError> {
        let client = client_config(material, idle, SEVERAL_PATHS)?;
        Ok(Self { client, server: Arc::new(server_config(material, idle, SEVERAL_PATHS)?) })
    }
}

/// Derived from the node's own key, so that peers of an agent that crashed learn from its next run that their
/// sessions are gone (stateless reset, RFC 9000, section 10.3).
fn reset_key(material: &Material) -> hmac::Key {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"muster stateless reset");
    context.update(material.key.secret_der());
    hmac::Key::new(hmac::HMAC_SHA256, context.finish().as_ref())
}

fn server_config(material: &Material, idle: Idle, paths: u32) -> Result<noq::ServerConfig, BindError> {
    let crypto = QuicServerConfig::try_from(tls::server(material)?).map_err(no_initial_suite)?;
    let mut config = noq::ServerConfig::with_crypto(Arc::new(crypto));
    // Only the dialling end keeps the connection alive: one packet and one answer, not two.
    config.transport_config(Arc::new(transport(idle.timeout, None, paths)?)).max_incoming(INCOMING);
    Ok(config)
}

fn client_config(material: &Material, idle: Idle, paths: u32) -> Result<noq::ClientConfig, BindError> {
    let crypto = QuicClientConfig::try_from(tls::client(material)?).map_err(no_initial_suite)?;
    let mut config = noq::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport(idle.timeout, idle.keep_alive, paths)?));
    Ok(config)
}

fn transport(
    idle_timeout: Duration,
    keep_alive: Option<Duration>,
    paths: u32,
) -> Result<TransportConfig, BindError> {
    let mut config = TransportConfig::default();
    let timeout = idle_timeout.try_into().map_err(|_| io::Error::other("the idle time-out is absurd"))?;
    config
        .max_idle_timeout(Some(timeout))
        .keep_alive_interval(keep_alive)
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(INITIAL_MTU)
        .mtu_discovery_config(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(SESSION_WINDOW))
        .send_window(SESSION_WINDOW.into())
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .send_observed_address_reports(true)
        .receive_observed_address_reports(true)
        .max_concurrent_multipath_paths(paths);
    Ok(config)
}

fn no_initial_suite(error: impl std::fmt::Display) -> BindError {
    BindError::Tls(rustls::Error::General(error.to_string()))
}
