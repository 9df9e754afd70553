//! An LSN tells how its child table changed.

use std::collections::BTreeSet;

use muster_types::limits::CELL_NODES;
use muster_types::{NodeId, Timestamp};

use super::attach::abdicate;
use super::attachment::Attachment;
use super::cell::CellId;
use super::clone::Suspicion;
use super::ledger::{Command, Ledger, Wanted};
use super::node::{Attested, Node, Position, Presence, Profile};

/// A child's signed consent to be shown under an LSN, verified, and what it says of itself.
#[derive(Debug, Clone)]
pub struct Sighting {
    pub node: NodeId,
    pub attested: Attested,
    pub profile: Profile,
    pub lineage: u64,
    pub epoch: u64,
    pub attach_time: Timestamp,
}

#[derive(Debug, Clone)]
pub enum ChildChange {
    Attached(Box<Sighting>),
    Departed { node: NodeId, reason: String },
}

impl ChildChange {
    pub fn node(&self) -> NodeId {
        match self {
            Self::Attached(sighting) => sighting.node,
            Self::Departed { node, .. } => *node,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Update {
    pub lsn: NodeId,
    pub session: u64,
    pub cell: CellId,
    pub number: u64,
    /// The changes are the whole child table.
    pub snapshot: bool,
    pub changes: Vec<ChildChange>,
}

/// A node that topology shows from now on; its receipt says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    pub node: NodeId,
    pub boot_nonce: u64,
    pub attach_time: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Updated {
    Known {
        number: u64,
        shown: Vec<Shown>,
        refused: usize,
        /// Nodes that were online in another life.
        suspicions: Vec<Suspicion>,
        /// Nodes that several devices are: they are not shown, and are to come to topology themselves.
        held: Vec<NodeId>,
        /// Nodes that are offline by this LSN's word. Those who are not should hear of it.
        gone: Vec<NodeId>,
    },
    /// An update is missing: the LSN is to attach again, and to send what follows the known one.
    Gap { known: u64 },
    /// Another stream of this LSN has taken over, or it is none any more.
    Superseded,
}

impl Command for Update {
    type Answer = Updated;

    fn wants(&self, wanted: &mut Wanted) {
        wanted.attachments.insert(self.lsn);
        wanted.nodes.insert(self.lsn);
        wanted.nodes.extend(self.changes.iter().map(ChildChange::node));
        wanted.attachments.extend(self.changes.iter().map(ChildChange::node));
        wanted.counts.insert(self.cell);
        if self.snapshot {
            wanted.carried_by.insert(self.lsn);
        }
    }

    fn apply(&self, ledger: &mut Ledger) -> Updated {
        let Some(attachment) = ledger.attachments.find(&self.lsn).cloned() else {
            return Updated::Superseded;
        };
        if attachment.session != self.session || attachment.cell != Some(self.cell) {
            return Updated::Superseded;
        }
        let known = attachment.known_update;
        if !self.snapshot && self.number <= known {
            let shown = self.still_shown(ledger);
            return Updated::Known {
                number: known,
                shown,
                refused: 0,
                suspicions: Vec::new(),
                held: Vec::new(),
                gone: Vec::new(),
            };
        }
        if !self.snapshot && self.number != known + 1 {
            return Updated::Gap { known };
        }
        let mut shown = Vec::new();
        let mut refused = 0;
        let (mut suspicions, mut held, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for change in &self.changes {
            match change {
                ChildChange::Attached(it) if ledger.nodes.find(&it.node).is_some_and(Node::is_held) => {
                    held.push(it.node);
                }
                ChildChange::Attached(sighting) => match self.show(ledger, &attachment, sighting) {
                    Some((node, suspicion)) => {
                        shown.push(node);
                        suspicions.extend(suspicion);
                    }
                    None => refused += 1,
                },
                ChildChange::Departed { node, reason } => {
                    gone.extend(self.hide(ledger, *node, reason).then_some(*node));
                }
            }
        }
        if self.snapshot {
            gone.extend(self.hide_the_rest(ledger));
        }
        gone.retain(|id| ledger.nodes.find(id).is_some_and(|node| !node.is_online()));
        let number = self.number;
        ledger
            .attachments
            .put(self.lsn, Attachment { known_update: number, heard: ledger.now, ..attachment });
        Updated::Known { number, shown, refused, suspicions, held, gone }
    }
}

impl Update {
    fn show(
        &self,
        ledger: &mut Ledger,
        attachment: &Attachment,
        sighting: &Sighting,
    ) -> Option<(Shown, Option<Suspicion>)> {
        if (sighting.lineage, sighting.epoch) != (attachment.lineage, attachment.epoch) {
            return None;
        }
        let now = ledger.now;
        let mut node = ledger
            .nodes
            .find(&sighting.node)
            .cloned()
            .unwrap_or_else(|| Node::new(sighting.node, sighting.attested.clone(), now));
        let is_replay = sighting.attach_time < node.attach_time
            || (sighting.attach_time == node.attach_time && node.lsn != Some(self.lsn));
        let members = ledger.members.entry(self.cell).or_default();
        let joins = node.cell != Some(self.cell);
        if is_replay || (joins && *members >= CELL_NODES) {
            return None;
        }
        *members += usize::from(joins);
        abdicate(ledger, &node, self.cell);
        let before = node.clone();
        node.attest(&sighting.attested);
        node.profile = sighting.profile.clone();
        node.observed = ledger.nodes.find(&self.lsn).and_then(|lsn| lsn.observed);
        node.attach_time = sighting.attach_time;
        node.appear(Position::Child, Some(self.lsn), Some(self.cell), now);
        let suspicion = Suspicion::between(&before, &node, now);
        ledger.nodes.put(sighting.node, node);
        Some((sighting.shown(), suspicion))
    }

    /// Who has attached to topology itself since it became a child is here all the same. True if it is not.
    fn hide(&self, ledger: &mut Ledger, id: NodeId, reason: &str) -> bool {
        let now = ledger.now;
        let own_channel = ledger.attachments.find(&id).filter(|it| it.is_live()).map(|it| it.opened);
        let Some(node) = ledger.nodes.find_mut(&id).filter(|node| node.lsn == Some(self.lsn)) else {
            return false;
        };
        if own_channel.is_some_and(|opened| opened > node.attach_time) {
            node.appear(Position::Direct, None, node.cell, now);
            return false;
        }
        let was_here = node.is_online();
        node.vanish(Presence::Offline, reason.to_owned(), now, now);
        was_here
    }

    fn hide_the_rest(&self, ledger: &mut Ledger) -> Vec<NodeId> {
        let listed: BTreeSet<_> = self.changes.iter().map(ChildChange::node).collect();
        let missing: Vec<_> = ledger
            .nodes
            .iter()
            .filter(|(id, node)| node.lsn == Some(self.lsn) && node.is_online() && !listed.contains(id))
            .map(|(id, _)| *id)
            .collect();
        missing.into_iter().filter(|id| self.hide(ledger, *id, "lost connection")).collect()
    }

    /// Of an update that was sent again: its receipts may have been lost too.
    fn still_shown(&self, ledger: &Ledger) -> Vec<Shown> {
        let attached = self.changes.iter().filter_map(|change| match change {
            ChildChange::Attached(sighting) => Some(sighting),
            ChildChange::Departed { .. } => None,
        });
        attached
            .filter(|it| {
                ledger.nodes.find(&it.node).is_some_and(|node| {
                    node.lsn == Some(self.lsn) && node.is_online() && node.attach_time == it.attach_time
                })
            })
            .map(|sighting| sighting.shown())
            .collect()
    }
}

impl Sighting {
    fn shown(&self) -> Shown {
        Shown { node: self.node, boot_nonce: self.profile.boot_nonce, attach_time: self.attach_time }
    }
}
