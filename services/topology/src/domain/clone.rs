//! One identity alive more than once, as when a disk was copied: how it is suspected, that all of its devices are held,
//! and an operator's word on them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use muster_types::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use super::attach::leave_other_cell;
use super::deed::Action;
use super::event::EventBody;
use super::labels::NodeRefusal;
use super::ledger::{Command, Ledger, Wanted};
use super::node::{Node, Position, Presence, Profile};

/// Devices of one identity that are remembered; of more, those that came first and have gone are forgotten first.
pub const LIVES: usize = 16;

/// What `OperationFailed` says of it.
const OPERATION: &str = "identity";
const REASON_CODE: &str = "CLONED";

/// One start of an agent, on one of the devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    pub boot_nonce: u64,
    pub host_name: String,
    pub addresses: Vec<String>,
    pub observed: Option<IpAddr>,
    /// When it attached.
    pub since: Timestamp,
    /// Its agent has ended since.
    pub gone: bool,
}

impl Life {
    fn of(profile: &Profile, observed: Option<IpAddr>, now: Timestamp) -> Self {
        Self {
            boot_nonce: profile.boot_nonce,
            host_name: profile.host_name.clone(),
            addresses: profile.addresses.clone(),
            observed,
            since: now,
            gone: false,
        }
    }

    /// As people and programs name it.
    pub fn id(&self) -> String {
        format!("{:016x}", self.boot_nonce)
    }

    fn describe(&self) -> String {
        let from = self.observed.map(|ip| format!(" from {ip}")).unwrap_or_default();
        format!("{} ({}{from})", self.id(), self.host_name)
    }
}

/// A node that was online in one life was seen in another: it was started again, or there are two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspicion {
    pub node: NodeId,
    pub earlier: Life,
    pub later: Life,
    /// Whose control streams lead to either.
    pub carriers: BTreeSet<NodeId>,
}

impl Suspicion {
    /// Between a node as it was known and as it comes. A node that had parted was started again, whatever it was before.
    pub fn between(before: &Node, after: &Node, now: Timestamp) -> Option<Self> {
        let (earlier, later) = (before.profile.boot_nonce, after.profile.boot_nonce);
        let told = earlier != 0 && later != 0;
        (before.is_online() && told && earlier != later).then(|| Self {
            node: after.id,
            earlier: Life::of(&before.profile, before.observed, before.last_seen),
            later: Life::of(&after.profile, after.observed, now),
            carriers: BTreeSet::from([before.carrier(), after.carrier()]),
        })
    }
}

/// A held node's agent attached.
pub(super) fn note_life(node: &mut Node, profile: &Profile, observed: Option<IpAddr>, now: Timestamp) {
    let life = Life::of(profile, observed, now);
    let started_again =
        |it: &Life| it.gone && (&it.host_name, it.observed) == (&life.host_name, life.observed);
    node.lives.retain(|it| it.boot_nonce != life.boot_nonce && !started_again(it));
    if node.lives.len() >= LIVES {
        let oldest = node.lives.iter().position(|it| it.gone).unwrap_or_default();
        node.lives.remove(oldest);
    }
    node.lives.push(life);
}

/// Both lives have proven themselves at once. Answers whether that is news.
#[derive(Debug, Clone)]
pub struct Hold {
    pub suspicion: Suspicion,
}

impl Command for Hold {
    type Answer = bool;

    fn wants(&self, wanted: &mut Wanted) {
        wanted.nodes.insert(self.suspicion.node);
    }

    fn apply(&self, ledger: &mut Ledger) -> bool {
        let Suspicion { node: id, earlier, later, .. } = &self.suspicion;
        let Some(mut node) = ledger.nodes.find(id).filter(|node| !node.is_held()).cloned() else {
            return false;
        };
        leave_other_cell(ledger, &node, None);
        let reason = format!("alive twice: {} and {}", earlier.describe(), later.describe());
        let now = ledger.now;
        node.vanish(Presence::Held, reason.clone(), now, now);
        (node.position, node.lsn) = (Position::Direct, None);
        node.lives = vec![earlier.clone(), later.clone()];
        ledger.nodes.put(*id, node);
        ledger.note(Action::HoldNode, "services/topology", &format!("nodes/{id}"), &reason);
        let (operation, reason_code) = (OPERATION.to_owned(), REASON_CODE.to_owned());
        ledger.emit(EventBody::OperationFailed { node: *id, operation, reason_code, reason });
        true
    }
}

/// An operator's word on a held node. Answers whether it is held no more: one device at most is left.
#[derive(Debug, Clone)]
pub struct Resolve {
    pub node: NodeId,
    pub actor: String,
    /// Who becomes another device; `None`: the others are gone for good.
    pub life: Option<u64>,
}

impl Command for Resolve {
    type Answer = Result<bool, NodeRefusal>;

    fn wants(&self, wanted: &mut Wanted) {
        wanted.nodes.insert(self.node);
    }

    fn apply(&self, ledger: &mut Ledger) -> Result<bool, NodeRefusal> {
        let now = ledger.now;
        let node = ledger.nodes.find_mut(&self.node).ok_or(NodeRefusal::Unknown)?;
        if !node.is_held() {
            return Err(NodeRefusal::NotHeld);
        }
        let detail = match self.life {
            Some(life) => {
                let at = node.lives.iter().position(|it| it.boot_nonce == life);
                let life = node.lives.remove(at.ok_or(NodeRefusal::UnknownLife)?);
                format!("{} becomes another device", life.describe())
            }
            None => "one device alone is left".to_owned(),
        };
        let released = self.life.is_none() || node.lives.iter().filter(|it| !it.gone).count() <= 1;
        if released {
            node.lives.clear();
            (node.presence, node.since, node.reason) = (Presence::Offline, now, "was held".to_owned());
        }
        ledger.note(Action::ResolveClone, &self.actor, &format!("nodes/{}", self.node), &detail);
        Ok(released)
    }
}
