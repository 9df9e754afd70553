//! The topology service: cells, presence, control channel, tasks, events.
//!
//! Nodes attach to [`grpc`]'s control channel, operators ask its fleet API; both become commands of the [`domain`],
//! which the [`writer`] commits to the [`store`] in groups; readers are woken and read the store again.

#![allow(clippy::duplicate_mod, reason = "store/shared is compiled once for each database")]

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_kit::bus::{Bus, BusError};
use muster_kit::connect::MasterChannel;
use muster_kit::grpc::{Routes, ServeError};
use muster_kit::listen::Incoming;
use muster_kit::shutdown::Shutdown;
use muster_proto::control::v1::control_service_server::ControlServiceServer;
use muster_proto::fleet::v1::fleet_service_server::FleetServiceServer;

mod admissions;
mod audit;
pub mod authority;
mod brake;
mod census;
mod clones;
pub mod config;
pub mod domain;
mod graph;
pub mod grpc;
mod hub;
mod lease;
pub mod metrics;
mod peers;
mod revocations;
mod sealed;
pub mod store;
mod sweep;
mod tally;
pub mod trust;
pub mod wake;
pub mod writer;

pub use config::Config;
pub use muster_kit::database::StoreConfig;

pub use lease::RENEWAL as LEASE_RENEWAL;

use authority::Authority;
use grpc::{Control, Fleet};
use hub::Hub;
use peers::SharedBus;
use store::{Store, StoreError, postgres::PostgresStore, sqlite::SqliteStore};
use trust::Trust;
use wake::{LocalBus, WakeBus};
use writer::Writer;

/// The service's name in logs and metrics.
const NAME: &str = "topology";

/// Streams that end tell the store so; a slow store has so long.
const DRAIN_LIMIT: Duration = Duration::from_secs(8);

/// A replica that is cut off has only to send its streams away.
const CUT_OFF_DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// Frames of a whole cell's snapshot, with tickets and attaches of a thousand nodes, fit.
const FRAME_BYTES: usize = 4 * 1024 * 1024;

/// Why topology does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("topology's store: {0}")]
    Store(#[from] StoreError),
    #[error("topology's PostgreSQL address: {0}")]
    Address(sqlx::Error),
    #[error("topology's sealing key: {0}")]
    Sealing(#[from] sealed::KeyFileError),
    #[error("the pinned roots: {0}")]
    Roots(#[from] muster_wire::trust::TrustError),
    #[error("the bus between replicas: {0}")]
    Bus(#[from] BusError),
    #[error("another replica serves the same database, and no bus joins them: name a NATS server to both")]
    NotAlone,
    #[error(
        "the shared store has not answered this replica for the length of its lease; other replicas take its hosts"
    )]
    CutOff,
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Serves until the shutdown, then drains. `auth` leads to the auth service, which signs.
///
/// # Errors
/// The store cannot be opened, the roots cannot be read, or serving failed.
pub async fn run(
    config: Config,
    incoming: Incoming,
    auth: MasterChannel,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let authority = Arc::new(grpc::authority::AuthClient::new(config.network, auth));
    run_with(config, incoming, authority, shutdown).await
}

/// The same with any holder of the signing keys.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    config: Config,
    incoming: Incoming,
    authority: Arc<dyn Authority>,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    metrics::describe();
    let store = open(&config.store).await?;
    let tasks = shutdown.child();
    let local = Arc::new(LocalBus::default());
    let (peers, heard) = match &config.bus {
        Some(url) => Bus::open(url, peers::subject(config.network), &tasks)
            .await
            .map(|(bus, heard)| (Some(bus), Some(heard)))?,
        None => (None, None),
    };
    let bus: Arc<dyn WakeBus> = match &peers {
        Some(bus) => Arc::new(SharedBus { local: local.clone(), bus: bus.clone() }),
        None => local.clone(),
    };
    let (writer, writing) = Writer::new(store.clone(), bus.clone());
    let writing = tokio::spawn(writing);
    let hub = Arc::new(Hub {
        replica: uuid::Uuid::now_v7().to_string(),
        epoch: store.feed().await?.epoch,
        store,
        writer,
        bus,
        peers,
        others_renewed: tokio::sync::watch::Sender::new(None),
        authority,
        trust: Trust::new(config.network, &config.roots)?,
        minimum_version: config.minimum_version,
        source_visible: config.source_visible,
        streams: Mutex::default(),
        probes: Mutex::default(),
        refused: Mutex::default(),
        adopted: Mutex::default(),
        brake: brake::Brake::default(),
        audit_full: AtomicBool::new(false),
        revoked: tokio::sync::watch::Sender::new(0),
        sealing: sealed::own_key(&config.sealing_key_file)?,
        operator_policy_file: config.operator_policy_file.clone(),
        task_policy_file: config.task_policy_file.clone(),
    });
    lease::renew_first(&hub).await?;
    if let Some(pages) = &config.pages {
        graph::publish(&hub, pages);
    }
    tasks.spawn(revocations::follow(hub.clone(), tasks.clone()));
    tasks.spawn(trust::keep(hub.clone(), tasks.clone()));
    tasks.spawn(sweep::run(hub.clone(), config.retention, tasks.clone()));
    if let Some(heard) = heard {
        tasks.spawn(peers::listen(hub.clone(), local, heard, tasks.clone()));
    }
    tasks.spawn(admissions::follow(hub.clone(), tasks.clone()));
    tasks.spawn(audit::tell(hub.clone(), tasks.clone()));
    let policy = revocations::enforced(grpc::policy(), &hub);
    let serving = muster_kit::grpc::serve(NAME, routes(&hub, &tasks), incoming, policy, shutdown);
    let served = tokio::select! {
        served = serving => served.map_err(RunError::from),
        lost = lease::keep(&hub) => Err(lost),
    };
    tasks.trigger();
    let limit = if matches!(served, Err(RunError::CutOff)) { CUT_OFF_DRAIN_LIMIT } else { DRAIN_LIMIT };
    if let Err(error) = tasks.wait_drained(limit).await {
        tracing::warn!(%error, "topology ends with work undone; what was not acknowledged comes again");
    }
    // The last handle to the writer goes with the hub; then the writer has nothing left to do.
    drop(hub);
    let _ = tokio::time::timeout(limit, writing).await;
    served
}

async fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, RunError> {
    Ok(match config {
        StoreConfig::Sqlite(file) => Arc::new(SqliteStore::open(file).await?),
        StoreConfig::Postgres(url) => {
            Arc::new(PostgresStore::connect(url.parse().map_err(RunError::Address)?).await?)
        }
    })
}

fn routes(hub: &Arc<Hub>, shutdown: &Shutdown) -> Routes {
    let control = Control::new(hub.clone(), shutdown.clone());
    let fleet = Fleet::new(hub.clone(), shutdown.clone());
    Routes::new()
        .with(ControlServiceServer::new(control).max_decoding_message_size(FRAME_BYTES))
        .with(FleetServiceServer::new(fleet))
}
