//! The relay service: carries sealed packets between nodes that cannot reach each other.
//!
//! A node opens one `session` by gRPC and shows tickets; what it sends, there or by `udp`, goes through the `hall`,
//! where `muster_overlay::relay` decides, to the peer's session. The relay dials nobody, and keeps nothing.

use std::net::UdpSocket;
use std::sync::Arc;

use muster_kit::connect::MasterChannel;
use muster_kit::grpc::{Routes, ServeError};
use muster_kit::listen::Incoming;
use muster_kit::policy::Policy;
use muster_kit::shutdown::Shutdown;
use muster_net::BurstSocket;
use muster_proto::relay::v1::relay_service_server::RelayServiceServer;
use muster_types::Role;

pub mod config;
mod grpc;
mod hall;
pub mod metrics;
mod outbox;
pub mod registration;
mod session;
mod trust;
mod udp;

pub use config::Config;

use grpc::Carrying;
use hall::Hall;
use trust::{SILENCE, Trust};

/// The service's name in logs and metrics.
const NAME: &str = "relay";

const CARRY: &str = "/muster.relay.v1.RelayService/Carry";

/// Why the relay does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the relay's UDP socket: {0}")]
    Socket(#[from] std::io::Error),
    #[error("the pinned roots: {0}")]
    Roots(#[from] muster_wire::trust::TrustError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(
        "auth has not told this relay for {SILENCE:?} who is revoked: no ticket of before counts any more"
    )]
    CutOff,
}

/// Serves until the shutdown; then tells every session, and carries on while they move to another relay. `auth` names
/// the signers of tickets; without `socket` packets go by gRPC alone.
///
/// # Errors
/// The socket cannot be used, the roots cannot be read, auth was not heard for long, or serving failed.
pub async fn run(
    config: Config,
    incoming: Incoming,
    socket: Option<UdpSocket>,
    auth: MasterChannel,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    metrics::describe();
    let trust = Arc::new(Trust::new(config.network, &config.roots, auth)?);
    let socket = socket.map(BurstSocket::new).transpose()?.map(Arc::new);
    let hall = Arc::new(Hall::new(config.limits, socket.clone()));
    if let Some(socket) = socket {
        shutdown.spawn(udp::run(hall.clone(), socket, shutdown.clone()));
    }
    shutdown.spawn(hall::tend(hall.clone(), shutdown.clone()));
    shutdown.spawn(trust.clone().follow(hall.clone(), shutdown.clone()));
    let admitted = trust.clone();
    let policy = policy().welcoming(move |_, peer| admitted.admits(peer));
    let followed = trust.clone();
    let carrying = Carrying::new(hall, trust, config.name, shutdown.clone());
    let routes = Routes::new().with(RelayServiceServer::new(carrying));
    let serving = muster_kit::grpc::serve(NAME, routes, incoming, policy, shutdown);
    tokio::select! {
        served = serving => Ok(served?),
        () = followed.cut_off() => Err(RunError::CutOff),
    }
}

/// Nodes carry, and nobody does anything else.
pub fn policy() -> Policy {
    Policy::new().roles(CARRY, &[Role::Node])
}
