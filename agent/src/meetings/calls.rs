//! Calls: with which keys others are called, and whom others' calls are of, which meeting they are about, and at which
//! relays the callers sit.

use muster_overlay::meeting::{Input, Meeting};
use muster_proto::trust::v1::Envelope;
use muster_types::NodeId;
use muster_wire::Verifier;
use muster_wire::call::{Called, RELAYS};
use muster_wire::meeting::ProbeKeys;
use muster_wire::ticket::NodeTicket;

use super::Done;
use super::desk::Desk;
use super::pair::{Pair, Sealing};
use crate::relays;

impl Desk {
    pub(super) fn seek_keys(&mut self, peer: NodeId) {
        let Some(pair) = self.pairs.get_mut(&peer) else { return };
        pair.sealing = Sealing::Sought;
        let (keyring, number) = (self.around.keyring.clone(), pair.number);
        self.beside.spawn(async move {
            let found = keyring.find(peer).await.map_err(|error| error.to_string());
            Done::Keys(peer, number, found.map(|(ticket, _)| Box::new(ticket)))
        });
    }

    /// With the peer's keys its probes open before its answer is here.
    pub(super) fn on_keys(&mut self, peer: NodeId, number: u64, found: Result<Box<NodeTicket>, String>) {
        let Some(pair) = self.pairs.get_mut(&peer).filter(|pair| pair.number == number) else { return };
        match found {
            Ok(ticket) => {
                let hand = self.around.hand.load();
                let secret = (self.around.endpoint.node(), &hand.noise_secret);
                let (network, theirs) = (self.around.network, (peer, &ticket.noise_key));
                pair.keys.get_or_insert_with(|| ProbeKeys::new(network, number, secret, theirs));
                pair.sealing = Sealing::Known(ticket.sealing_key);
            }
            Err(reason) => {
                tracing::info!(peer = %peer.short(), reason, "a call goes unsealed");
                pair.sealing = Sealing::Unknown;
            }
        }
        self.look();
    }

    pub(super) fn on_call(&mut self, sealed: &Envelope) {
        let trust = self.around.trust.load_full();
        let verifier = Verifier { trust: &trust, now: self.around.clock.now() };
        let own = self.around.endpoint.node();
        let called = match Called::open(sealed, own, &self.around.hand.load().sealing, &verifier) {
            Ok(called) => called,
            Err(error) => return tracing::info!(%error, "a call is not believed"),
        };
        if self.has_room_for(called.from) {
            self.on_called(called);
        }
    }

    /// Both may call at once: then the number of the lower id's call counts.
    fn on_called(&mut self, Called { from, noise_key, sealing_key, call }: Called) {
        let own = self.around.endpoint.node();
        let pair = self.pairs.entry(from).or_insert_with(|| Pair::new(call.meeting, true));
        if pair.number != call.meeting {
            let mine_counts = !pair.called && own < from && pair.session.is_none();
            if mine_counts && !call.answer {
                return;
            }
            (pair.number, pair.keys) = (call.meeting, None);
        }
        pair.sealing = Sealing::Known(sealing_key);
        let hand = self.around.hand.load();
        let (secret, network) = ((own, &hand.noise_secret), self.around.network);
        pair.keys.get_or_insert_with(|| ProbeKeys::new(network, call.meeting, secret, (from, &noise_key)));
        let named: Vec<_> = call.relays.into_iter().take(relays::OF_A_PAIR).collect();
        pair.add_relays(&named);
        if !call.answer {
            named.into_iter().for_each(|relay| self.attend(from, relay));
        }
        let told = Input::Told { peer: call.whereabouts, answer: call.answer };
        self.on_told(from, told);
    }

    fn on_told(&mut self, from: NodeId, told: Input) {
        let Some(pair) = self.pairs.get_mut(&from) else { return };
        match &mut pair.meeting {
            Some(meeting) => {
                meeting.handle(told, self.boot.now());
                self.act(from);
            }
            None => {
                pair.unheard = Some(told);
                self.look();
            }
        }
    }

    /// A call waited until this node knew where it is.
    pub(super) fn answer_waiting(&mut self, peer: NodeId) {
        let (Some(sight), Some(pair)) = (&self.sight, self.pairs.get_mut(&peer)) else { return };
        let Some(told) = pair.unheard.take() else { return };
        let meeting = pair.meeting.get_or_insert_with(|| Meeting::called(sight.whereabouts()));
        let now = self.boot.now();
        meeting.handle(told, now);
        if pair.behind.is_some() {
            meeting.handle(Input::Relay(true), now);
        }
        self.act(peer);
    }

    /// Sits at a relay that a caller named, unless that is being done.
    pub(super) fn attend(&mut self, peer: NodeId, relay: String) {
        let Some(pair) = self.pairs.get_mut(&peer).filter(|pair| pair.attending.len() < RELAYS) else {
            return;
        };
        if pair.attending.insert(relay.clone()) {
            let relays = self.around.relays.clone();
            self.beside.spawn(async move {
                let attended = relays.attend(&relay).await;
                Done::Attended(peer, relay, attended)
            });
        }
    }
}
