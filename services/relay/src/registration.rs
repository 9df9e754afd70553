//! Keeps telling the registry of super nodes that this relay is there, and when it ends.

use std::time::Duration;

use muster_kit::connect::MasterChannel;
use muster_kit::shutdown::Shutdown;
use muster_proto::gsn::v1::registry_service_client::RegistryServiceClient;
use muster_proto::gsn::v1::{RegisterRelayRequest, Relay, RelayAddress};

/// Three of these fit into a lease.
const INTERVAL: Duration = Duration::from_secs(5);

/// The last word, that it ends, waits no longer than this for the registry.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where a relay is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub host: String,
    pub tcp_port: u16,
    pub udp_port: Option<u16>,
}

/// A replica of the relay service, as tickets name it and nodes find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    pub name: String,
    pub places: Vec<Place>,
}

impl Registration {
    fn request(&self, draining: bool) -> RegisterRelayRequest {
        let address = |place: &Place| RelayAddress {
            host: place.host.clone(),
            tcp_port: place.tcp_port.into(),
            udp_port: place.udp_port.map_or(0, u32::from),
        };
        let addresses = self.places.iter().map(address).collect();
        let relay = Relay { name: self.name.clone(), addresses, draining, load_percent: 0 };
        RegisterRelayRequest { relay: Some(relay) }
    }
}

/// Until the shutdown; then says once that the relay drains.
pub async fn keep(registry: MasterChannel, registration: Registration, shutdown: Shutdown) {
    let mut registry = RegistryServiceClient::new(registry);
    let mut due = tokio::time::interval(INTERVAL);
    let mut listed = false;
    loop {
        let tell = async {
            due.tick().await;
            registry.register_relay(registration.request(false)).await
        };
        let told = tokio::select! {
            () = shutdown.triggered() => break,
            told = tell => told,
        };
        match (&told, listed) {
            (Ok(_), true) => {}
            (Ok(_), false) => tracing::info!(relay = registration.name, "the relay is listed"),
            (Err(status), true) => {
                tracing::warn!(
                    error = status.message(),
                    "the registry does not hear that the relay is there"
                );
            }
            (Err(status), false) => {
                tracing::debug!(error = status.message(), "the registry does not answer yet");
            }
        }
        listed = told.is_ok();
    }
    let farewell = registry.register_relay(registration.request(true));
    if let Ok(Err(status)) = tokio::time::timeout(FAREWELL, farewell).await {
        tracing::debug!(error = status.message(), "the registry is gone before the relay");
    }
}
