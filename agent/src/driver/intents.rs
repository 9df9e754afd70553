//! What the overlay's machine wants, done: the one place where its intents are matched.

use muster_net::CloseCode;
use muster_overlay::intent::{Disconnection, LossReason, Station, Update};
use muster_overlay::message::Part;
use muster_overlay::{Claim, Intent};
use muster_proto::control::v1::attach_request::Frame;
use muster_proto::control::v1::{self, DisconnectionReason, FindLsnsRequest};
use muster_types::{Contact, NodeId};

use crate::driver::{Done, Driver};

impl Driver {
    /// Does what the machine wants until it wants nothing more.
    pub(super) async fn act(&mut self) {
        if let Some(slept) = self.overlay.take_sleep() {
            self.on_woke_up(slept);
        }
        while let Some(intent) = self.overlay.next_intent() {
            // Who stands apart takes no part in the overlay; it may still say goodbye.
            if !self.is_apart() || matches!(intent, Intent::PartMaster(_)) {
                self.do_intent(intent);
            }
        }
        self.choose_route().await;
    }

    fn do_intent(&mut self, intent: Intent) {
        match intent {
            Intent::Open(contact) => {
                let done = self.parts.done.clone();
                self.overlay.connect(contact, move |peer| {
                    tokio::spawn(async move { done.send(Done::NotReached(peer)).await });
                });
            }
            Intent::Probe(contact) => self.overlay.probe(contact),
            Intent::Knock(contact) => self.knock(contact),
            Intent::Close(peer) => {
                if let Some(session) = self.overlay.endpoint().session(peer) {
                    session.close(CloseCode::Done, "no longer needed");
                }
            }
            Intent::Send { to, message } => {
                self.overlay.send(to, &message, self.parts.bundle.as_ref());
            }
            Intent::SendBeat { to, beat } => self.overlay.send_beat(to, &beat),
            Intent::Multicast(discovery) => self.overlay.multicast(&discovery),
            Intent::Answer { to, discovery } => self.overlay.answer(to, &discovery),
            Intent::Recall => self.recall(),
            Intent::AskMaster => self.ask_for_lsns(),
            Intent::AttachMaster(claim) => self.attach_master(claim),
            Intent::DetachMaster => self.detach_master(),
            Intent::PartMaster(part) => self.part_master(part),
            Intent::Update(update) => self.update_master(&update),
            Intent::Remember(claim) => self.remember(&claim),
            Intent::Changed(station) => self.on_station(&station),
            Intent::Disconnected(disconnection) => self.on_disconnection(disconnection),
        }
    }

    fn knock(&self, contact: Contact) {
        let (endpoint, done) = (self.overlay.endpoint().clone(), self.parts.done.clone());
        tokio::spawn(async move {
            let answered = endpoint.knock(&contact).await;
            tracing::debug!(peer = %contact.node.short(), answered, "knocked");
            // The loop may have ended.
            let _ = done.send(Done::Knocked { peer: contact.node, answered }).await;
        });
    }

    fn attach_master(&mut self, claim: Option<Claim>) {
        let sealed = claim.as_ref().and_then(|claim| self.overlay.sealed_claim(claim));
        self.attach_as = Some(sealed);
        self.want_control();
    }

    fn detach_master(&mut self) {
        self.attach_as = None;
        self.want_control();
    }

    /// The channel as the machine last wanted it, with the Hello of this moment.
    pub(super) fn want_control(&mut self) {
        let hello = self.attach_as.clone().map(|claim| {
            let mut hello = self.presence.hello(&self.parts.identity);
            hello.claim = claim;
            hello
        });
        if self.control.want(hello) {
            self.attached = false;
        }
    }

    fn part_master(&mut self, part: Part) {
        self.farewell =
            v1::Part { code: part.code.0.into(), description: part.description, retry_after: None };
    }

    fn update_master(&mut self, update: &Update) {
        let update = self.presence.update_to_wire(update, &self.overlay);
        if !self.control.send(Frame::Update(update)) {
            tracing::warn!("the control channel is full; it begins anew");
            self.control.restart();
            self.attached = false;
        }
    }

    fn recall(&mut self) {
        let kept = self.parts.learned.claims_of(&self.presence.place());
        let mut claims = self.overlay.believed(&kept);
        let credentials = &self.parts.identity.credentials;
        let told = self.overlay.believed(&credentials.contacts);
        let here = self.presence.surroundings(&credentials.observed_ip);
        claims.extend(here.neighbors(told));
        self.overlay.handle(muster_overlay::Input::Recalled(claims));
    }

    fn remember(&mut self, claim: &Claim) {
        if let Some(sealed) = self.overlay.sealed_claim(claim) {
            self.parts.learned.remember_claim(&self.presence.place(), &sealed);
            self.parts.keep_learned();
        }
    }

    fn ask_for_lsns(&self) {
        let (client, done) = (self.parts.client.clone(), self.parts.done.clone());
        let hello = self.presence.hello(&self.parts.identity);
        tokio::spawn(async move {
            let request = FindLsnsRequest { subnet_keys: hello.subnet_keys, prefixes: hello.prefixes };
            let found = client.find_lsns(request).await.map_err(|status| status.to_string());
            // The loop may have ended.
            let _ = done.send(Done::Lsns(found)).await;
        });
    }

    fn on_station(&mut self, station: &Station) {
        tracing::info!(?station, "this node's place in the network changed");
        self.history.changed();
        self.look_at_table();
        self.table.sample(self.parts.done.clone());
    }

    fn on_disconnection(&mut self, disconnection: Disconnection) {
        let reason = match disconnection.reason {
            LossReason::LsnLost => DisconnectionReason::LsnLost,
            LossReason::LsnParted => DisconnectionReason::LsnParted,
            LossReason::NetworkLost => DisconnectionReason::NetworkLost,
            LossReason::NetworkChanged => DisconnectionReason::NetworkChanged,
            LossReason::Slept => DisconnectionReason::Slept,
            LossReason::Stalled => DisconnectionReason::Stalled,
        };
        let ago = self.overlay.now().since(disconnection.began);
        let report = self.history.report(&mut self.parts, ago, disconnection.lasted, reason, "");
        self.keep(report);
    }

    /// Whether `node` is where this node's word goes to and the master's comes from.
    pub(super) fn is_own_lsn(&self, node: NodeId) -> bool {
        matches!(self.overlay.station(), Station::HasLsn { lsn, .. } if lsn == node)
    }
}
