//! From a link to an identity, and from one certificate to the next.
//!
//! link -> keys made and kept -> TLS verified by the root's key in the link -> Enroll -> everything verified -> one
//! file written. Until that write nothing is enrolled; after it everything is.

mod error;
pub mod renewal;

use std::sync::Arc;
use std::time::Instant;

use muster_kit::backoff::Backoff;
use muster_kit::clock::{self, MasterClock};
use muster_kit::connect::{AUTH, Master, Proxies};
use muster_kit::tls::ClientTls;
use muster_kit::{crash, status};
use muster_proto::auth::v1::enrollment_service_client::EnrollmentServiceClient;
use muster_proto::auth::v1::{EnrollRequest, EnrollResponse};
use muster_types::{EnrollmentLink, Timestamp};
use muster_wire::OperatorPolicy;
use muster_wire::time::from_wire;
use tonic::Status;

pub use error::EnrollError;

use crate::identity::{Identity, StateDir};
use crate::inventory;

/// How often a master that asks to be tried again is, before whoever enrolls this device is told.
const RETURNS: u32 = 20;

/// Redeems a link and keeps the identity in `state`.
///
/// # Errors
/// What stands in the way, with what to do about it. Nothing half-written stays behind.
pub async fn enroll(
    link: &EnrollmentLink,
    state: &StateDir,
    proxies: Arc<Proxies>,
) -> Result<Identity, EnrollError> {
    if state.is_enrolled() {
        let by = state.identity().map(|identity| identity.node.to_string()).unwrap_or_default();
        return Err(EnrollError::AlreadyEnrolled { node: by, state: state.path().to_owned() });
    }
    let Redeemed { identity, master_time, asked } = redeemed(link, state, proxies).await?;
    if let Some(policy) = &identity.credentials.operator_policy {
        OperatorPolicy::pin(policy, identity.network)
            .map_err(|error| EnrollError::Internal(error.to_string()))?;
        state.keep_operator_policy(policy)?;
    }
    keep(&identity, state, master_time, asked)?;
    crash::point("enroll.kept");
    Ok(identity)
}

/// Becomes another device of the same network: the next start is another node's, with keys of its own. What the operators
/// pinned stays pinned.
///
/// # Errors
/// As [`enroll`]; the link may be another network's. The identity is as it was.
pub async fn become_another(
    link: &EnrollmentLink,
    state: &StateDir,
    proxies: Arc<Proxies>,
) -> Result<Identity, EnrollError> {
    let network = state.identity()?.network;
    let Redeemed { identity, master_time, asked } = redeemed(link, state, proxies).await?;
    if identity.network != network {
        return Err(EnrollError::Refused(format!("the link is of network {}", identity.network)));
    }
    keep(&identity, state, master_time, asked)?;
    Ok(identity)
}

/// An identity that is not kept yet.
struct Redeemed {
    identity: Identity,
    master_time: Timestamp,
    asked: Instant,
}

async fn redeemed(
    link: &EnrollmentLink,
    state: &StateDir,
    proxies: Arc<Proxies>,
) -> Result<Redeemed, EnrollError> {
    let keys = state.enrolling(link)?.keys;
    crash::point("enroll.keys");
    let tls =
        ClientTls::trusting(&link.root_key).map_err(|error| EnrollError::Internal(error.to_string()))?;
    let master = Master::new([link.address.clone()], tls).through(proxies.clone());
    let request = keys.certificate_request().map_err(|error| EnrollError::Internal(error.to_string()))?;
    let request = EnrollRequest {
        token: link.token.reveal(),
        node_keys: Some(keys.node_keys(&request)),
        certificate_request: request,
        host_name: inventory::host_name(),
        software_version: env!("CARGO_PKG_VERSION").to_owned(),
        hardware_serial: inventory::hardware_serial(),
    };
    let asked = Instant::now();
    let answer = match redeem(&master, request).await {
        Ok(answer) => answer,
        Err(status) => {
            let error = EnrollError::of(&status, link, &proxies).await;
            if error.is_final() {
                state.forget_enrolling()?;
            }
            return Err(error);
        }
    };
    crash::point("enroll.answered");
    let credentials =
        answer.credentials.ok_or_else(|| EnrollError::Internal("no credentials came".to_owned()))?;
    let master_time = credentials.master_time.and_then(from_wire).unwrap_or_else(clock::wall);
    let identity = Identity::verified(keys, credentials, link.root_key, link.address.clone(), master_time)?;
    Ok(Redeemed { identity, master_time, asked })
}

/// A master that has more callers than it admits names a time: a roll-out to a whole fleet waits its turn.
async fn redeem(master: &Master, request: EnrollRequest) -> Result<EnrollResponse, Status> {
    let mut auth = EnrollmentServiceClient::new(master.service(AUTH));
    let mut returns = 0;
    loop {
        let status = match auth.enroll(request.clone()).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => status,
        };
        let Some(asked) = status::retry_after(&status).filter(|_| returns < RETURNS) else {
            return Err(status);
        };
        returns += 1;
        let delay = Backoff::new().delay_after(Some(asked), &mut rand::rng());
        tracing::warn!(?delay, "the master has more callers than it admits now; trying again");
        tokio::time::sleep(delay).await;
    }
}

/// The clock first: it may be lost, while the identity is what says that all is well.
fn keep(
    identity: &Identity,
    state: &StateDir,
    master_time: Timestamp,
    asked: Instant,
) -> Result<(), EnrollError> {
    let clock = MasterClock::from_offset_micros(0);
    clock.learn(master_time, asked.elapsed());
    let mut learned = state.learned();
    learned.clock_offset_micros = clock.offset_micros();
    state.keep_learned(&learned)?;
    Ok(state.keep_identity(identity)?)
}

/// The TLS of an enrolled device.
///
/// # Errors
/// Its certificate and key do not fit.
pub fn client_tls(identity: &Identity) -> Result<Arc<ClientTls>, muster_kit::tls::TlsError> {
    ClientTls::new(identity.material())
}
