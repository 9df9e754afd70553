//! Operators label nodes. A node's own word has no part in it.

use std::collections::BTreeMap;

use muster_types::NodeId;

use super::deed::Action;
use super::ledger::{Command, Ledger, Wanted};
use super::node::LABELS;
use super::table::Revision;

#[derive(Debug, Clone)]
pub struct SetLabels {
    pub node: NodeId,
    pub actor: String,
    pub set: BTreeMap<String, String>,
    pub remove: Vec<String>,
    /// The revision that the operator saw.
    pub seen: Option<Revision>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NodeRefusal {
    #[error("the node is not known")]
    Unknown,
    #[error("the node has changed since it was read")]
    Changed,
    #[error("the node is online")]
    Online,
    #[error("it is not held: one device alone lives under its identity")]
    NotHeld,
    #[error("none of the devices that live under its identity has this id")]
    UnknownLife,
    #[error("a node has at most {LABELS} labels set by operators")]
    TooManyLabels,
}

impl Command for SetLabels {
    type Answer = Result<(), NodeRefusal>;

    fn wants(&self, wanted: &mut Wanted) {
        wanted.nodes.insert(self.node);
    }

    fn apply(&self, ledger: &mut Ledger) -> Result<(), NodeRefusal> {
        let revision = ledger.nodes.revision(&self.node);
        let node = ledger.nodes.find_mut(&self.node).ok_or(NodeRefusal::Unknown)?;
        if self.seen.is_some_and(|seen| seen != revision) {
            return Err(NodeRefusal::Changed);
        }
        let mut labels = node.labels.clone();
        labels.extend(self.set.iter().map(|(key, value)| (key.clone(), Some(value.clone()))));
        for key in &self.remove {
            labels.remove(key);
            if node.attested.labels.contains_key(key) {
                labels.insert(key.clone(), None);
            }
        }
        if labels.len() > LABELS {
            return Err(NodeRefusal::TooManyLabels);
        }
        if node.labels == labels {
            return Ok(());
        }
        node.labels = labels;
        let set = self.set.iter().map(|(key, value)| format!("{key}={value}"));
        let changes: Vec<_> = set.chain(self.remove.iter().map(|key| format!("-{key}"))).collect();
        ledger.note(Action::ChangeLabels, &self.actor, &format!("nodes/{}", self.node), &changes.join(" "));
        Ok(())
    }
}
