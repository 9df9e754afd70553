//! By which way this node speaks with the master, and what goes that way. Nothing else cares which it is.

use bytes::Bytes;
use muster_overlay::intent::Station;
use muster_proto::control::v1::{Upstream, UpstreamItem};
use muster_types::NodeId;
use prost::Message;
use tokio::sync::mpsc;

use crate::driver::history::Kept;
use crate::driver::{Driver, Next};

/// What one message to the master carries, but for one item that is larger: no more than may go at once after a
/// reconnect, or the pacer would let too much through.
const UPSTREAM_BYTES: usize = muster_net::pacer::REOPENING_BYTES as usize;
/// Contract of `Upstream`.
const UPSTREAM_ITEMS: usize = 256;

/// The way of the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// There is none; why, for people.
    None { why: String },
    /// Over this node's own control channel.
    Direct,
    /// Over the session with this node's LSN.
    Lsn(NodeId),
}

impl Route {
    pub(super) fn none(why: &str) -> Self {
        Self::None { why: why.to_owned() }
    }

    fn exists(&self) -> bool {
        !matches!(self, Self::None { .. })
    }

    /// As `muster-agent status` says it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::None { why } => format!("none: {why}"),
            Self::Direct => "attached".to_owned(),
            Self::Lsn(_) => "by LSN".to_owned(),
        }
    }
}

impl Driver {
    /// Its LSN carries a child's word; who has none speaks for itself, if it is attached.
    pub(super) async fn choose_route(&mut self) {
        let route = match self.overlay.station() {
            Station::HasLsn { lsn, .. } if self.overlay.endpoint().session(lsn).is_some() => Route::Lsn(lsn),
            _ if self.attached => Route::Direct,
            _ => Route::none(&self.unreached),
        };
        self.tell_post();
        if route != self.route {
            let up = route.exists();
            self.route = route;
            if up {
                if std::mem::replace(&mut self.routed, true) {
                    self.control.pacer().reopen();
                }
                self.tasks.route_up().await;
                if !self.is_apart() && std::mem::take(&mut self.must_ask) {
                    self.ask_for_own_tasks();
                }
                self.tell_what_the_master_lost();
            }
        }
    }

    /// Packs what waits, so that a burst of reports is one message.
    pub(super) fn on_item(&mut self, first: UpstreamItem, outbox: &mut mpsc::Receiver<UpstreamItem>) -> Next {
        let mut bytes = first.encoded_len();
        let mut items = vec![first];
        while items.len() < UPSTREAM_ITEMS && bytes < UPSTREAM_BYTES {
            let Ok(item) = outbox.try_recv() else { break };
            bytes += item.encoded_len();
            items.push(item);
        }
        self.send_up(items);
        Next::Go
    }

    /// By the route of the moment. Without one the journal keeps what matters.
    pub(super) fn send_up(&mut self, items: Vec<UpstreamItem>) {
        let count = items.len();
        let node_id = Bytes::copy_from_slice(self.parts.identity.node.as_bytes());
        let upstream = Upstream { node_id, items };
        let sent = match self.route.clone() {
            Route::None { .. } => false,
            Route::Direct => self.carry(upstream),
            Route::Lsn(lsn) => self.overlay.send_upstream(lsn, upstream),
        };
        if !sent {
            tracing::debug!(count, "no way to the master now; the journal sends them again");
        }
    }

    /// Keeps an item beside the loop, which does not wait for disks.
    pub(super) fn keep(&self, (id, made, item): Kept) {
        let outbox = self.parts.outbox.clone();
        tokio::spawn(async move { outbox.keep(id, made, item).await });
    }
}
