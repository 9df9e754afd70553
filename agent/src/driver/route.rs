//! By which way this node speaks with the master. Nothing else cares which it is.

use muster_overlay::intent::Station;
use muster_types::NodeId;

use crate::driver::Driver;

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
}
