//! The gsn-registry service: nodes offer themselves as global super nodes, probes show which of them anybody can reach,
//! as many serve as are needed, and whoever asks is told the nearest. It also lists the master's relays, and has the
//! tickets signed with which nodes send through either.
//!
//! [`grpc`] -> office: [`domain::registry`] behind one lock, ticking -> probes, streams, [`store`].

#![allow(clippy::duplicate_mod, reason = "store/shared is compiled once for each database")]

use std::sync::Arc;

use data_encoding::HEXLOWER;
use muster_kit::connect::MasterChannel;
use muster_kit::grpc::{Routes, ServeError};
use muster_kit::lease::{self, Lost};
use muster_kit::listen::Incoming;
use muster_kit::shutdown::Shutdown;
use muster_proto::gsn::v1::registry_service_server::RegistryServiceServer;
use muster_types::NodeId;

pub mod config;
pub mod domain;
pub mod grpc;
pub mod metrics;
mod office;
mod probing;
pub mod store;
mod tickets;
mod trust;

pub use config::Config;
pub use muster_kit::database::StoreConfig;

use grpc::Front;
use office::Office;
use probing::Probing;
use store::{Store, StoreError, postgres::PostgresStore, sqlite::SqliteStore};
use tickets::Tickets;
use trust::Trust;

/// The service's name in logs and metrics.
const NAME: &str = "gsn-registry";

/// Any question shows whether the store answers.
const NOBODY: NodeId = NodeId([0; NodeId::LEN]);

/// Why gsn-registry does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("gsn-registry's store: {0}")]
    Store(#[from] StoreError),
    #[error("gsn-registry's PostgreSQL address: {0}")]
    Address(sqlx::Error),
    #[error("the sockets for probes: {0}")]
    Bind(#[from] std::io::Error),
    #[error("the pinned roots: {0}")]
    Roots(#[from] muster_wire::trust::TrustError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// Serves until the shutdown. `auth` leads to the auth service, which signs tickets and says who is not admitted any more.
///
/// # Errors
/// The store cannot be opened, or a shared one does not answer any more; no socket, the roots cannot be read, or serving failed.
pub async fn run(
    config: Config,
    incoming: Incoming,
    auth: MasterChannel,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    metrics::describe();
    let store = open(&config.store).await?;
    let probing = Probing::bind(&config.probe_from)?;
    let trust = Arc::new(Trust::new(config.network, &config.roots, auth.clone())?);
    let office = Arc::new(Office::new(store.clone(), probing, HEXLOWER.encode(&rand::random::<[u8; 8]>())));
    shutdown.spawn(Arc::clone(&trust).tend(shutdown.clone()));
    shutdown.spawn(Arc::clone(&office).tend(shutdown.clone()));
    let tickets = Tickets::new(auth, &shutdown);
    let front = Front::new(office, Arc::clone(&trust), tickets, config.source_visible, shutdown.clone());
    let routes = Routes::new().with(RegistryServiceServer::new(front));
    let policy = grpc::policy().welcoming(move |_, peer| trust.admits(peer));
    let serving = muster_kit::grpc::serve(NAME, routes, incoming, policy, shutdown);
    tokio::select! {
        served = serving => Ok(served?),
        lost = cut_off(store.as_ref()), if matches!(config.store, StoreConfig::Postgres(_)) => Err(lost.into()),
    }
}

/// Returns when the shared store has not answered for a lease: nodes that ask this replica find none of the others' candidates.
async fn cut_off(store: &dyn Store) -> Lost {
    lease::keep(|| async { store.candidate(NOBODY).await.map(|_| true) }).await
}

async fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, RunError> {
    Ok(match config {
        StoreConfig::Sqlite(file) => Arc::new(SqliteStore::open(file).await?),
        StoreConfig::Postgres(url) => {
            Arc::new(PostgresStore::connect(url.parse().map_err(RunError::Address)?).await?)
        }
    })
}
