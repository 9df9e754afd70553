//! What every service takes to start: the network that it belongs to, a certificate, the way to auth, a place at the
//! listener and among those that the master waits for.

use std::collections::BTreeSet;
use std::future::Future;

use muster_auth::bootstrap::ServiceTls;
use muster_kit::connect::{self, AUTH, MasterChannel};
use muster_kit::database::StoreConfig;
use muster_kit::listen::{Incoming, Listener};
use muster_kit::observe::Pages;
use muster_kit::shutdown::Shutdown;
use tokio::task::JoinSet;

use super::reached::Reached;
use super::{Ended, Trust, dht, gsn, join_elsewhere, relay, service_tls, topology};
use crate::config::MasterConfig;
use crate::exit::Failure;
use crate::target::Target;

pub(super) struct Post<'a> {
    pub(super) config: &'a MasterConfig,
    pub(super) trust: &'a Trust,
    pub(super) reached: Reached<'a>,
    /// Who joined an auth elsewhere already, to learn whom to believe.
    pub(super) joined: Option<(Target, ServiceTls)>,
    pub(super) listener: &'a mut Listener,
    pub(super) services: &'a mut JoinSet<Ended>,
    pub(super) shutdown: &'a Shutdown,
}

impl Post<'_> {
    /// Starts every target but auth, which the others need at their start.
    pub(super) async fn start(&mut self, targets: &BTreeSet<Target>, pages: Pages) -> Result<(), Failure> {
        if targets.contains(&Target::Topology) {
            topology::start(self, pages).await?;
        }
        if targets.contains(&Target::DhtBootstrap) {
            dht::start(self).await?;
        }
        if targets.contains(&Target::GsnRegistry) {
            gsn::start(self).await?;
        }
        if targets.contains(&Target::Relay) {
            relay::start(self).await?;
        }
        Ok(())
    }

    /// A certificate for the service, and a channel to auth.
    pub(super) async fn admitted(&self, target: Target) -> Result<(ServiceTls, MasterChannel), Failure> {
        let name = target.as_str();
        let tls = match (self.reached.auth, &self.joined) {
            (Some(auth), _) => service_tls(auth, name, self.shutdown).await?,
            (None, Some((joined, tls))) if *joined == target => tls.clone(),
            (None, _) => join_elsewhere(self.config, name, self.shutdown).await?.1,
        };
        let address = self.reached.auth_address(self.config, name)?;
        let auth = connect::Master::new([address], tls.client.clone()).service(AUTH);
        Ok((tls, auth))
    }

    pub(super) fn store(&self, target: Target) -> StoreConfig {
        StoreConfig::of(self.config.database_url.as_deref(), &self.config.data_dir, target.as_str())
    }

    /// Connections that ask for `name`.
    pub(super) fn incoming(&mut self, name: &str, tls: ServiceTls) -> Incoming {
        self.listener.service(name, tls.server)
    }

    /// Runs it among the others; its end is theirs.
    pub(super) fn spawn<E>(
        &mut self,
        target: Target,
        serving: impl Future<Output = Result<(), E>> + Send + 'static,
    ) where
        E: std::error::Error + Send + 'static,
    {
        self.services.spawn(async move {
            serving.await.map_err(|error| Failure::internal(format!("{} ended", target.as_str()), error))
        });
    }
}
