//! The dht-bootstrap service: always-on nodes of the hash table with ids that stay, contacts for those who join, the
//! network's root and its revocations as records, and how well the table is.
//!
//! The nodes speak sealed datagrams on UDP ports of their own; [`grpc`] answers nodes and operators.

#![allow(clippy::duplicate_mod, reason = "store/shared is compiled once for each database")]

use std::sync::Arc;

use muster_kit::backoff::Backoff;
use muster_kit::connect::MasterChannel;
use muster_kit::grpc::{Routes, ServeError};
use muster_kit::lease::Lost;
use muster_kit::listen::Incoming;
use muster_kit::shutdown::Shutdown;
use muster_proto::dht::v1::bootstrap_service_server::BootstrapServiceServer;
use tokio::task::JoinSet;

pub mod config;
mod crawl;
mod crowd;
pub mod domain;
pub mod grpc;
pub mod metrics;
mod revocations;
mod slots;
pub mod store;

pub use config::Config;
pub use muster_kit::database::StoreConfig;

use crowd::Crowd;
use domain::identity::IdentityError;
use store::{Store, StoreError, postgres::PostgresStore, sqlite::SqliteStore};

/// The service's name in logs and metrics.
const NAME: &str = "dht-bootstrap";

/// Why dht-bootstrap does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("dht-bootstrap's store: {0}")]
    Store(#[from] StoreError),
    #[error("dht-bootstrap's PostgreSQL address: {0}")]
    Address(sqlx::Error),
    #[error("a bootstrap node's socket: {0}")]
    Bind(std::io::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("auth does not sign the nodes' tickets: {0}")]
    Auth(String),
    #[error("the pinned roots: {0}")]
    Roots(#[from] muster_wire::trust::TrustError),
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl RunError {
    fn auth(status: tonic::Status) -> Self {
        Self::Auth(format!("{:?}: {}", status.code(), status.message()))
    }
}

/// Serves until the shutdown. `auth` leads to the auth service, which signs the nodes' tickets.
///
/// # Errors
/// The store cannot be opened, no socket, auth does not answer, or serving failed.
pub async fn run(
    config: Config,
    incoming: Incoming,
    auth: MasterChannel,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    metrics::describe();
    let store = open(&config.store).await?;
    let crowd = tokio::select! {
        crowd = start(config, store, auth.clone()) => Arc::new(crowd?),
        () = shutdown.triggered() => return Ok(()),
    };
    let mut tending = JoinSet::new();
    tending.spawn(Arc::clone(&crowd).tend());
    if let Some(dht) = crowd.first() {
        tending.spawn(revocations::follow(dht.clone(), crowd.network(), auth));
    }
    let routes = Routes::new().with(BootstrapServiceServer::new(grpc::Bootstrap::new(Arc::clone(&crowd))));
    let serving = muster_kit::grpc::serve(NAME, routes, incoming, grpc::policy(), shutdown);
    let served = tokio::select! {
        served = serving => served.map_err(RunError::from),
        lost = crowd.keep_slots() => Err(lost.into()),
    };
    tending.abort_all();
    // Who has lost its ids says no goodbye in their name.
    if !matches!(served, Err(RunError::Lost(_))) {
        crowd.leave().await;
    }
    served
}

/// Starts the nodes once auth has signed their tickets; it may come later than this service.
async fn start(config: Config, store: Arc<dyn Store>, auth: MasterChannel) -> Result<Crowd, RunError> {
    let mut backoff = Backoff::new();
    loop {
        match Crowd::start(config.clone(), store.clone(), auth.clone()).await {
            Err(RunError::Auth(reason)) => {
                tracing::warn!(reason, "auth does not sign the nodes' tickets; asking again");
                let delay = backoff.next_delay(&mut rand::rng());
                tokio::time::sleep(delay).await;
            }
            started => return started,
        }
    }
}

async fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, RunError> {
    Ok(match config {
        StoreConfig::Sqlite(file) => Arc::new(SqliteStore::open(file).await?),
        StoreConfig::Postgres(url) => {
            Arc::new(PostgresStore::connect(url.parse().map_err(RunError::Address)?).await?)
        }
    })
}
