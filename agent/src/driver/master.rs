//! The control channel's side of the loop: what the master says, and the certificate it renews.

use std::time::Duration;

use bytes::Bytes;
use muster_kit::backoff::Backoff;
use muster_overlay::Input;
use muster_proto::control::v1::attach_response::Frame;
use muster_proto::control::v1::{FindLsnsResponse, Welcome};
use muster_proto::trust::v1::TrustBundle;
use tokio::time::Instant;

use crate::control;
use crate::driver::{Done, Driver, Next};
use crate::enrollment::renewal::{self, RenewalError};
use crate::identity::Identity;
use crate::journal::TaskKey;

/// Renewal is looked at this often at least: the host may have slept.
const RENEWAL_CHECK: Duration = Duration::from_secs(3600);

/// When a key is withdrawn a whole fleet wants new tickets: 30,000 in this time are the 500 a second that auth makes on a core.
/// Whoever comes too late tries again as after any renewal that failed.
const TICKET_JITTER: Duration = Duration::from_secs(60);

impl Driver {
    pub(super) async fn on_control(&mut self, event: control::Event) -> Next {
        let mut next = Next::Go;
        match event {
            control::Event::Up(welcome) => next = self.on_welcome(*welcome),
            control::Event::Frame(frame) => next = self.on_frame(*frame).await,
            control::Event::Down(reason) => {
                tracing::warn!(reason, "the master is lost");
                self.attached = false;
                self.unreached.clone_from(&reason);
                self.history.lost_master(&reason);
                self.overlay.handle(Input::MasterDetached { reason });
            }
            control::Event::Failed(reason) => self.on_unreached(reason),
            control::Event::Stale(reason) => {
                self.want_ticket();
                self.on_unreached(reason);
            }
            control::Event::Barred(reason) => {
                self.on_revoked();
                self.on_unreached(reason);
            }
        }
        self.act().await;
        next
    }

    fn on_unreached(&mut self, reason: String) {
        tracing::info!(reason, "the master is not reached; trying again");
        self.attached = false;
        self.unreached.clone_from(&reason);
        self.overlay.handle(Input::MasterDetached { reason });
    }

    fn on_welcome(&mut self, welcome: Welcome) -> Next {
        tracing::info!("attached to the master");
        self.attached = true;
        let before = self.parts.trust.load().revocations().number();
        if let Some(bundle) = &welcome.trust_bundle {
            self.on_trust(bundle);
        }
        if self.parts.trust.load().revocations().number() < before {
            // What this Welcome tells follows what is not believed any more.
            self.control.restart();
            return Next::Go;
        }
        if let Some(policy) = &welcome.operator_policy {
            self.parts.on_operator_policy(policy);
        }
        self.on_revocations(&welcome.revocations, None);
        if let Some(next) = self.on_held(welcome.held) {
            return next;
        }
        if self.barred {
            self.look_for_oneself();
            return Next::Go;
        }
        if let Some(uptime) = &welcome.uptime {
            self.on_uptime(uptime);
        }
        if let Ok(version) = welcome.minimum_software_version.parse() {
            self.overlay.handle(Input::MinimumVersion(version));
        }
        self.on_subnet_keys(welcome.subnet_keys);
        for claim in self
            .overlay
            .believed(&welcome.rivals.into_iter().filter_map(|rival| rival.claim).collect::<Vec<_>>())
        {
            self.overlay.handle(Input::Rival(claim));
        }
        self.overlay
            .handle(Input::MasterAttached { known_update: welcome.known_update, resync: welcome.resync });
        self.parts.learned.master_addresses = self.parts.client.addresses.cached();
        self.parts.keep_learned();
        self.meet_table();
        if let Some(report) = self.history.found_again(&mut self.parts) {
            self.keep(report);
        }
        Next::Go
    }

    async fn on_frame(&mut self, frame: Frame) -> Next {
        match frame {
            Frame::Downstream(downstream) => self.carry_down(downstream).await,
            Frame::UpdateAck(ack) => {
                self.overlay.handle(Input::UpdateAcknowledged { number: ack.number });
                self.pass_receipts(ack.receipts);
            }
            Frame::Rival(rival) => {
                for claim in self.overlay.believed(&rival.claim.into_iter().collect::<Vec<_>>()) {
                    self.overlay.handle(Input::Rival(claim));
                }
            }
            // Nothing that this agent sends is bulk yet; the pacer takes the grant all the same.
            Frame::RateGrant(grant) => self.on_rate_grant(&grant),
            Frame::NewIdentity(new) => return self.on_new_identity(&new),
            // The session's own.
            Frame::Welcome(_) | Frame::Heartbeat(_) | Frame::Part(_) => {}
        }
        Next::Go
    }

    /// What the master calls this host's subnets; remembered for the day that it is away.
    fn on_subnet_keys(&mut self, keys: Vec<Bytes>) {
        if keys.is_empty() {
            return;
        }
        self.overlay.set_subnet_keys(&keys);
        if self.parts.learned.remember_keys(&self.presence.place(), &keys) {
            self.parts.keep_learned();
        }
        self.presence.keys_by_master(keys);
    }

