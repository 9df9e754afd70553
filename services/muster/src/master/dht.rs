//! Starts dht-bootstrap, in the process of auth or elsewhere.

use muster_dht_bootstrap::{Config, StoreConfig};
use muster_kit::connect::DHT_BOOTSTRAP;
use muster_kit::listen::Listener;
use muster_kit::shutdown::Shutdown;
use tokio::task::JoinSet;

use super::reached::Reached;
use super::{Ended, Trust};
use crate::config::MasterConfig;
use crate::exit::Failure;

const NAME: &str = "dht-bootstrap";

pub(super) async fn start(
    config: &MasterConfig,
    trust: &Trust,
    reached: Reached<'_>,
    listener: &mut Listener,
    services: &mut JoinSet<Ended>,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let (tls, auth) = reached.admitted(config, NAME, shutdown).await?;
    let store = match &config.database_url {
        Some(url) => StoreConfig::Postgres(url.clone()),
        None => StoreConfig::Sqlite(config.data_dir.join("dht-bootstrap.db")),
    };
    let address = reached.public_address().await;
    let bootstrap = Config::new(store, trust.network, trust.roots.clone(), address);
    let (incoming, ended) = (listener.service(DHT_BOOTSTRAP, tls.server), shutdown.clone());
    services.spawn(async move {
        let served = muster_dht_bootstrap::run(bootstrap, incoming, auth, ended).await;
        served.map_err(|error| Failure::internal("dht-bootstrap ended", error))
    });
    Ok(())
}
