//! The client's way to the master: several addresses, one TLS identity, a channel for each service by its own name.
//!
//! addresses -> names resolved, or a proxy's tunnel -> staggered attempts (TCP and TLS each) -> the first that stands carries HTTP/2.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Request};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::Service;

use crate::telemetry;
use crate::tls::ClientTls;

mod attempt;
mod loss;
mod overheard;
mod proxies;
mod proxy;
mod root;
mod srv;
mod trouble;

use attempt::Aim;
pub use attempt::ConnectError;
use overheard::Overheard;
pub use proxies::{Proxies, ProxyConfig, ProxyUrl, Source, Tried, kept as kept_proxy};
pub use proxy::{Proxy, ProxyFault};
pub use root::presented_root;
pub use srv::by_domain;
pub use trouble::{Trouble, connect_error, diagnose};

/// The name of the auth service, which TLS verifies.
pub const AUTH: &str = "auth.muster";
/// The name of the topology service.
pub const TOPOLOGY: &str = "topology.muster";
/// The name of every relay.
pub const RELAY: &str = "relay.muster";
/// The name of the dht-bootstrap service.
pub const DHT_BOOTSTRAP: &str = "dht-bootstrap.muster";
/// The name of the registry of global super nodes.
pub const GSN_REGISTRY: &str = "gsn-registry.muster";

/// All attempts to connect together.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// To the first byte of an answer; a little above the server's own limit, so that the server's word comes first.
const ANSWER_LIMIT: Duration = Duration::from_secs(70);
/// A ping of HTTP/2 that is not answered within this ends the connection.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// A known address that leads nowhere is tried alone for so long; then DNS is asked as well.
const DISCOVERY_AFTER: Duration = Duration::from_secs(1);

/// Where the master is, and who we are to it.
#[derive(Debug, Clone)]
pub struct Master {
    addresses: Arc<[String]>,
    /// Whose SRV records name it, if it is not at its addresses any more.
    domain: Option<Arc<str>>,
    proxies: Arc<Proxies>,
    tls: Arc<ClientTls>,
    keep_alive: Option<Duration>,
    lost_after: Option<Duration>,
}

impl Master {
    /// `addresses` are `host:port`, best first. Nothing is connected yet.
    pub fn new(addresses: impl IntoIterator<Item = String>, tls: Arc<ClientTls>) -> Self {
        Self {
            addresses: addresses.into_iter().collect(),
            domain: None,
            proxies: Arc::default(),
            tls,
            keep_alive: None,
            lost_after: None,
        }
    }

    /// Where none of the addresses leads to the master, the SRV records of `domain` are asked; empty: nobody is.
    pub fn found_by(mut self, domain: &str) -> Self {
        self.domain = (!domain.is_empty()).then(|| domain.into());
        self
    }

    /// By these proxies; without it, by those that environment or system name.
    pub fn through(mut self, proxies: Arc<Proxies>) -> Self {
        self.proxies = proxies;
        self
    }

    /// Pings quiet connections this often. Without it only the server does, once a minute.
    pub fn keep_alive(mut self, interval: Duration) -> Self {
        self.keep_alive = Some(interval);
        self
    }

    /// A connection on which nothing of what is sent arrives for so long ends, where that can be told ([`Master::sees_loss`]).
    pub fn lost_after(mut self, silence: Duration) -> Self {
        self.lost_after = Some(silence);
        self
    }

    /// Whether a connection ends by itself when nothing of what is sent arrives. A proxy acknowledges what the master never gets.
    pub fn sees_loss(&self) -> bool {
        loss::IS_SEEN && self.proxies.to(&self.addresses).iter().all(Option::is_none)
    }

    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Connects and shakes hands as a client of that service, and does nothing more.
    ///
    /// # Errors
    /// Nobody is there, or not the master.
    pub async fn greet(&self, server_name: &'static str) -> Result<(), ConnectError> {
        self.reach(server_name).await.map(|_| ())
    }

    async fn reach(&self, server_name: &'static str) -> Result<TlsStream<Overheard>, ConnectError> {
        let stream = self.find(server_name).await?;
        if let Some(silence) = self.lost_after
            && let Err(error) = loss::end_after(silence, stream.get_ref().0.stream())
        {
            tracing::debug!(%error, "the system does not say when the master is lost");
        }
        Ok(stream)
    }

    /// By the known addresses, else by DNS.
    async fn find(&self, server_name: &'static str) -> Result<TlsStream<Overheard>, ConnectError> {
        let name =
            ServerName::try_from(server_name).map_err(|_| ConnectError::BadName(server_name.to_owned()))?;
        let (tls, proxies) = (self.tls.config(), &*self.proxies);
        let aim = Aim { name, tls, proxies, limit: CONNECT_LIMIT };
        let known = attempt::connect(&self.addresses, aim.clone());
        let Some(domain) = &self.domain else { return known.await };
        let found = async {
            match by_domain(domain).await {
                Ok(found) => attempt::connect(&found, aim).await,
                Err(reason) => {
                    tracing::debug!(%domain, reason, "DNS does not name the master");
                    Err(ConnectError::NoAddress)
                }
            }
        };
        attempt::in_turn(known, DISCOVERY_AFTER, found).await
    }

    /// A channel to the service of that name ([`AUTH`], [`TOPOLOGY`], [`DHT_BOOTSTRAP`]). It connects with the first call and again after
    /// every loss, each time with the certificate that [`ClientTls`] holds then.
    pub fn service(&self, server_name: &'static str) -> MasterChannel {
        // The scheme is http because TLS is the connector's business, not tonic's.
        let uri = Uri::builder().scheme("http").authority(server_name).path_and_query("/").build();
        let mut endpoint = Endpoint::from(uri.unwrap_or_default())
            .timeout(ANSWER_LIMIT)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        if let Some(interval) = self.keep_alive {
            endpoint = endpoint.http2_keep_alive_interval(interval).keep_alive_while_idle(true);
        }
        let way = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let way = way.clone();
            async move { way.reach(server_name).await.map(TokioIo::new) }
        });
        MasterChannel(endpoint.connect_with_connector_lazy(connector))
    }
}

/// A channel to one service. Every call carries the trace it belongs to.
#[derive(Debug, Clone)]
pub struct MasterChannel(Channel);

impl Service<Request<Body>> for MasterChannel {
    type Response = <Channel as Service<Request<Body>>>::Response;
    type Error = <Channel as Service<Request<Body>>>::Error;
    type Future = <Channel as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let traceparent = telemetry::traceparent().and_then(|text| HeaderValue::try_from(text).ok());
        if let Some(traceparent) = traceparent {
            request.headers_mut().insert("traceparent", traceparent);
        }
        self.0.call(request)
    }
}
