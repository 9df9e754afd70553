//! The auth service: certificate authority, enrollment links, renewal, the master's signatures.
//!
//! [`init`] founds the network, once, and opens it; [`open`] only opens; [`run`] serves. In between,
//! [`bootstrap`] gives the processes beside auth their certificates. A device or person enrolls by
//! [`grpc`] -> [`service`] -> [`domain`] (decides) -> [`store`] (commits) -> answer.

#![allow(clippy::duplicate_mod, reason = "store/shared is compiled once for each database")]

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_kit::files::{FileError, create_private_dir};
use muster_kit::grpc::ServeError;
use muster_kit::lease::{self, Lost};
use muster_kit::listen::Incoming;
use muster_kit::shutdown::Shutdown;
use tokio::net::TcpListener;

pub mod bootstrap;
pub mod config;
pub mod crl;
pub mod domain;
pub mod est;
pub mod grpc;
mod http;
pub mod join;
pub mod metrics;
mod pkcs7;
pub mod scep;
mod secret;
pub mod service;
pub mod store;
pub mod token;

pub use config::Config;
pub use secret::SecretError;
pub use service::{Auth, AuthError, Clock};

use crl::Shelf;
use domain::audit::MAIN_CHAIN;
use domain::custody::TokenError;
use domain::key::KeyKind;
use domain::rotation;
use domain::vault::Vault;
use store::{PostgresStore, SqliteStore, Store, StoreError};
use token::Pkcs11Token;

/// How often auth looks for what is due.
const TEND_INTERVAL: Duration = Duration::from_secs(600);

/// How soon a replica goes on with keys that another one made.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// Why auth does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the master has no address to put into links: name one")]
    NoAddress,
    #[error("{0:?} is no database for auth: expected postgres://...")]
    Database(String),
    #[error("there is no network in {}: found one first, with `muster init`", .0.display())]
    NotFounded(PathBuf),
    #[error("the network in {} waits for its root's signatures: `muster init --import` takes them in", .0.display())]
    RootMissing(PathBuf),
    #[error(transparent)]
    Folder(#[from] FileError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Auth(#[from] AuthError),
}

/// Founds the network if there is none yet, and opens it. Safe to repeat, also by several at once.
///
/// # Errors
/// Store, secret or token cannot be opened, or do not belong together.
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
    let stored = store.keys().await?;
    if stored.is_empty() && !may_found {
        return Err(StartError::NotFounded(config.data_dir.clone()));
    }
    let vault = open_vault(config, !stored.is_empty())?;
    let keys = Auth::found(store.as_ref(), &vault, clock()).await?;
    if !Auth::is_founded(&keys) {
        return Err(StartError::RootMissing(config.data_dir.clone()));
    }
    Ok(Arc::new(Auth::open(store, vault, &keys, clock, address)?))
}

/// The first half of founding a network whose root is kept elsewhere: says what is to be signed there (DER PKCS#10).
/// Safe to repeat.
///
/// # Errors
/// Store or secret cannot be opened.
pub async fn prepare(config: &Config) -> Result<Vec<(KeyKind, Vec<u8>)>, StartError> {
    let (store, vault) = open_unfounded(config).await?;
    let keys = Auth::prepare(store.as_ref(), &vault, muster_kit::clock::wall()).await?;
    Ok(rotation::requests(&keys, &vault).map_err(AuthError::from)?)
}

/// The second half: takes in the root and what it signed (DER).
///
/// # Errors
/// As [`prepare`], and if a certificate does not fit.
pub async fn complete(config: &Config, certificates: &[Vec<u8>]) -> Result<Arc<Auth>, StartError> {
    let (store, vault) = open_unfounded(config).await?;
    let keys = store.keys().await?;
    if keys.is_empty() {
        return Err(StartError::NotFounded(config.data_dir.clone()));
    }
    Auth::complete(store.as_ref(), &vault, certificates, muster_kit::clock::wall()).await?;
    drop(store);
    open(config).await
}

async fn open_unfounded(config: &Config) -> Result<(Arc<dyn Store>, Vault), StartError> {
    create_private_dir(&config.data_dir)?;
    let store = open_store(config).await?;
    let vault = open_vault(config, !store.keys().await?.is_empty())?;
    Ok((store, vault))
}

fn open_vault(config: &Config, founded: bool) -> Result<Vault, StartError> {
    let vault = secret::open(&config.secret_file(), founded)?;
    Ok(match &config.pkcs11 {
        Some(settings) => vault.with_token(Arc::new(Pkcs11Token::open(settings)?)),
        None => vault,
    })
}

