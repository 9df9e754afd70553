//! What sessions and the local network bring.

use std::time::Duration;

use muster_net::NetEvent;
use muster_overlay::Input;
use muster_proto::control::v1::{Downstream, PresenceReceipt, downstream};
use muster_proto::payload_type::PRESENCE_RECEIPT;
use muster_proto::trust::v1::Envelope;
use muster_types::NodeId;
use prost::Message;

use crate::donation::Command;
use crate::driver::Driver;
use crate::driver::downstream::FRESH_WORD;
use crate::driver::overlay::Brought;

/// An address event comes before the route exists (measured: facts, spike B): look again after these.
pub(super) const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(2)];

impl Driver {
    pub(super) async fn on_net(&mut self, event: NetEvent) {
        self.tell_meetings(&event).await;
        let brought = self.overlay.on_net(&event);
        match brought {
            Brought::Nothing => {}
            Brought::Bundle(bundle) => {
                self.on_trust(&bundle);
                if let NetEvent::Message { from, bytes } = &event {
                    self.overlay.read(from, bytes);
                }
            }
            Brought::Upstream(upstream) => self.carry_up(upstream),
            // Whoever brings it: it proves itself.
            Brought::Downstream(from, Downstream { body: Some(downstream::Body::Revocations(list)), .. }) => {
                self.on_revocations(&[list], Some(from));
            }
            Brought::Downstream(from, downstream) if self.is_own_lsn(from) => {
                self.on_downstream(downstream).await;
            }
            Brought::CarryRequest(from, asked) => self.relay_for(Command::Asked(from, asked)),
            Brought::CarryResponse(from, answer) => self.relays.answered(from, answer),
            Brought::Word(from, word) => self.post.carried(self.origin(from), word),
            // Not our LSN (any more): what counts will be repeated by the right way.
            Brought::Downstream(..) => {}
        }
        if let NetEvent::SessionOpened(session) = &event {
            self.tell_revocations(session.peer(), session.hello().known_revocation);
            self.post.met(session.peer());
        }
        if let NetEvent::SessionClosed { peer, .. } = &event {
            self.relay_for(Command::Closed(*peer));
        }
        if let (NetEvent::Reached { from, token }, Some(volunteer)) = (&event, &self.volunteer) {
            volunteer.probed(*from, *token);
        }
        if matches!(event, NetEvent::NetworkChanged) {
            self.look_at_network();
            self.look_again.extend(LOOK_AGAIN.map(|pause| tokio::time::Instant::now() + pause));
        }
        self.act().await;
    }

    /// Tells the machine how the host's network is now.
    pub(super) fn look_at_network(&mut self) {
        let port = self.overlay.endpoint().port();
        if let Some(network) = self.presence.look(port) {
            self.overlay.endpoint().enter_network(&self.presence.place());
            self.overlay.endpoint().network_changed();
            self.table.network_changed();
            self.overlay.set_network(network);
            self.offer_addresses();
            self.tell_addresses();
            if self.attach_as.is_some() {
                self.want_control();
            }
        }
    }

    /// Topology's word that it shows this node, in this life, under that LSN.
    pub(super) fn on_receipt(&mut self, sealed: &Envelope) {
        let opened = self.parts.trust.load().open(sealed, PRESENCE_RECEIPT);
        let receipt = opened.ok().and_then(|payload| PresenceReceipt::decode(payload).ok());
        let Some(receipt) = receipt else {
            return tracing::warn!("a presence receipt is not believed");
        };
        let own = receipt.node_id == self.parts.identity.node.as_bytes()
            && receipt.boot_nonce == self.presence.boot_nonce();
        let now = self.parts.clock.now();
        let received = receipt.receipt_time.and_then(muster_wire::time::from_wire);
        let fresh = received.is_some_and(|at| now.since(at) < FRESH_WORD);
        match NodeId::try_from(&receipt.lsn_id[..]) {
            Ok(lsn) if own && fresh => self.overlay.handle(Input::Receipt { lsn }),
            Ok(_) if own => tracing::warn!(?received, "a presence receipt is too old to be believed"),
            _ => tracing::debug!("a presence receipt is of another node or life"),
        }
    }
}
