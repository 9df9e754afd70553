//! Starts gsn-registry, in the process of auth or elsewhere.

use muster_gsn_registry::{Config, StoreConfig};
use muster_kit::connect::GSN_REGISTRY;
use muster_kit::listen::Listener;
use muster_kit::shutdown::Shutdown;
use tokio::task::JoinSet;

use super::reached::Reached;
use super::{Ended, Trust};
use crate::config::MasterConfig;
use crate::exit::Failure;

const NAME: &str = "gsn-registry";

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
        None => StoreConfig::Sqlite(config.data_dir.join("gsn-registry.db")),
    };
    let registry = Config {
        probe_from: config.probe_from.clone(),
        source_visible: !config.behind_proxy,
        ..Config::new(store, trust.network, trust.roots.clone())
    };
    let (incoming, ended) = (listener.service(GSN_REGISTRY, tls.server), shutdown.clone());
    services.spawn(async move {
        let served = muster_gsn_registry::run(registry, incoming, auth, ended).await;
        served.map_err(|error| Failure::internal("gsn-registry ended", error))
    });
    Ok(())
}
