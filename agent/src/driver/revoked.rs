//! Who is not admitted any more. Increments come from the master, from an LSN, from any node that is ahead, and with the
//! master away from the hash table; they prove themselves, take hold at once, are kept, and go on to every peer. A list
//! that names this device ends its work.

use std::slice;
use std::time::Duration;

use bytes::Bytes;
use muster_overlay::Input;
use muster_proto::control::v1::{Downstream, TrafficClass, UpstreamItem, downstream, upstream_item};
use muster_proto::trust::v1::Envelope;
use muster_types::NodeId;
use muster_wire::TrustStore;
use muster_wire::revocation::{Reason, RevocationError};

use crate::driver::route::Route;
use crate::driver::{Driver, Next};

/// A node that is cut off from the master asks the hash table so often ...
pub(super) const GOSSIP: Duration = Duration::from_secs(300);

/// ... and who is under an LSN every so many times: it hears revocations from the LSN, unless that one keeps them back, its own
/// above all.
const UNDER_LSN: u32 = 3;

/// Lists in one message to the master.
const LISTS: usize = 16;

impl Driver {
    /// Takes in what `from` (none: the master) says of revocations.
    pub(super) fn on_revocations(&mut self, increments: &[Envelope], from: Option<NodeId>) {
        let before = self.parts.trust.load().revocations().number();
        let mut store = TrustStore::clone(&self.parts.trust.load());
        match store.revoke(increments) {
            Ok(false) => return,
            Ok(true) => {}
            // The next Hello says what is known here, and the master tells what follows.
            Err(error @ RevocationError::Gap { .. }) => tracing::info!(%error, "a list does not follow"),
            Err(error) => tracing::warn!(%error, "a list of revocations is not believed"),
        }
        let after = store.revocations().clone();
        if after.number() == before {
            return;
        }
        self.parts.trust.store(store.into());
        let cut = self.overlay.revocations_changed(&self.presence);
        self.table.revoked(&after);
        let news = after.iter().filter(|it| it.number > before && it.reason != Reason::Superseded);
        for node in news.filter_map(|it| it.node) {
            self.overlay.handle(Input::Barred(node));
        }
        tracing::info!(
            number = after.number(),
            revoked = after.len(),
            cut,
            "the list of revocations is longer"
        );
        if let Err(error) = self.parts.state.revocations().keep(&after, before) {
            tracing::error!(%error, "the list of revocations is not kept");
        }
        for peer in self.overlay.endpoint().sessions().iter().map(muster_net::Session::peer) {
            if Some(peer) != from {
                self.tell_revocations(peer, before);
            }
        }
        self.tell_what_the_master_lost();
        self.look_for_oneself();
        if self.attached && after.is_crowded() {
            // The master tells it from the beginning, in fewer pieces.
            let mut store = TrustStore::clone(&self.parts.trust.load());
            store.set_revocations(after.doubted().into());
            self.parts.trust.store(store.into());
            self.control.restart();
        }
    }

    /// A master that was restored from a backup has forgotten revocations that this node knows.
    pub(super) fn tell_what_the_master_lost(&mut self) {
        let trust = self.parts.trust.load_full();
        let lost = trust.revocations().lost_by_master();
        if lost.is_empty() {
            return;
        }
        tracing::warn!(lists = lost.len(), "the master was restored and lacks revocations: it is told");
        let class = TrafficClass::Control.into();
        let item = |list: &Envelope| {
            let body = Some(upstream_item::Body::Revocations(list.clone()));
            UpstreamItem { class, body, ..UpstreamItem::default() }
        };
        for some in lost.chunks(LISTS) {
            self.send_up(some.iter().map(item).collect());
        }
    }

    pub(super) fn on_gossip_due(&mut self) -> Next {
        self.gossiped = self.gossiped.wrapping_add(1);
        let under_lsn = matches!(self.route, Route::Lsn(_));
        if !self.attached && (!under_lsn || self.gossiped.is_multiple_of(UNDER_LSN)) {
            self.ask_table_for_revocations();
        }
        self.table.sample(self.parts.done.clone());
        Next::Go
    }

    pub(super) fn ask_table_for_revocations(&self) {
        let known = self.parts.trust.load().revocations().number();
        self.table.find_revocations(self.parts.identity.network, known, self.parts.done.clone());
    }

    /// Anybody may have put them there. While they lead on, the next are asked for.
    pub(super) fn on_table_revocations(&mut self, lists: &[Envelope]) {
        let before = self.parts.trust.load().revocations().number();
        lists.iter().for_each(|list| self.on_revocations(slice::from_ref(list), None));
        if self.parts.trust.load().revocations().number() > before {
            self.ask_table_for_revocations();
        }
    }

    /// Tells a peer what it does not know yet.
    pub(super) fn tell_revocations(&self, peer: NodeId, known: u64) {
        for increment in self.parts.trust.load().revocations().after(known) {
            let targets = vec![Bytes::copy_from_slice(peer.as_bytes())];
            let body = Some(downstream::Body::Revocations(increment.clone()));
            if !self.overlay.send_downstream(peer, Downstream { targets, body }) {
                tracing::debug!(peer = %peer.short(), "a peer does not hear of revocations now");
                return;
            }
        }
    }

    /// Whether the list names this device. A lost one parts from its peers, and waits at the master for its lock or erase.
    pub(super) fn look_for_oneself(&mut self) {
        let trust = self.parts.trust.load_full();
        match trust.revocations().of_node(self.parts.identity.node).map(|it| it.reason) {
            Some(Reason::Lost) if !self.barred => {
                tracing::error!("this device is lost: it waits for its lock or erase");
                self.barred = true;
                self.stand_apart("this device is lost");
            }
            Some(Reason::Revoked) => self.on_revoked(),
            // Found again, it takes part again.
            None if self.barred => {
                self.barred = false;
                self.meetings.set_apart(self.held);
                self.control.restart();
            }
            _ => {}
        }
    }

    /// By the list, or by the master's refusal: whoever is under this node finds another LSN at once, before the list comes.
    pub(super) fn on_revoked(&mut self) {
        if !std::mem::replace(&mut self.barred, true) {
            tracing::error!("this device is revoked: nobody admits it any more");
            self.stand_apart("this device is revoked");
        }
    }
}
