//! What sessions and the local network bring, and what an LSN carries between its children and the master.

use std::time::Duration;

use bytes::Bytes;
use muster_net::NetEvent;
use muster_overlay::Input;
use muster_overlay::intent::Station;
use muster_proto::control::v1::attach_request::Frame;
use muster_proto::control::v1::upstream_item::Body;
use muster_proto::control::v1::{
    Downstream, PresenceReceipt, TrafficClass, Upstream, UpstreamItem, downstream,
};
use muster_proto::payload_type::PRESENCE_RECEIPT;
use muster_proto::trust::v1::Envelope;
use muster_types::NodeId;
use prost::Message;

use crate::driver::overlay::Brought;
use crate::driver::route::Route;
use crate::driver::{Driver, Next};

/// An address event comes before the route exists (measured: facts, spike B): look again after these.
pub(super) const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(2)];

impl Driver {
    pub(super) async fn on_net(&mut self, event: NetEvent) {
        let brought = self.overlay.on_net(&event);
        match brought {
            Brought::Nothing => {}
            Brought::Bundle(bundle) => {
                self.parts.load_bundle(&bundle);
                self.overlay.trust_changed();
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
            // Not our LSN (any more): what counts will be repeated by the right way.
            Brought::Downstream(..) => {}
        }
        if let NetEvent::SessionOpened(session) = &event {
            self.tell_revocations(session.peer(), session.hello().known_revocation);
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
            self.overlay.endpoint().network_changed();
            self.overlay.set_network(network);
            if self.attach_as.is_some() {
                self.want_control();
            }
        }
    }

    /// From a child to the master, unchanged. Without a channel it is dropped: the child keeps it until it is
    /// acknowledged.
    fn carry_up(&mut self, upstream: Upstream) {
        if matches!(self.overlay.station(), Station::IsLsn { .. }) && self.attached {
            self.carry(upstream);
        }
    }

    /// To the master by the own channel: what is urgent now, the rest packed with what others have to say. Usage is added
    /// up on the way.
    pub(super) fn carry(&mut self, mut upstream: Upstream) -> bool {
        for item in upstream.items.extract_if(.., |item| matches!(item.body, Some(Body::Usage(_)))) {
            if let Some(Body::Usage(report)) = item.body {
                self.account.carry(report);
            }
        }
        if upstream.items.is_empty() {
            return true;
        }
        let urgent = match self.overlay.station() {
            Station::IsLsn { .. } => self.spool.take_in(upstream),
            _ => Some(upstream),
        };
        urgent.is_none_or(|urgent| self.control.send(Frame::Upstream(urgent)))
    }

    pub(super) fn on_spool_due(&mut self) -> Next {
        if !self.attached {
            self.spool.clear();
        } else if let Some(frame) = self.spool.pack()
            && !self.control.send(frame)
        {
            tracing::debug!("the channel has no room for the spool; its nodes say it again");
        }
        Next::Go
    }

    /// A minute's counters go to the LSN, or with those of the whole cell to the master.
    pub(super) fn on_account_due(&mut self) -> Next {
        let own = self.usage();
        let Some(report) = self.account.take(own) else { return Next::Go };
        let sent = match &self.route {
            Route::None { .. } => false,
            Route::Direct => self.control.send(Frame::Usage(report.clone())),
            Route::Lsn(lsn) => {
                let body = Some(Body::Usage(report.clone()));
                let items = vec![UpstreamItem { class: TrafficClass::Telemetry.into(), body }];
                let node_id = Bytes::copy_from_slice(self.parts.identity.node.as_bytes());
                self.overlay.send_upstream(*lsn, Upstream { node_id, items })
            }
        };
        if !sent {
            self.account.carry(report);
        }
        Next::Go
    }

    /// From the master to this node and its children.
    pub(super) async fn carry_down(&mut self, downstream: Downstream) {
        let own = self.parts.identity.node;
        let mut targets = downstream.targets.iter().filter_map(|target| NodeId::try_from(&target[..]).ok());
        let (for_us, children): (Vec<_>, Vec<_>) = targets.by_ref().partition(|target| *target == own);
        for child in children {
            let targets = vec![Bytes::copy_from_slice(child.as_bytes())];
            let one = Downstream { targets, body: downstream.body.clone() };
            if !self.overlay.send_downstream(child, one) {
                tracing::debug!(child = %child.short(), "a child is not reached; the master repeats what counts");
            }
        }
        if !for_us.is_empty() {
            self.on_downstream(downstream).await;
        }
    }

    /// Proofs that topology shows them go to the children they are about.
    pub(super) fn pass_receipts(&mut self, receipts: Vec<Envelope>) {
        for sealed in receipts {
            let Ok(receipt) = PresenceReceipt::decode(sealed.payload.clone()) else { continue };
            let Ok(child) = NodeId::try_from(&receipt.node_id[..]) else { continue };
            let targets = vec![receipt.node_id];
            let body = Some(downstream::Body::PresenceReceipt(sealed));
            self.overlay.send_downstream(child, Downstream { targets, body });
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
        match NodeId::try_from(&receipt.lsn_id[..]) {
            Ok(lsn) if own => self.overlay.handle(Input::Receipt { lsn }),
            _ => tracing::debug!("a presence receipt is of another node or life"),
        }
    }
}
