//! Starts dht-bootstrap, in the process of auth or elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use muster_auth::{Auth, config as auth_files};
use muster_dht_bootstrap::{Config, StoreConfig};
use muster_kit::connect::{self, AUTH, DHT_BOOTSTRAP};
use muster_kit::listen::Listener;
use muster_kit::shutdown::Shutdown;
use muster_types::EnrollmentLink;
use tokio::task::JoinSet;

use super::{Ended, Trust, join_elsewhere, service_tls};
use crate::config::{self, MasterConfig};
use crate::exit::Failure;

const NAME: &str = "dht-bootstrap";

/// How others are reached from here, and this master from elsewhere.
pub(super) struct Reached<'a> {
    pub(super) auth: Option<&'a Arc<Auth>>,
    pub(super) local: &'a str,
    pub(super) addresses: &'a [String],
}

/// What a process that runs dht-bootstrap alone believes.
pub(super) async fn trust(config: &MasterConfig, shutdown: &Shutdown) -> Result<Trust, Failure> {
    Ok(join_elsewhere(config, NAME, shutdown).await?.0)
}

pub(super) async fn start(
    config: &MasterConfig,
    trust: &Trust,
    reached: Reached<'_>,
    listener: &mut Listener,
    services: &mut JoinSet<Ended>,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let (tls, auth_address) = match reached.auth {
        Some(auth) => (service_tls(auth, NAME, shutdown).await?, reached.local.to_owned()),
        None => (join_elsewhere(config, NAME, shutdown).await?.1, auth_address(config)?),
    };
    let store = match &config.database_url {
        Some(url) => StoreConfig::Postgres(url.clone()),
        None => StoreConfig::Sqlite(config.data_dir.join("dht-bootstrap.db")),
    };
    let address = public_address(reached.addresses).await;
    let bootstrap = Config::new(store, trust.network, trust.roots.clone(), address);
    let auth = connect::Master::new([auth_address], tls.client).service(AUTH);
    let (incoming, ended) = (listener.service(DHT_BOOTSTRAP, tls.server), shutdown.clone());
    services.spawn(async move {
        let served = muster_dht_bootstrap::run(bootstrap, incoming, auth, ended).await;
        served.map_err(|error| Failure::internal("dht-bootstrap ended", error))
    });
    Ok(())
}

fn auth_address(config: &MasterConfig) -> Result<String, Failure> {
    if let Some(address) = &config.auth_address {
        return Ok(address.clone());
    }
    let file = auth_files::join_file(&config.data_dir, NAME);
    let link = std::fs::read_to_string(&file).ok().and_then(|text| text.parse().ok());
    link.map(|link: EnrollmentLink| link.address).ok_or_else(|| {
        Failure::usage("auth is nowhere to be found", format!("{} holds no link", file.display()))
            .next("add --auth-address HOST:PORT")
    })
}

/// The address of the master's first name, which devices reach; this host's own if that is no use.
async fn public_address(addresses: &[String]) -> IpAddr {
    let own = config::own_address();
    let Some(first) = addresses.first() else { return own };
    if let Ok(socket) = first.parse::<SocketAddr>() {
        return socket.ip();
    }
    let resolved = tokio::net::lookup_host(first.as_str()).await;
    resolved.ok().and_then(|mut found| found.next()).map_or(own, |found| found.ip())
}
