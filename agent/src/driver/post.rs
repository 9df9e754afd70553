//! The loop's side of the post: what stands around this node, where a word came from, and words that go by the master.

use muster_net::Endpoint;
use muster_net::dht::Dht;
use muster_overlay::intent::Station;
use muster_overlay::post::Origin;
use muster_proto::control::v1::{SendTo, TrafficClass, Upstream, UpstreamItem, upstream_item::Body};
use muster_types::NodeId;
use muster_wire::letter::{Content, Word};

use crate::driver::parts::Parts;
use crate::driver::route::Route;
use crate::driver::{Driver, Next};
use crate::keyring::Keyring;
use crate::meetings::Meetings;
use crate::post::{Here, Outgoing, Surroundings};
use crate::relays::Relays;
use crate::super_nodes::SuperNodes;

pub(super) fn around(
    parts: &Parts,
    endpoint: &Endpoint,
    (dht, super_nodes): (Dht, SuperNodes),
    keyring: &Keyring,
    (meetings, relays): (&Meetings, &Relays),
) -> Surroundings {
    Surroundings {
        endpoint: endpoint.clone(),
        dht,
        keyring: keyring.clone(),
        hand: meetings.hand(),
        trust: parts.trust.clone(),
        clock: parts.clock.clone(),
        meetings: meetings.clone(),
        relays: relays.clone(),
        super_nodes,
    }
}

impl Driver {
    pub(super) fn tell_post(&self) {
        let station = self.overlay.station();
        let lsn = match station {
            Station::HasLsn { lsn, .. } => Some(lsn),
            _ => None,
        };
        let is_lsn = matches!(station, Station::IsLsn { .. });
        self.post.is_at(Here { lsn, is_lsn, attached: self.attached, apart: self.is_apart() });
    }

    /// Whose session brought it.
    pub(super) fn origin(&self, from: NodeId) -> Origin {
        if self.is_own_lsn(from) {
            Origin::Lsn(from)
        } else if self.overlay.machine().children().contains(&from) {
            Origin::Child(from)
        } else {
            Origin::Stranger(from)
        }
    }

    pub(super) fn hear_word(&self, origin: Origin, word: SendTo) {
        match Word::from_wire(word) {
            Ok(word) => self.post.carried(origin, word),
            Err(error) => tracing::debug!(%error, "a word of the master's is not understood"),
        }
    }

    pub(super) fn on_post(&mut self, outgoing: Outgoing) -> Next {
        match outgoing {
            Outgoing::Master(word) => {
                let class = TrafficClass::Interactive.into();
                let body = Some(Body::SendTo(word.to_wire()));
                self.send_up(vec![UpstreamItem { class, body, ..UpstreamItem::default() }]);
            }
            Outgoing::Via(via) => {
                self.via = via;
                self.look_at_table();
            }
        }
        Next::Go
    }

    /// Neither LSN nor master: calls go by super nodes.
    pub(super) fn without_way_up(&self) -> bool {
        matches!(self.route, Route::None { .. })
    }

    /// A child's calls go on by super nodes; everything else it says again.
    pub(super) fn call_without_master(&self, upstream: Upstream) {
        let Ok(child) = NodeId::try_from(&upstream.node_id[..]) else { return };
        for item in upstream.items {
            let Some(Body::Signal(signal)) = item.body else { continue };
            let (Ok(to), Some(call)) = (NodeId::try_from(&signal.to_id[..]), signal.call) else { continue };
            self.post.carried(Origin::Child(child), Word::new(to, Content::Call(call)));
        }
    }
}
