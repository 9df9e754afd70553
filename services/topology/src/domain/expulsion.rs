//! Nodes that are not admitted any more leave the picture.

use std::collections::BTreeMap;

use muster_types::NodeId;

use super::ledger::{Command, Ledger, Wanted};
use super::node::Presence;

/// Each with the reason that people see.
#[derive(Debug, Clone)]
pub struct Expel {
    pub nodes: BTreeMap<NodeId, String>,
}

impl Command for Expel {
    type Answer = ();

    fn wants(&self, wanted: &mut Wanted) {
        wanted.nodes.extend(self.nodes.keys().copied());
    }

    fn apply(&self, ledger: &mut Ledger) {
        let now = ledger.now;
        for (id, reason) in &self.nodes {
            if let Some(node) = ledger.nodes.find_mut(id) {
                node.vanish(Presence::Offline, reason.clone(), now, now);
            }
        }
    }
}
