//! A node opens its control stream: its place in the picture, its cell if it claims one, and its rivals.

use std::collections::BTreeSet;
use std::net::IpAddr;

use muster_types::{NodeId, SubnetKey};

use super::attachment::Attachment;
use super::cell::{Cell, CellId, Claim, Verdict};
use super::clone;
use super::clone::Suspicion;
use super::ledger::{Command, Ledger, Wake, Wanted};
use super::node::{Attested, Node, Position, Profile};
use super::opaque::Opaque;
use super::update::Shown;

/// Rivals that one LSN is told of at once; more are told as contests end.
const RIVALS: usize = 8;

#[derive(Debug, Clone)]
pub struct Attach {
    pub node: NodeId,
    pub attested: Attested,
    pub profile: Profile,
    pub observed: Option<IpAddr>,
    /// Verified; of a node that is not an LSN none.
    pub claim: Option<Claim>,
    /// Of the place where the node is now.
    pub keys: BTreeSet<SubnetKey>,
    pub resume_token: Opaque,
    /// Drawn at random, for a stream that starts anew.
    pub fresh_token: Opaque,
    pub replica: String,
    pub session: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    pub token: Opaque,
    pub known_update: u64,
    /// The LSN is to send its whole child table.
    pub resync: bool,
    pub position: Position,
    pub cell: Option<CellId>,
    /// Claims of other LSNs for this node's subnet keys.
    pub rivals: Vec<Opaque>,
    /// LSNs that are to be told of this one's claim: those of other cells here, and the one that it deposed.
    pub rivalled: Vec<NodeId>,
    /// The node is a child as before: its LSN, and what its receipt says.
    pub shown: Option<(NodeId, Shown)>,
    /// Several devices live under this identity: it waits.
    pub held: bool,
    /// It was online in another life.
    pub suspicion: Option<Suspicion>,
}

/// What became of a claim.
struct Placed {
    /// The cell that the claim is granted, if it is.
    cell: Option<CellId>,
    /// Cells whose LSNs contest it.
    rivals: Vec<Cell>,
    /// The LSN of the same lineage that it takes the place of, and that may not have noticed.
    deposed: Option<NodeId>,
}

impl Command for Attach {
    type Answer = Attached;

    fn wants(&self, wanted: &mut Wanted) {
        wanted.nodes.insert(self.node);
        wanted.attachments.insert(self.node);
        match &self.claim {
            Some(claim) => {
                wanted.lineages.insert(claim.lineage);
                wanted.keys.extend(claim.keys.iter().copied());
            }
            None => wanted.keys.extend(self.keys.iter().copied()),
        }
    }

    fn apply(&self, ledger: &mut Ledger) -> Attached {
        if ledger.nodes.find(&self.node).is_some_and(Node::is_held) {
            return self.wait(ledger);
        }
        let shown = self.shown_already(ledger);
        let placed = match &self.claim {
            Some(claim) => place(ledger, claim),
            None => Placed { cell: None, rivals: self.served_here(ledger), deposed: None },
        };
        let cell = placed.cell;
        let (position, suspicion) = match shown {
            Some(_) => (Position::Child, None),
            None => self.appear(ledger, cell),
        };
        ledger.wakes.insert(Wake::Carrier(self.node));

        let contested = placed.rivals.iter().filter(|_| cell.is_some()).filter_map(|rival| rival.lsn);
        let rivalled = contested.chain(placed.deposed).collect();
        let rivals = placed.rivals.into_iter().map(|rival| rival.claim).collect();
        let attachment = self.attachment(ledger, cell);
        let (token, known_update) = (attachment.token.clone(), attachment.known_update);
        let resync = cell.is_some() && known_update == 0;
        ledger.attachments.put(self.node, attachment);
        Attached {
            token,
            known_update,
            resync,
            position,
            cell,
            rivals,
            rivalled,
            shown,
            held: false,
            suspicion,
        }
    }
}

impl Attach {
    /// Its own word and its LSN's cross on the way. In the same life a child remains one, as long as its LSN says so:
    /// its own channel is for the receipt that it misses.
    fn shown_already(&self, ledger: &Ledger) -> Option<(NodeId, Shown)> {
        let node = ledger.nodes.find(&self.node).filter(|node| self.claim.is_none() && node.is_online())?;
        let same_life = node.profile.boot_nonce == self.profile.boot_nonce;
        let lsn = node.lsn.filter(|_| same_life && node.position == Position::Child)?;
        let cell = ledger.cells.find(&node.cell?)?;
        let moved = !cell.keys.is_empty() && !self.keys.is_empty() && cell.keys.is_disjoint(&self.keys);
        let serves = |it: &&Attachment| !moved && it.is_live() && it.cell == Some(cell.id);
        ledger.attachments.find(&lsn).filter(serves)?;
        let (boot_nonce, attach_time) = (node.profile.boot_nonce, node.attach_time);
        Some((lsn, Shown { node: self.node, boot_nonce, attach_time }))
    }

    /// The cells of this place that have an LSN: one of them is the node's to join.
    fn served_here(&self, ledger: &Ledger) -> Vec<Cell> {
        let here = |cell: &&Cell| !cell.keys.is_disjoint(&self.keys) && cell.lsn != Some(self.node);
        let cells = ledger.cells.iter().map(|(_, cell)| cell).filter(here);
        let able = |cell: &&Cell| ledger.is_served(cell) && !ledger.is_full(cell.id);
        cells.filter(able).take(RIVALS).cloned().collect()
    }