    fn on_rate_grant(&self, grant: &muster_proto::control::v1::RateGrant) {
        let class = u8::try_from(grant.class).ok().and_then(muster_net::TrafficClass::from_number);
        let valid = grant.valid_for.and_then(muster_wire::time::span_from_wire);
        if let (Some(class), Some(valid)) = (class, valid) {
            self.overlay.endpoint().pacer().grant(class, grant.bytes_per_second, valid);
        }
    }

    pub(super) fn on_lsns(&mut self, found: Result<FindLsnsResponse, String>) {
        match found {
            Ok(found) => {
                self.on_subnet_keys(found.subnet_keys);
                let claims = self.overlay.believed(&found.claims);
                self.overlay.handle(Input::MasterAnswered(Some(claims)));
            }
            Err(reason) => {
                tracing::info!(reason, "topology cannot be asked for LSNs");
                self.unreached = reason;
                // Its answer stands for the master's.
                self.ask_table_for_lsns();
                self.ask_table_for_revocations();
            }
        }
    }

    /// Of a node whose journal was lost: what was begun here, asked until it is known.
    pub(super) fn ask_for_own_tasks(&self) {
        let (client, done) = (self.parts.client.clone(), self.parts.done.clone());
        tokio::spawn(async move {
            let mut backoff = Backoff::new();
            let tasks = loop {
                match client.own_tasks().await {
                    Ok(tasks) => break tasks,
                    Err(status) if done.is_closed() => return tracing::debug!(%status, "nobody waits for it"),
                    Err(status) => {
                        let delay = backoff.next_delay(&mut rand::rng());
                        tracing::warn!(%status, "the master does not say what was begun here; tasks wait");
                        tokio::time::sleep(delay).await;
                    }
                }
            };
            let known =
                |task: control::OwnTask| Some((TaskKey::new(&task.task_id, &task.occurrence)?, task.state));
            // The loop may have ended.
            let _ = done.send(Done::OwnTasks(tasks.into_iter().filter_map(known).collect())).await;
        });
    }

    pub(super) fn until_renewal(&self) -> Duration {
        let now = self.parts.clock.now();
        let wait = |validity| renewal::wait(validity, self.parts.identity.node, now);
        self.parts.identity.validity().map_or(RENEWAL_CHECK, wait).min(RENEWAL_CHECK)
    }

    /// At the start: a fleet that starts at once does not renew at once.
    pub(super) fn until_first_renewal(&self) -> Duration {
        let (now, node) = (self.parts.clock.now(), self.parts.identity.node);
        let validity = self.parts.identity.validity();
        let first = |validity| renewal::first(validity, node, now, rand::random());
        validity.map_or(RENEWAL_CHECK, first).min(RENEWAL_CHECK)
    }

    pub(super) fn on_renewal_due(&mut self, renewal: &mut Instant) -> Next {
        *renewal = Instant::now() + RENEWAL_CHECK;
        let (now, identity) = (self.parts.clock.now(), self.parts.identity.clone());
        let old =
            identity.validity().is_ok_and(|validity| renewal::wait(validity, identity.node, now).is_zero());
        if old || self.stale.take_if(|due| *due <= Instant::now()).is_some() {
            let (clock, done) = (self.parts.clock.clone(), self.parts.done.clone());
            let client = self.parts.client.clone();
            tokio::spawn(async move {
                let addresses = client.addresses.current().await;
                let master = |tls| client.at(addresses, tls);
                let renewed = renewal::renew(&identity, master, &clock).await;
                // The loop may have ended.
                let _ = done.send(Done::Renewed(Box::new(renewed))).await;
            });
        }
        Next::Go
    }

    /// Answers when renewal is to be looked at next.
    pub(super) fn on_renewed(&mut self, renewed: Result<Identity, RenewalError>) -> Duration {
        let identity = match renewed {
            Ok(identity) => identity,
            Err(error) => {
                tracing::warn!(%error, "the certificate is not renewed; trying again");
                return self.renewal_failed();
            }
        };
        if let Err(error) = self.parts.adopt(&identity) {
            tracing::error!(%error, "the renewed certificate cannot be kept");
            return self.renewal_failed();
        }
        self.overlay.renewed(&self.parts, &self.presence);
        self.table.renewed(&self.parts, self.presence.boot_nonce());
        self.renew_meetings();
        if let (Some(volunteer), Ok(ticket)) = (&self.volunteer, self.parts.identity.ticket()) {
            volunteer.renew(ticket.clone());
        }
        tracing::info!("the certificate is renewed");
        if !self.attached {
            // The Hello that is tried has the ticket of before.
            self.want_control();
        }
        self.until_renewal()
    }

    fn renewal_failed(&mut self) -> Duration {
        let retry = renewal::retry(rand::random());
        if !self.parts.ticket_counts() {
            self.stale = Some(Instant::now() + retry);
        }
        retry
    }

    /// Whose signatures count from now on. A ticket by a key that was withdrawn is soon exchanged.
    pub(super) fn on_trust(&mut self, bundle: &TrustBundle) {
        self.parts.load_bundle(bundle);
        self.overlay.revocations_changed(&self.presence);
        if !self.parts.ticket_counts() {
            self.want_ticket();
        }
    }

    /// Fetches a new ticket with a new certificate, at a moment of its own: others need one too.
    fn want_ticket(&mut self) {
        let jitter = TICKET_JITTER.mul_f64(rand::random());
        self.stale.get_or_insert_with(|| Instant::now() + jitter);
    }
}
