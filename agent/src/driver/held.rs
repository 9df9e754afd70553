//! One identity on several devices: the master holds them all. This one takes no part in the overlay, keeps its own stream
//! to the master, and hears by it whether it is the only one again, or is to become another device.

use std::sync::Arc;

use bytes::Bytes;
use muster_kit::backoff::Backoff;
use muster_kit::shutdown::Shutdown;
use muster_net::CloseCode;
use muster_overlay::message::PartCode;
use muster_proto::control::v1::{Life, NewIdentity};
use muster_proto::payload_type::LIFE;
use muster_proto::trust::v1::Envelope;
use muster_types::EnrollmentLink;
use muster_wire::envelope::sign_ed25519;
use prost::Message;

use crate::config::Config;
use crate::driver::route::Route;
use crate::driver::{Driver, Next, RunError, Then};
use crate::enrollment;
use crate::identity::StateDir;
use crate::journal::Journal;

impl Driver {
    /// A lost device, a revoked one and a held one take no part in the overlay.
    pub(super) fn is_apart(&self) -> bool {
        self.barred || self.held
    }

    pub(super) fn stand_apart(&mut self, why: &str) {
        self.meetings.set_apart(true);
        for session in self.overlay.endpoint().sessions() {
            session.close(CloseCode::NotAdmitted, why);
        }
        self.route = Route::none(why);
        self.attach_as = Some(None);
        self.want_control();
    }

    /// The master's word in its Welcome. Who was held and is no more begins anew: the machine missed too much.
    pub(super) fn on_held(&mut self, held: bool) -> Option<Next> {
        match (std::mem::replace(&mut self.held, held), held) {
            (false, false) => None,
            (true, true) => Some(Next::Go),
            (true, false) => {
                tracing::info!("this device is the only one with its identity again");
                self.then = Then::Again;
                Some(Next::leaving())
            }
            (false, true) => {
                tracing::error!("another device lives under this one's identity: both wait for an operator");
                self.stand_apart("another device has this identity");
                Some(Next::Go)
            }
        }
    }

    /// Topology will say in its Welcome whether it was topology that called.
    pub(super) fn on_summons(&mut self) {
        if !self.is_apart() {
            tracing::warn!("topology wants to see this device itself");
            self.held = true;
            self.stand_apart("called to topology");
        }
    }

    /// From now on this device is nobody until it has enrolled; it does not come back by the old name meanwhile.
    pub(super) fn on_new_identity(&mut self, new: &NewIdentity) -> Next {
        let link = match new.enrollment_link.parse::<EnrollmentLink>() {
            Ok(link) if self.held => link,
            Ok(_) => return Next::Go,
            Err(error) => {
                tracing::error!(%error, "the link to a new identity cannot be read");
                return Next::Go;
            }
        };
        tracing::warn!("an operator decided: this device becomes another one");
        self.attach_as = None;
        self.want_control();
        self.then = Then::Enroll(link);
        Next::Leave {
            code: PartCode::LEAVING,
            description: "it becomes another device".to_owned(),
            told: None,
        }
    }

    /// This start of the agent is running, now.
    pub(super) fn proof_of_life(&self, nonce: u64) -> Envelope {
        let identity = &self.parts.identity;
        let node_id = Bytes::copy_from_slice(identity.node.as_bytes());
        let life = Life { node_id, nonce, boot_nonce: self.presence.boot_nonce() };
        sign_ed25519(LIFE, life.encode_to_vec().into(), &identity.keys.signing())
    }
}

/// Enrolls by the link in the place of the old identity. What was journalled is the other device's to report. If the link is
/// refused for good, this device stays who it was, and is held again.
pub(super) async fn become_another(
    config: &Config,
    link: &EnrollmentLink,
    shutdown: &Shutdown,
) -> Result<(), RunError> {
    let state = StateDir::new(config.state_dir()?);
    let proxies = Arc::new(config.proxies()?);
    Journal::forget_everything(state.path()).await?;
    let mut backoff = Backoff::new();
    loop {
        let error = match enrollment::become_another(link, &state, proxies.clone()).await {
            Ok(identity) => {
                tracing::info!(node = %identity.node, "this device has an identity of its own");
                return Ok(());
            }
            Err(error) => error,
        };
        if error.is_final() {
            tracing::error!(%error, "this device keeps its identity");
            return Ok(());
        }
        tracing::warn!(%error, "not enrolled anew yet; trying again");
        tokio::select! {
            () = shutdown.triggered() => return Ok(()),
            () = tokio::time::sleep(backoff.next_delay(&mut rand::rng())) => {}
        }
    }
}
