//! Where auth is, and where this master is reached: in this process, or by the link that auth left for it elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use muster_auth::{Auth, config as auth_files};
use muster_types::EnrollmentLink;

use crate::config::{self, MasterConfig};
use crate::exit::Failure;

/// How others are reached from here, and this master from elsewhere.
#[derive(Clone, Copy)]
pub(super) struct Reached<'a> {
    pub(super) auth: Option<&'a Arc<Auth>>,
    pub(super) local: &'a str,
    pub(super) addresses: &'a [String],
}

impl Reached<'_> {
    /// Where auth is, for the service of that name.
    pub(super) fn auth_address(&self, config: &MasterConfig, name: &str) -> Result<String, Failure> {
        if self.auth.is_some() {
            return Ok(self.local.to_owned());
        }
        if let Some(address) = &config.auth_address {
            return Ok(address.clone());
        }
        let file = auth_files::join_file(&config.data_dir, name);
        let link = std::fs::read_to_string(&file).ok().and_then(|text| text.parse().ok());
        link.map(|link: EnrollmentLink| link.address).ok_or_else(|| {
            Failure::usage("auth is nowhere to be found", format!("{} holds no link", file.display()))
                .next("add --auth-address HOST:PORT")
        })
    }

    /// The address of the master's first name, which devices reach; this host's own if that is no use.
    pub(super) async fn public_address(&self) -> IpAddr {
        let own = config::own_address();
        let Some(first) = self.addresses.first() else { return own };
        if let Ok(socket) = first.parse::<SocketAddr>() {
            return socket.ip();
        }
        let resolved = tokio::net::lookup_host(first.as_str()).await;
        resolved.ok().and_then(|mut found| found.next()).map_or(own, |found| found.ip())
    }
}
