//! The loop's side of sessions with other places: the task beside it is told what happens, and its calls go out by the way
//! that reports go.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use muster_net::{Endpoint, NetEvent};
use muster_overlay::post::Origin;
use muster_proto::control::v1::{Signal, TrafficClass, UpstreamItem, upstream_item};
use muster_wire::letter::{Content, Word};
use tokio::sync::mpsc;

use crate::driver::parts::Parts;
use crate::driver::{Driver, Next};
use crate::identity::StateError;
use crate::keyring::Keyring;
use crate::meetings::{Command, Hand, Meetings, Outgoing, Surroundings};
use crate::relays::Relays;
use crate::super_nodes::SuperNodes;

pub(super) fn start(
    parts: &Parts,
    boot_nonce: u64,
    endpoint: &Endpoint,
    keyring: Keyring,
    super_nodes: SuperNodes,
) -> Result<(Meetings, Relays, mpsc::Receiver<Outgoing>), StateError> {
    let (relays, events) = Relays::new(parts.client.clone(), endpoint.clone(), super_nodes);
    let around = Surroundings {
        endpoint: endpoint.clone(),
        relays: relays.clone(),
        keyring,
        hand: Arc::new(ArcSwap::from_pointee(hand(parts, boot_nonce)?)),
        trust: parts.trust.clone(),
        clock: parts.clock.clone(),
        network: parts.identity.network,
    };
    let probes = endpoint.take_probes().unwrap_or_else(|| mpsc::channel(1).1);
    let (meetings, calls) = Meetings::spawn(around, events, probes);
    Ok((meetings, relays, calls))
}

fn hand(parts: &Parts, boot_nonce: u64) -> Result<Hand, StateError> {
    let (signer, keys) = (parts.wire_signer(boot_nonce)?, &parts.identity.keys);
    Ok(Hand { signer, noise_secret: keys.noise_secret(), sealing: keys.sealing() })
}

impl Driver {
    /// A call to a node that this one has no session with.
    pub(super) fn carry_call(&mut self, Outgoing { to, call }: Outgoing) -> Next {
        if self.without_way_up() {
            self.post.carried(Origin::Here, Word::new(to, Content::Call(call)));
            return Next::Go;
        }
        let signal = Signal { to_id: Bytes::copy_from_slice(to.as_bytes()), call: Some(call) };
        let body = Some(upstream_item::Body::Signal(signal));
        let class = TrafficClass::Control.into();
        self.send_up(vec![UpstreamItem { class, body, ..UpstreamItem::default() }]);
        Next::Go
    }

    /// What sockets bring that is the task's, too.
    pub(super) async fn tell_meetings(&self, event: &NetEvent) {
        let command = match event {
            NetEvent::SessionOpened(session) => Command::Opened(session.clone()),
            NetEvent::SessionClosed { session, reason, .. } => {
                Command::Closed(session.clone(), reason.to_string())
            }
            NetEvent::PathChanged(session) => Command::PathChanged(session.clone()),
            _ => return,
        };
        self.meetings.tell(command).await;
    }

    pub(super) fn tell_addresses(&self) {
        let addresses = self.presence.addresses();
        let own: Vec<SocketAddr> = addresses.iter().filter_map(muster_types::Address::udp).collect();
        self.meetings.is_at(own);
    }

    /// After a renewal calls carry the new ticket.
    pub(super) fn renew_meetings(&self) {
        match hand(&self.parts, self.presence.boot_nonce()) {
            Ok(hand) => self.meetings.renew(hand),
            Err(error) => tracing::error!(%error, "calls go on with the old ticket"),
        }
    }
}