/// The name of this replica's audit chain.
fn replica(config: &Config) -> String {
    let host = || std::fs::read_to_string("/etc/hostname").ok().map(|name| name.trim().to_owned());
    config.replica.clone().or_else(host).unwrap_or_else(|| MAIN_CHAIN.to_owned())
}

async fn open_store(config: &Config) -> Result<Arc<dyn Store>, StartError> {
    Ok(match &config.database_url {
        None => Arc::new(SqliteStore::open(&config.database_file()).await?),
        Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
            Arc::new(PostgresStore::open(url, &replica(config)).await?)
        }
        // Shown up to the scheme: the rest may hold a password.
        Some(url) => {
            return Err(StartError::Database(url.split("://").next().unwrap_or_default().to_owned()));
        }
    })
}

/// Why auth ended, or did not begin to serve.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("{protocol} cannot listen on {address}: {source}")]
    Listen { protocol: &'static str, address: SocketAddr, source: io::Error },
}

/// Serves auth to the connections of `incoming` until the shutdown, and does what is due meanwhile. `shelf` gets the lists of
/// revoked certificates.
///
/// # Errors
/// Serving ended otherwise than by the shutdown, or a port is taken.
pub async fn run(
    auth: Arc<Auth>,
    config: &Config,
    incoming: Incoming,
    shelf: Arc<Shelf>,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    metrics::describe();
    let whereabouts = grpc::Whereabouts {
        addresses: config.addresses.clone(),
        discovery_domain: config.discovery_domain.clone(),
        operator_policy_file: config.data_dir.join("operator-policy"),
    };
    let routes = grpc::routes(&auth, whereabouts);
    shelf.clone().keep(auth.clone(), &shutdown);
    let revoked = shelf.clone();
    let policy = grpc::policy().welcoming(move |_, peer| !revoked.is_revoked(&peer.serial));
    serve_scep(&auth, config, &shelf, &shutdown).await?;
    serve_est(&auth, config, &shutdown).await?;
    shutdown.spawn(tend(auth.clone(), shutdown.clone()));
    shutdown.spawn(refresh(auth.clone(), shutdown.clone()));
    let serving = muster_kit::grpc::serve("auth", routes, incoming, policy, shutdown);
    tokio::select! {
        served = serving => Ok(served?),
        lost = cut_off(&auth), if config.database_url.is_some() => Err(lost.into()),
    }
}

/// Returns when the shared store has not answered for a lease: whoever asks this replica waits for nothing.
async fn cut_off(auth: &Auth) -> Lost {
    lease::keep(|| async { auth.store().newest_revision().await.map(|_| true) }).await
}

async fn listen(protocol: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    let tcp = TcpListener::bind(address).await;
    let tcp = tcp.map_err(|source| RunError::Listen { protocol, address, source })?;
    tracing::info!(protocol, address = %tcp.local_addr().unwrap_or(address), "serving devices without our agent");
    Ok(tcp)
}

async fn serve_scep(
    auth: &Arc<Auth>,
    config: &Config,
    shelf: &Arc<Shelf>,
    shutdown: &Shutdown,
) -> Result<(), RunError> {
    if let Some(address) = config.scep_listen {
        let tcp = listen("SCEP", address).await?;
        shutdown.spawn(scep::serve(tcp, auth.clone(), shelf.clone(), shutdown.clone()));
    }
    Ok(())
}

async fn serve_est(auth: &Arc<Auth>, config: &Config, shutdown: &Shutdown) -> Result<(), RunError> {
    let Some(address) = config.est_listen else { return Ok(()) };
    let tcp = listen("EST", address).await?;
    let hosts = config.addresses.iter().map(|address| host(address)).collect();
    let served = est::serve(tcp, auth.clone(), hosts, shutdown.clone());
    shutdown.spawn(async move {
        if let Err(error) = served.await {
            tracing::error!(%error, "EST is not served");
        }
    });
    Ok(())
}

/// The host of `host:port`.
fn host(address: &str) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
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

/// Follows what other replicas changed: new keys.
async fn refresh(auth: Arc<Auth>, shutdown: Shutdown) {
    let mut due = tokio::time::interval(REFRESH_INTERVAL);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.triggered() => return,
            _ = due.tick() => {}
        }
        match auth.refresh().await {
            Ok(true) => tracing::info!("going on with new keys"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "could not look for new keys; trying again later"),
        }
    }
}
