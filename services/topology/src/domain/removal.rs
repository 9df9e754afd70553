//! A node that is gone for good is forgotten, and what it still owed ends.

use muster_types::NodeId;

use super::deed::Action;
use super::labels::NodeRefusal;
use super::ledger::{Command, Ledger, Wanted};
use super::table::Revision;
use super::task::MasterEnding;
use super::tasks::end;

#[derive(Debug, Clone)]
pub struct ForgetNode {
    pub node: NodeId,
    pub actor: String,
    pub seen: Option<Revision>,
}

impl Command for ForgetNode {
    type Answer = Result<(), NodeRefusal>;

    fn wants(&self, wanted: &mut Wanted) {
        wanted.nodes.insert(self.node);
        wanted.attachments.insert(self.node);
        wanted.open_targets_of.insert(self.node);
    }

    fn apply(&self, ledger: &mut Ledger) -> Result<(), NodeRefusal> {
        let revision = ledger.nodes.revision(&self.node);
        let node = ledger.nodes.find(&self.node).ok_or(NodeRefusal::Unknown)?;
        if node.is_online() {
            return Err(NodeRefusal::Online);
        }
        if self.seen.is_some_and(|seen| seen != revision) {
            return Err(NodeRefusal::Changed);
        }
        if let Some(cell) = node.cell.and_then(|id| ledger.cells.find_mut(&id))
            && cell.lsn == Some(self.node)
        {
            cell.lsn = None;
        }
        let owed: Vec<_> = ledger
            .targets
            .iter()
            .filter(|((_, node), target)| *node == self.node && !target.state.is_terminal())
            .map(|(_, target)| target.clone())
            .collect();
        for target in owed {
            end(ledger, target, MasterEnding::NodeDeleted);
        }
        ledger.note(Action::DeleteNode, &self.actor, &format!("nodes/{}", self.node), "");
        ledger.nodes.remove(&self.node);
        ledger.attachments.remove(&self.node);
        Ok(())
    }
}
