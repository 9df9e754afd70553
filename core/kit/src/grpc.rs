//! Serves gRPC: verified connections in, calls to the services behind them, each past one gate; drains when told to.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

use crate::listen::Incoming;
use crate::policy::Policy;
use crate::shutdown::Shutdown;

mod gate;
mod methods;

pub use gate::UNARY_LIMIT;

/// After the shutdown calls in flight have so long; then they are cut.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// Proves a quiet connection's other end, and keeps address translators on the way from forgetting it.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Calls at once on one connection: an LSN's forwarded ones and a CMDB's parallel ones fit well.
const STREAMS_PER_CONNECTION: u32 = 1_000;
/// Request headers: a traceparent, a deadline and little else.
const HEADER_BYTES: u32 = 16 * 1024;

/// Serving has ended otherwise than by the shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{service} cannot describe itself: {reason}")]
    Reflection { service: &'static str, reason: String },
    #[error("{service} stopped serving: {source}")]
    Transport { service: &'static str, source: tonic::transport::Error },
}

type Handler = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The gRPC services behind one name, found by the first part of a call's path.
#[derive(Clone, Default)]
pub struct Routes(Arc<HashMap<&'static str, Handler>>);

impl Routes {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a generated server, as in `FleetServiceServer::new(fleet)`.
    pub fn with<S>(mut self, server: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S: NamedService + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        Arc::make_mut(&mut self.0).insert(S::NAME, BoxCloneSyncService::new(server));
        self
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        let service = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
        let Some(handler) = self.0.get(service).cloned() else {
            return Status::unimplemented(format!("{service:?} is not served here")).into_http();
        };
        match handler.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Serves `routes`, with health and reflection, to the connections of `incoming` until the shutdown; returns when the
/// calls in flight have ended, at the latest [`DRAIN_LIMIT`] after it. Long streams should end themselves on it.
pub async fn serve(
    name: &'static str,
    routes: Routes,
    incoming: Incoming,
    policy: Policy,
    shutdown: Shutdown,
) -> Result<(), ServeError> {
    let (health, health_server) = tonic_health::server::health_reporter();
    for service in routes.0.keys() {
        health.set_service_status(*service, tonic_health::ServingStatus::Serving).await;
    }
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(muster_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| ServeError::Reflection { service: name, reason: error.to_string() })?;
    let gate = gate::Gate::new(name, policy, routes.with(health_server).with(reflection));
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(HEADER_BYTES)
        .serve_with_incoming_shutdown(gate, incoming, shutdown.clone().into_triggered());
    tokio::select! {
        served = server => served.map_err(|source| ServeError::Transport { service: name, source }),
        () = drain_limit(&shutdown) => {
            tracing::warn!(service = name, limit = ?DRAIN_LIMIT, "cut calls that had not ended");
            Ok(())
        }
    }
}

async fn drain_limit(shutdown: &Shutdown) {
    shutdown.triggered().await;
    tokio::time::sleep(DRAIN_LIMIT).await;
}