    /// One of several devices with this identity: it stands nowhere, and is known to be there.
    fn wait(&self, ledger: &mut Ledger) -> Attached {
        let now = ledger.now;
        if let Some(node) = ledger.nodes.find_mut(&self.node) {
            clone::note_life(node, &self.profile, self.observed, now);
        }
        let attachment = self.attachment(ledger, None);
        let (token, known_update) = (attachment.token.clone(), attachment.known_update);
        ledger.attachments.put(self.node, attachment);
        Attached {
            token,
            known_update,
            resync: false,
            position: Position::Direct,
            cell: None,
            rivals: Vec::new(),
            rivalled: Vec::new(),
            shown: None,
            held: true,
            suspicion: None,
        }
    }

    fn appear(&self, ledger: &mut Ledger, cell: Option<CellId>) -> (Position, Option<Suspicion>) {
        let now = ledger.now;
        let before = ledger.nodes.find(&self.node).cloned();
        let mut node = before.clone().unwrap_or_else(|| Node::new(self.node, self.attested.clone(), now));
        node.attest(&self.attested);
        node.profile = self.profile.clone();
        node.observed = self.observed;
        leave_other_cell(ledger, &node, cell);
        let position = if cell.is_some() { Position::Lsn } else { Position::Direct };
        node.appear(position, None, cell.or(node.cell.filter(|_| self.claim.is_none())), now);
        let suspicion = before.and_then(|before| Suspicion::between(&before, &node, now));
        ledger.nodes.put(self.node, node);
        (position, suspicion)
    }

    /// Resumes the numbering if both sides mean the same one, else starts a new one.
    fn attachment(&self, ledger: &Ledger, cell: Option<CellId>) -> Attachment {
        let (lineage, epoch) = self
            .claim
            .as_ref()
            .filter(|_| cell.is_some())
            .map_or((0, 0), |claim| (claim.lineage, claim.epoch));
        let resumed = ledger.attachments.find(&self.node).filter(|last| {
            last.token == self.resume_token && (last.cell, last.lineage, last.epoch) == (cell, lineage, epoch)
        });
        let (token, known_update) = resumed
            .map_or_else(|| (self.fresh_token.clone(), 0), |last| (last.token.clone(), last.known_update));
        Attachment {
            node: self.node,
            cell,
            lineage,
            epoch,
            token,
            known_update,
            replica: self.replica.clone(),
            session: self.session,
            opened: ledger.now,
            lost: None,
            heard: ledger.now,
            settled: false,
        }
    }
}

fn place(ledger: &mut Ledger, claim: &Claim) -> Placed {
    let uptime = |node| ledger.nodes.find(&node).map_or(0, |it| it.uptime.basis_points(ledger.now));
    let own = ledger.cells.iter().map(|(_, cell)| cell).find(|cell| cell.lineage == claim.lineage).cloned();
    // An LSN that has gone, or is revoked, overrules nobody.
    let is_there = |lsn: NodeId| ledger.nodes.find(&lsn).is_some_and(Node::is_online);
    if let Some(own) = &own
        && own.judge(claim, uptime) == Verdict::Superseded
        && own.lsn.is_some_and(is_there)
    {
        return Placed { cell: None, rivals: vec![own.clone()], deposed: None };
    }
    let shares_key = |cell: &Cell, keys: &BTreeSet<SubnetKey>| !cell.keys.is_disjoint(keys);
    let near: Vec<Cell> = ledger
        .cells
        .iter()
        .map(|(_, cell)| cell)
        .filter(|cell| shares_key(cell, &claim.keys) && own.as_ref().is_none_or(|own| own.id != cell.id))
        .cloned()
        .collect();
    let (served, orphaned): (Vec<_>, Vec<_>) =
        near.into_iter().partition(|cell| ledger.is_served(cell) && cell.lsn != Some(claim.claimant));
    let heir = orphaned.into_iter().next().filter(|_| served.is_empty());
    let deposed = own.as_ref().and_then(|own| own.lsn).filter(|lsn| *lsn != claim.claimant);
    let mut cell = own.or(heir).unwrap_or_else(|| Cell::found(claim));
    cell.grant(claim);
    let id = cell.id;
    ledger.cells.put(id, cell);
    // A place with more nodes than a cell takes has several: a full one contests nothing.
    let contests = |cell: &Cell| !ledger.is_full(id) && !ledger.is_full(cell.id);
    let rivals = served.into_iter().filter(contests).take(RIVALS).collect();
    Placed { cell: Some(id), rivals, deposed }
}

/// The cell that the node was the LSN of has none now.
pub(super) fn leave_other_cell(ledger: &mut Ledger, node: &Node, now_in: Option<CellId>) {
    if let Some(last) = node.cell.filter(|last| Some(*last) != now_in)
        && let Some(cell) = ledger.cells.find_mut(&last)
        && cell.lsn == Some(node.id)
    {
        cell.vacate();
    }
}

/// The same for a node that is shown under another's stream now.
pub(super) fn abdicate(ledger: &mut Ledger, node: &Node, now_in: CellId) {
    leave_other_cell(ledger, node, Some(now_in));
}
