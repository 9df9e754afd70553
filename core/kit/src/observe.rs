//! A plain HTTP port for whoever watches the process: `/metrics` for Prometheus, `/healthz` and `/readyz` for probes,
//! and the [`Pages`] that services add.
//!
//! To be bound to loopback or the pod: it asks nobody who they are.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::shutdown::Shutdown;

mod process;

/// From a local answer to a minute's deadline.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// A prober that dawdles is cut off.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// Probes and scrapers at once.
const CONNECTIONS: usize = 32;
/// How often the exporter sorts what was recorded into its buckets, scraped or not.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why the process cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    #[error("cannot listen on {address} for metrics and probes: {source}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("metrics cannot be recorded: {0}")]
    Recorder(#[from] metrics_exporter_prometheus::BuildError),
}

/// Says on `/readyz` whether the process is ready. Clones speak for the same process.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A JSON document, or why there is none now.
pub type Page = Arc<dyn Fn() -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// JSON documents that services add to the port, by path. Clones share them.
#[derive(Clone, Default)]
pub struct Pages(Arc<RwLock<BTreeMap<&'static str, Page>>>);

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pages")
    }
}

impl Pages {
    pub fn add(&self, path: &'static str, page: Page) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(path, page);
    }

    fn find(&self, path: &str) -> Option<Page> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }
}

/// The port, bound and not yet served.
pub struct Observatory {
    tcp: TcpListener,
    metrics: PrometheusHandle,
    readiness: Readiness,
    pages: Pages,
}

impl Observatory {
    /// Binds the port and begins to record metrics, which a process does once. `[::]` means every address of both
    /// families, and of IPv4 alone where the host has no IPv6.
    pub async fn bind(address: SocketAddr) -> Result<Self, ObserveError> {
        let bound = match TcpListener::bind(address).await {
            Err(error) if address.ip().is_unspecified() && error.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
            }
            bound => bound,
        };
        let tcp = bound.map_err(|source| ObserveError::Bind { address, source })?;
        // Without buckets histograms would come out as summaries, which cannot be added up over replicas.
        let metrics = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
            .install_recorder()?;
        describe();
        process::describe();
        Ok(Self { tcp, metrics, readiness: Readiness::default(), pages: Pages::default() })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    pub fn pages(&self) -> Pages {
        self.pages.clone()
    }

    /// Answers until the shutdown.
    pub async fn run(self, shutdown: Shutdown) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let mut upkeep = tokio::time::interval(UPKEEP);
        loop {
            let accepted = tokio::select! {
                () = shutdown.triggered() => return,
                _ = upkeep.tick() => {
                    self.metrics.run_upkeep();
                    process::measure();
                    continue;
                }
                accepted = self.tcp.accept() => accepted,
            };
            let (Ok((stream, _)), Ok(permit)) = (accepted, permits.clone().try_acquire_owned()) else {
                continue;
            };
            let (metrics, readiness, ended) =
                (self.metrics.clone(), self.readiness.clone(), shutdown.clone());
            let pages = self.pages.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let page = pages.find(request.uri().path());
                    let plain = page.is_none().then(|| answer(&request, &metrics, &readiness));
                    async move {
                        Ok::<_, Infallible>(match (page, plain) {
                            (Some(page), _) => document(page().await),
                            (None, plain) => plain.unwrap_or_default(),
                        })
                    }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_LIMIT)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    _ = connection => {}
                    () = ended.triggered() => {}
                }
                drop(permit);
            });
        }
    }
}

fn answer(
    request: &Request<Incoming>,
    metrics: &PrometheusHandle,
    readiness: &Readiness,
) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/metrics" => text(StatusCode::OK, metrics.render()),
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if readiness.is_ready() => text(StatusCode::OK, "ready\n".to_owned()),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
        _ => text(StatusCode::NOT_FOUND, "/metrics, /healthz or /readyz\n".to_owned()),
    }
}

fn document(page: Result<String, String>) -> Response<Full<Bytes>> {
    let (status, body) = match page {
        Ok(body) => (StatusCode::OK, body),
        Err(why) => return text(StatusCode::SERVICE_UNAVAILABLE, why),
    };
    let mut response = text(status, body);
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The metrics of this crate.
fn describe() {
    metrics::describe_histogram!(
        "muster_rpc_server_duration_seconds",
        metrics::Unit::Seconds,
        "Calls answered, by method and gRPC code; of streams, the time to their beginning"
    );
    metrics::describe_counter!(
        "muster_listener_refusals_total",
        "Connections that did not get through the TLS listener"
    );
}
