//! A control stream ends: announced, or by silence; and what that says of those it carried.

use muster_types::{NodeId, Timestamp};

use super::attachment::{Attachment, DARK_AFTER, MISSED_AFTER};
use super::ledger::{Command, Ledger, Wanted};
use super::node::{Node, Presence};

/// The stream of a node has ended.
#[derive(Debug, Clone)]
pub struct Detach {
    pub node: NodeId,
    pub session: u64,
    /// The node's own announcement.
    pub parted: Option<String>,
    /// When it was last heard.
    pub heard: Timestamp,
    /// The boot nonce that it came with.
    pub life: u64,
}

impl Command for Detach {
    type Answer = ();

    fn wants(&self, wanted: &mut Wanted) {
        wanted.nodes.insert(self.node);
        wanted.attachments.insert(self.node);
    }

    fn apply(&self, ledger: &mut Ledger) {
        let now = ledger.now;
        if let Some(node) = ledger.nodes.find_mut(&self.node).filter(|node| node.is_held()) {
            node.lives.iter_mut().filter(|it| it.boot_nonce == self.life).for_each(|it| it.gone = true);
        }
        let Some(attachment) = ledger.attachments.find_mut(&self.node) else { return };
        if attachment.session != self.session || !attachment.is_live() {
            return;
        }
        (attachment.lost, attachment.heard) = (Some(now), self.heard);
        if let Some(reason) = &self.parted
            && let Some(node) = ledger.nodes.find_mut(&self.node)
            && node.lsn.is_none()
        {
            node.vanish(Presence::Offline, reason.clone(), now, now);
        }
    }
}

/// Judges what a lost stream carried, once time has told. Answers whether all is judged.
#[derive(Debug, Clone)]
pub struct Settle {
    pub carrier: NodeId,
}

enum Judgement {
    Wait,
    Missed,
    Dark,
}

impl Command for Settle {
    type Answer = bool;

    fn wants(&self, wanted: &mut Wanted) {
        wanted.attachments.insert(self.carrier);
        wanted.nodes.insert(self.carrier);
        wanted.carried_by.insert(self.carrier);
    }

    fn apply(&self, ledger: &mut Ledger) -> bool {
        let Some(attachment) = ledger.attachments.find(&self.carrier).cloned() else { return true };
        let Some(lost) = attachment.lost.filter(|_| !attachment.settled) else { return true };
        let carried: Vec<NodeId> = ledger
            .nodes
            .iter()
            .filter(|(_, node)| node.is_online() && node.carrier() == self.carrier)
            .map(|(id, _)| *id)
            .collect();
        let mut waiting = false;
        for id in carried {
            let judgement = ledger.nodes.find(&id).map(|node| self.judge(ledger, node, lost));
            let (presence, reason) = match judgement {
                Some(Judgement::Missed) => (Presence::Offline, "lost connection"),
                Some(Judgement::Dark) if id == self.carrier => {
                    (Presence::Unreachable, "lost connection to the master")
                }
                Some(Judgement::Dark) => (Presence::Unreachable, "its place went dark"),
                Some(Judgement::Wait) | None => {
                    waiting = true;
                    continue;
                }
            };
            let now = ledger.now;
            if let Some(node) = ledger.nodes.find_mut(&id) {
                node.vanish(presence, reason.to_owned(), attachment.heard, now);
            }
        }
        if !waiting {
            ledger.attachments.put(self.carrier, Attachment { settled: true, ..attachment });
        }
        !waiting
    }
}

impl Settle {
    /// A node whose cell lives on under another LSN was missed there; one whose cell does not went dark with it.
    fn judge(&self, ledger: &Ledger, node: &Node, lost: Timestamp) -> Judgement {
        let successor = node
            .cell
            .and_then(|id| ledger.cells.find(&id))
            .and_then(|cell| ledger.living(cell))
            .and_then(|cell| cell.lsn)
            .filter(|lsn| *lsn != self.carrier)
            .and_then(|lsn| ledger.attachments.find(&lsn));
        match successor {
            Some(next) if ledger.now.since(next.opened.max(lost)) >= MISSED_AFTER => Judgement::Missed,
            None if ledger.now.since(lost) >= DARK_AFTER => Judgement::Dark,
            _ => Judgement::Wait,
        }
    }
}

/// A replica's lease ended: the streams it served are lost from now on, however long ago it went.
#[derive(Debug, Clone)]
pub struct Orphan {
    pub nodes: Vec<NodeId>,
    pub replica: String,
    pub renewed: Timestamp,
}

impl Command for Orphan {
    type Answer = ();

    fn wants(&self, wanted: &mut Wanted) {
        wanted.attachments.extend(&self.nodes);
    }

    fn apply(&self, ledger: &mut Ledger) {
        let now = ledger.now;
        for node in &self.nodes {
            if let Some(attachment) = ledger.attachments.find_mut(node)
                && attachment.replica == self.replica
                && attachment.is_live()
            {
                (attachment.lost, attachment.heard) = (Some(now), self.renewed);
            }
        }
    }
}
