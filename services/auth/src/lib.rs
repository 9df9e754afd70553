//! The auth service: certificate authority, enrollment links, renewal, the master's signatures.
//!
//! [`init`] founds the network, once, and opens it; [`open`] only opens; [`run`] serves. In between,
//! [`bootstrap`] gives the processes beside auth their certificates. A device or person enrolls by
//! [`grpc`] -> [`service`] -> [`domain`] (decides) -> [`store`] (commits) -> answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_kit::files::{FileError, create_private_dir};
use muster_kit::grpc::ServeError;
use muster_kit::listen::Incoming;
use muster_kit::shutdown::Shutdown;

pub mod bootstrap;
pub mod config;
pub mod domain;
pub mod grpc;
pub mod join;
pub mod metrics;
mod secret;
pub mod service;
pub mod store;

pub use config::Config;
pub use secret::SecretError;
pub use service::{Auth, AuthError, Clock};

use store::{PostgresStore, SqliteStore, Store, StoreError};

/// How often auth looks for what is due.
const TEND_INTERVAL: Duration = Duration::from_secs(600);

/// Why auth does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the master has no address to put into links: name one")]
    NoAddress,
    #[error("{0:?} is no database for auth: expected postgres://...")]
    Database(String),
    #[error("there is no network in {}: found one first", .0.display())]
    NotFounded(PathBuf),
    #[error(transparent)]
    Folder(#[from] FileError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Auth(#[from] AuthError),
}

/// Founds the network if there is none yet, and opens it. Safe to repeat, also by several at once.
///
/// # Errors
/// Store or secret cannot be opened, or do not belong together.
pub async fn init(config: &Config) -> Result<Arc<Auth>, StartError> {
    start(config, true, Arc::new(muster_kit::clock::wall)).await
}

/// Opens a network that [`init`] founded; never founds one. For replicas.
///
/// # Errors
/// As [`init`], and if there is no network.
pub async fn open(config: &Config) -> Result<Arc<Auth>, StartError> {
    start(config, false, Arc::new(muster_kit::clock::wall)).await
}

/// As [`init`], by a clock of one's choice.
///
/// # Errors
/// As [`init`].
pub async fn init_at(config: &Config, clock: Clock) -> Result<Arc<Auth>, StartError> {
    start(config, true, clock).await
}

async fn start(config: &Config, may_found: bool, clock: Clock) -> Result<Arc<Auth>, StartError> {
    let address = config.addresses.first().ok_or(StartError::NoAddress)?.clone();
    create_private_dir(&config.data_dir)?;
    let store = open_store(config).await?;
    let founded = !store.keys().await?.is_empty();
    if !founded && !may_found {
        return Err(StartError::NotFounded(config.data_dir.clone()));
    }
    let vault = secret::open(&config.secret_file(), founded)?;
    let keys = Auth::found(store.as_ref(), &vault, clock()).await?;
    Ok(Arc::new(Auth::open(store, vault, &keys, clock, address)?))
}

async fn open_store(config: &Config) -> Result<Arc<dyn Store>, StartError> {
    Ok(match &config.database_url {
        None => Arc::new(SqliteStore::open(&config.database_file()).await?),
        Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
            Arc::new(PostgresStore::open(url).await?)
        }
        // Shown up to the scheme: the rest may hold a password.
        Some(url) => {
            return Err(StartError::Database(url.split("://").next().unwrap_or_default().to_owned()));
        }
    })
}

/// Serves auth to the connections of `incoming` until the shutdown, and does what is due meanwhile.
///
/// # Errors
/// Serving ended otherwise than by the shutdown.
pub async fn run(
    auth: Arc<Auth>,
    config: &Config,
    incoming: Incoming,
    shutdown: Shutdown,
) -> Result<(), ServeError> {
    metrics::describe();
    let whereabouts = grpc::Whereabouts {
        addresses: config.addresses.clone(),
        discovery_domain: config.discovery_domain.clone(),
        operator_policy_file: config.data_dir.join("operator-policy"),
    };
    let routes = grpc::routes(&auth, whereabouts);
    shutdown.spawn(tend(auth, shutdown.clone()));
    muster_kit::grpc::serve("auth", routes, incoming, grpc::policy(), shutdown).await
}

/// Renews signers' certificates and forgets what nobody needs, now and then.
async fn tend(auth: Arc<Auth>, shutdown: Shutdown) {
    let mut due = tokio::time::interval(TEND_INTERVAL);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.triggered() => return,
            _ = due.tick() => {}
        }
        match auth.tend().await {
            Ok(tended) => metrics::count_tended(tended),
            Err(error) => tracing::warn!(%error, "could not do what is due; trying again later"),
        }
    }
}
